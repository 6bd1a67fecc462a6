"""Birds: CUB-200-2011's, and what is learned from of them (chapter 14).

Of each bird there are a class, a *box*, and fifteen *parts*, each a point or not visible. All
places are in normalised units of the picture, −1 and 1 its edges, so that they stay what they are
at any size. Three sources, by name, and never one for another:

- `cub`: all 200 classes, once `stn-tutorial data cub` has fetched and prepared them;
- `cub-part`: the first 50 classes, where the data folder has `CUB/cub50.csv`, `CUB/parts.csv` and
  `CUB/images`;
- `drawn`: no birds at all, but drawn ones, see `DrawnBirds`. They need no file.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stn_tutorial._checks import Size, check_choice, check_size
from stn_tutorial.data.digits import SPLITS, data_folder
from stn_tutorial.data.drawn_birds import DRAWN_BIRDS, PARTS, DrawnBirds

__all__ = ["BIRD_SOURCES", "BODY", "HEAD", "Birds", "cub_folder", "load_birds", "part_middle"]

BIRD_SOURCES = ("cub", "cub-part", "drawn")
HEAD = ("beak", "crown", "forehead", "left eye", "right eye", "nape", "throat")
"""The parts of `PARTS` that are on the head."""
BODY = ("back", "belly", "breast", "left wing", "right wing")
"""Those that are on the trunk; legs and tail are on neither."""
DRAWN = {"train": 2000, "test": 500}
"""How many drawn birds `load_birds` returns; batches are drawn without end."""


class Birds(NamedTuple):
    """Pictures of birds, and what is known of them."""

    images: Tensor
    """uint8, shape (N, 3, H, W): whole pictures, squeezed to one size."""
    labels: Tensor
    """int64, shape (N,): a place in `names`."""
    boxes: Tensor
    """float32, shape (N, 4): left, top, right, bottom, as `affine.crop` takes them."""
    parts: Tensor
    """float32, shape (N, 15, 2): x and y of each of `PARTS`; zeros where it is not visible."""
    visible: Tensor
    """bool, shape (N, 15)."""
    names: tuple[str, ...]
    """Of the classes."""


def part_middle(birds: Birds, parts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the mean place of those named parts that are visible, and whether any is.

    Args:
        birds: N of them.
        parts: names from `PARTS`, such as `HEAD`.

    Raises:
        ValueError: a name that is none, or none at all.

    Returns:
        Float32 (N, 2), zeros where no part is visible; bool (N,).
    """
    if not parts:
        raise ValueError("parts must name one or more, but none was given")
    for name in parts:
        check_choice("part", name, PARTS)
    which = [PARTS.index(name) for name in parts]
    seen = birds.visible[:, which]
    total = (birds.parts[:, which] * seen[..., None]).sum(dim=1)
    return total / seen.sum(dim=1, keepdim=True).clamp(min=1), seen.any(dim=1)


def cub_folder(source: str = "cub-part") -> Path:
    """Return the folder that holds a source's list, parts and `images`."""
    return data_folder() / "CUB" / ("whole" if source == "cub" else "")


def _table(path: Path, columns: Sequence[str], source: str) -> list[dict[str, str]]:
    """Return a CSV file's rows; raise unless it is there and has those columns."""
    if not path.is_file():
        if source == "cub":
            raise RuntimeError(
                f"CUB-200-2011 is not prepared: {path} is not there. `stn-tutorial data cub` "
                "fetches it (1.15 GB) and prepares it; the sources 'cub-part' and 'drawn' are "
                "smaller."
            )
        raise RuntimeError(
            f"the part of CUB-200-2011 is not there: {path}. Either set STN_TUTORIAL_DATA to a "
            "folder that holds it, or take the whole set, which `stn-tutorial data cub` fetches "
            "(source 'cub'), or drawn birds, which need no file (source 'drawn')."
        )
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} must have columns {', '.join(missing)}, but has none such")
        return list(reader)


def _number(row: dict[str, str], column: str, path: Path) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise ValueError(
            f"{path}: {column} of picture {row.get('image_id')} must be a number, "
            f"but is {row[column]!r}"
        ) from None


def _column(part: str) -> str:
    return part.replace(" ", "_")


LIST = ("image_id", "path", "label", "class_name", "is_train", "width", "height", "bbox_x",
        "bbox_y", "bbox_w", "bbox_h")  # fmt: skip
POINTS = ("image_id", *(f"{_column(p)}_{what}" for p in PARTS for what in ("x", "y", "visible")))


def _cub(split: str, source: str, size: Size, classes: Sequence[int] | None) -> Birds:
    folder = cub_folder(source)
    path = folder / ("birds.csv" if source == "cub" else "cub50.csv")
    rows = _table(path, LIST, source)
    points = {row["image_id"]: row for row in _table(folder / "parts.csv", POINTS, source)}
    names: dict[int, str] = {}
    for row in rows:
        names[int(_number(row, "label", path))] = row["class_name"].replace("_", " ")
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"{path}: labels must be 0, 1, … without a gap, but are {sorted(names)}")
    kept = [
        row for row in rows
        if (row["is_train"] == "1") == (split == "train")
        and (classes is None or int(row["label"]) in classes)
    ]  # fmt: skip
    height, width = size
    images = torch.empty(len(kept), 3, height, width, dtype=torch.uint8)
    boxes, parts = torch.empty(len(kept), 4), torch.zeros(len(kept), len(PARTS), 2)
    visible = torch.zeros(len(kept), len(PARTS), dtype=torch.bool)
    for place, row in enumerate(kept):
        sides = [_number(row, name, path) for name in ("width", "height")]
        left, top, wide, high = (_number(row, f"bbox_{k}", path) for k in "xywh")
        if min(*sides, wide, high) <= 0:
            raise ValueError(f"{path}: picture {row['image_id']} has a side or a box of 0 pixels")
        edges = (left / sides[0], top / sides[1], (left + wide) / sides[0], (top + high) / sides[1])
        boxes[place] = 2 * torch.tensor(edges) - 1
        if row["image_id"] not in points:
            raise ValueError(f"{folder / 'parts.csv'} says nothing of picture {row['image_id']}")
        own = points[row["image_id"]]
        for k, part in enumerate(PARTS):
            if own[f"{_column(part)}_visible"] == "1":
                visible[place, k] = True
                for axis, name in enumerate("xy"):
                    at = _number(own, f"{_column(part)}_{name}", folder / "parts.csv")
                    parts[place, k, axis] = 2 * at / sides[axis] - 1
        images[place] = _picture(folder / "images" / row["path"], size)
    labels = torch.tensor([int(row["label"]) for row in kept], dtype=torch.int64)
    return Birds(images, labels, boxes, parts, visible, tuple(names[k] for k in sorted(names)))


def _picture(path: Path, size: Size) -> Tensor:
    """Return a photograph squeezed to a size, uint8 (3, H, W)."""
    try:
        with Image.open(path) as file:
            small = file.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def load_birds(
    split: str = "train",
    source: str = "cub-part",
    size: Size = (224, 224),
    *,
    classes: Sequence[int] | None = None,
) -> Birds:
    """Return birds from one of the three sources, and print which they are.

    A picture is squeezed to `size` as a whole, whatever its shape (shrinking averages): nothing of
    it is cut off, and its birds become a little narrower or wider.

    Args:
        split: `"train"` or `"test"`, CUB's own.
        source: `"cub"`, `"cub-part"` or `"drawn"`; see the module.
        size: (H, W).
        classes: keep these alone, by label; all when left out. Labels stay what they are.

    Raises:
        RuntimeError: the source's files are not there; nothing is taken in its place.
        ValueError: a file is damaged or says what cannot be; an unknown name.
    """
    check_choice("split", split, SPLITS)
    check_choice("source", source, BIRD_SOURCES)
    size = check_size(size)
    if source == "drawn":
        drawn = DrawnBirds(split, batch_size=DRAWN[split], size=size)
        U, labels = drawn(0)
        keep = torch.ones_like(labels, dtype=torch.bool)
        if classes is not None:
            keep = torch.isin(labels, torch.tensor(sorted(classes)))
        boxes, parts, visible = (one[keep] for one in drawn.truth(0))
        images = (255 * U[keep]).round().to(torch.uint8)
        birds = Birds(images, labels[keep], boxes, parts, visible, DRAWN_BIRDS)
    else:
        birds = _cub(split, source, size, classes)
    what = {
        "cub": "CUB-200-2011",
        "cub-part": "CUB-200-2011, a part",
        "drawn": "Drawn birds, a stand-in for CUB-200-2011",
    }[source]
    kinds = len(birds.labels.unique())
    print(f"{what}, {split}: {len(birds.labels)} birds of {kinds} classes")
    return birds
