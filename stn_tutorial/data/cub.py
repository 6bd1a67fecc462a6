"""CUB-200-2011 from its public home: fetched, checked, made smaller, once (chapter 14).

Wah et al. (2011): 11 788 photographs of 200 kinds of birds, each with a box and fifteen parts. The
pictures are shrunk to a short side of 256 pixels, and what is known of them is written as two
tables in the form of the part of 50 classes.

Terms, as stated there: for non-commercial research and education; cite the report. The photographs
are their authors'.
"""

import csv
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from PIL import Image

from stn_tutorial.data.birds import LIST, POINTS, cub_folder
from stn_tutorial.data.drawn_birds import PARTS
from stn_tutorial.data.fetching import fetch_file

__all__ = ["CUB", "TERMS", "CubArchive", "fetch", "is_prepared", "prepare"]

HOME = "https://data.caltech.edu/records/65de6-vp158/files/"
NAME = "CUB_200_2011.tgz"
TERMS = (
    "CUB-200-2011 (Wah, Branson, Welinder, Perona and Belongie 2011), "
    "https://data.caltech.edu/records/65de6-vp158: cite the report; the photographs are their "
    "authors', for research and education."
)
SHORT = 256


@dataclass(frozen=True)
class CubArchive:
    """The one file of the set."""

    size: int
    """Bytes."""
    sha256: str
    """As TensorFlow's and torchvision's prototype data sets recorded it."""
    birds: int
    """Pictures in it."""


CUB = CubArchive(
    1_150_585_339, "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081", 11_788
)
"""What is expected. (Its MD5, which torch users commonly check: 97eceeb196236b17998738112f37df78.)
"""


def is_prepared() -> bool:
    """Whether `prepare` has written the whole set."""
    return (cub_folder("cub") / "birds.csv").is_file()


def fetch(
    folder: Path | None = None,
    *,
    home: str | None = None,
    archive: CubArchive | None = None,
    on_bytes: Callable[[int, int], object] | None = None,
) -> Path:
    """Fetch the archive where it is missing, going on with a half of it; check it; return its path.

    Args:
        folder: where it lies; `CUB` in the data folder when left out.
        home: the address of the folder that holds it; `HOME` when left out.
        archive: what is expected; `CUB` when left out.
        on_bytes: called with the bytes that are there and those of the whole, again and again.

    Raises:
        RuntimeError: it cannot be fetched. What has come is kept.
        ValueError: what lies there, or has come, is not that archive.
    """
    expected = CUB if archive is None else archive
    folder = cub_folder("cub").parent if folder is None else folder
    return fetch_file(
        (HOME if home is None else home) + NAME,
        folder / NAME,
        size=expected.size,
        sha256=expected.sha256,
        whose="CUB-200-2011's",
        lock=".cub.lock",
        on_bytes=on_bytes,
    )


def _lines(folder: Path, name: str, count: int) -> list[list[str]]:
    """Return the fields of each line of one of the set's lists."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"the archive is not CUB-200-2011's: {name} is not in it")
    fields = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    if any(len(line) != count for line in fields):
        raise ValueError(f"{name} of the archive must have {count} fields a line, but has not")
    return fields


def prepare(
    archive: Path,
    *,
    birds: int | None = None,
    target: Path | None = None,
    on_bird: Callable[[int], object] | None = None,
) -> int:
    """Unpack the archive, shrink its pictures, and write them where `load_birds` reads them.

    The list of birds comes into place last: it says that all is there.

    Args:
        archive: as `fetch` returns it.
        birds: how many there must be; CUB's own count when left out.
        target: the folder to write into; the one that is read when left out.
        on_bird: called with how many are done.

    Raises:
        ValueError: the archive lacks a list or a picture, or has another count.

    Returns:
        How many were written.
    """
    expected = CUB.birds if birds is None else birds
    target = cub_folder("cub") if target is None else target
    target.mkdir(parents=True, exist_ok=True)
    aside = target / ".making"
    with FileLock(target / ".lock"):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            try:
                with tarfile.open(archive, "r:gz") as file:
                    file.extractall(aside, filter="data")
            except (tarfile.TarError, OSError, EOFError) as error:
                raise ValueError(
                    f"{archive} cannot be unpacked: {error}. Delete it, and fetch it again."
                ) from error
            rows, points = _tables(aside / "CUB_200_2011", expected, on_bird)
            _write(aside / "parts.csv", POINTS, points)
            _write(aside / "birds.csv", LIST, rows)
            shutil.rmtree(target / "images", ignore_errors=True)
            (aside / "CUB_200_2011" / "small").replace(target / "images")
            (aside / "parts.csv").replace(target / "parts.csv")
            (aside / "birds.csv").replace(target / "birds.csv")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return len(rows)


def _write(path: Path, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _tables(
    folder: Path, expected: int, on_bird: Callable[[int], object] | None
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Shrink the pictures into `small`, and return the rows of both tables, in those pixels."""
    names = {key: name.partition(".")[2] for key, name in _lines(folder, "classes.txt", 2)}
    classes = {key: label for key, label in _lines(folder, "image_class_labels.txt", 2)}
    train = {key: part for key, part in _lines(folder, "train_test_split.txt", 2)}
    boxes = {line[0]: [float(x) for x in line[1:]]
             for line in _lines(folder, "bounding_boxes.txt", 5)}  # fmt: skip
    places: dict[str, list[list[str]]] = {}
    for line in _lines(folder, "parts/part_locs.txt", 5):
        places.setdefault(line[0], []).append(line[1:])
    pictures = _lines(folder, "images.txt", 2)
    if len(pictures) != expected:
        raise ValueError(f"the archive must hold {expected:,d} birds, but has {len(pictures):,d}")
    rows: list[dict[str, object]] = []
    points: list[dict[str, object]] = []
    for done, (key, path) in enumerate(pictures, 1):
        try:
            box, label, split = boxes[key], classes[key], train[key]
            width, height, factor = _shrunk(folder / "images" / path, folder / "small" / path)
        except KeyError as error:
            raise ValueError(f"the archive says too little of picture {error}: {path}") from error
        except OSError as error:
            raise ValueError(f"{path} of the archive cannot be read: {error}") from error
        x, y, w, h = (round(side * factor, 2) for side in box)
        rows.append({
            "image_id": key, "path": path, "label": int(label) - 1, "class_name": names[label],
            "is_train": split, "width": width, "height": height,
            "bbox_x": x, "bbox_y": y, "bbox_w": w, "bbox_h": h,
        })  # fmt: skip
        points.append({"image_id": key} | _points(places.get(key, []), factor))
        if on_bird is not None:
            on_bird(done)
    return rows, points


def _points(lines: list[list[str]], factor: float) -> dict[str, object]:
    """Return a bird's parts; those that are not listed are not visible."""
    found: dict[str, object] = {}
    listed = {int(part): (x, y, seen) for part, x, y, seen in lines}
    for number, part in enumerate(PARTS, 1):
        x, y, seen = listed.get(number, ("0", "0", "0"))
        name = part.replace(" ", "_")
        found[f"{name}_x"] = round(float(x) * factor, 2)
        found[f"{name}_y"] = round(float(y) * factor, 2)
        found[f"{name}_visible"] = seen
    return found


def _shrunk(source: Path, target: Path) -> tuple[int, int, float]:
    """Write a picture with a short side of 256 pixels, at most; return its size and the factor."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        factor = min(1.0, SHORT / min(picture.size))
        width, height = (max(1, round(side * factor)) for side in picture.size)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.save(target, "jpeg", quality=92)
    return width, height, factor
