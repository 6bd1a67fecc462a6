"""SVHN's whole numbers from their public home: fetched, checked, cropped, once (chapter 13).

Format 1 of Netzer et al. (2011): photographs of house fronts, and for each digit a box. Its labels
say 10 for the digit 0; here they are translated. Each number is cropped as Goodfellow et al. (2013)
do: the smallest box that holds all its digits, enlarged by 30 %, scaled to a square.

Terms, as stated at that address: for non-commercial use only.
"""

import importlib.util
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from stn_tutorial._checks import check_choice, check_count
from stn_tutorial.data.digits import data_folder
from stn_tutorial.data.drawn_numbers import NO_DIGIT, POSITIONS
from stn_tutorial.data.fetching import fetch_file
from stn_tutorial.data.house_numbers import prepared_folder

__all__ = [
    "ARCHIVES",
    "TERMS",
    "Archive",
    "Number",
    "check_reader",
    "crop_box",
    "fetch",
    "is_prepared",
    "prepare",
    "read_numbers",
]

HOME = "http://ufldl.stanford.edu/housenumbers/"
TERMS = (
    "SVHN (Netzer, Wang, Coates, Bissacco, Wu and Ng 2011), http://ufldl.stanford.edu/housenumbers/"
    ": for non-commercial use only."
)
ENLARGED = 1.3


@dataclass(frozen=True)
class Archive:
    """One of SVHN's files of whole numbers."""

    size: int
    """Bytes."""
    sha256: str
    """As Hugging Face's `datasets` recorded it, with the same size as many others tell."""
    numbers: int
    """Pictures in it."""


ARCHIVES = {
    "train": Archive(
        404_141_560, "4b17bb33b6cd8f963493168f80143da956f28ec406cc12f8e5745a9f91a51898", 33_402
    ),
    "extra": Archive(
        1_955_489_752, "e857e27d1e65bd1e7d3959b094061777f6506bbc39889a0df3bba6a729d60f9c", 202_353
    ),
    "test": Archive(
        276_555_967, "57ac9ceb530e4aa85b55d991be8fc49c695b3d71c6f6a88afea86549efde7fb5", 13_068
    ),
}
"""By the name of the part."""


@dataclass(frozen=True)
class Number:
    """What SVHN says of one picture, its labels translated."""

    name: str
    """The picture's file, `"1.png"`."""
    digits: tuple[int, ...]
    """From left to right as SVHN lists them, 0 to 9."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """Of each digit: left, top, width, height, in pixels."""


def check_reader() -> None:
    """Raise `RuntimeError` unless h5py is there, before gigabytes are fetched that it must read."""
    if importlib.util.find_spec("h5py") is None:
        raise RuntimeError(
            "SVHN's boxes are in an HDF5 file, and h5py is not installed: "
            'pip install "stn-tutorial[svhn]"'
        )


def is_prepared(part: str, side: int = 64) -> bool:
    """Whether `prepare` has written that part."""
    return (prepared_folder(side) / f"{part}_images.npy").is_file()


def fetch(
    part: str,
    folder: Path | None = None,
    *,
    home: str | None = None,
    archive: Archive | None = None,
    on_bytes: Callable[[int, int], object] | None = None,
) -> Path:
    """Fetch one archive where it is missing, going on with a half of it; check it; say where it is.

    What has come is kept in `PART.tar.gz.half`, whatever stops the transfer; the next call asks for
    the rest alone. Only a file of the right size and hash gets the archive's name.

    Args:
        part: `"train"`, `"extra"` or `"test"`.
        folder: where archives lie; `SVHN` in the data folder when left out.
        home: the address of the folder that holds them; `HOME` when left out.
        archive: what is expected; SVHN's own when left out.
        on_bytes: called with the bytes that are there and those of the whole, again and again.

    Raises:
        RuntimeError: it cannot be fetched. What has come is kept.
        ValueError: what lies there, or has come, is not that archive.
    """
    check_choice("part", part, tuple(ARCHIVES))
    expected = ARCHIVES[part] if archive is None else archive
    folder = data_folder() / "SVHN" if folder is None else folder
    name = f"{part}.tar.gz"
    return fetch_file(
        (HOME if home is None else home) + name,
        folder / name,
        size=expected.size,
        sha256=expected.sha256,
        whose="SVHN's",
        lock=f".{part}.lock",
        on_bytes=on_bytes,
    )


FIELDS = ("label", "left", "top", "width", "height")


def _boxes(file: Any, item: Any) -> dict[str, list[float]]:
    """Return one number's fields: of one digit each is a number, of several it refers to them."""
    if not hasattr(item, "keys") or "label" not in item:  # as MATLAB writes an empty list
        return {key: [] for key in FIELDS}
    found = {}
    for key in FIELDS:
        values = np.asarray(item[key]).reshape(-1)
        if values.dtype.kind == "f":
            found[key] = [float(value) for value in values]
        else:
            found[key] = [float(np.asarray(file[one]).reshape(-1)[0]) for one in values]
    return found


def read_numbers(path: Path) -> Iterator[Number]:
    """Read SVHN's `digitStruct.mat`, which is an HDF5 file: needs `stn-tutorial[svhn]`.

    Raises:
        RuntimeError: h5py is not installed.
        ValueError: the file is not SVHN's, or a label is none of 1 to 10.
    """
    check_reader()
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names, boxes = file["digitStruct/name"], file["digitStruct/bbox"]
            for place in range(len(names)):
                name = "".join(chr(c) for c in np.asarray(file[names[place, 0]]).reshape(-1))
                found = _boxes(file, file[boxes[place, 0]])
                yield _number(name, found, path)
    except (OSError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is not SVHN's list of boxes: {error}") from error


def _number(name: str, found: dict[str, list[float]], path: Path) -> Number:
    labels = found["label"]
    if not all(label in range(1, 11) for label in labels):
        raise ValueError(
            f"{path}: SVHN's labels must be 1 to 10, where 10 is the digit 0, "
            f"but {name} has {[int(label) for label in labels]}"
        )
    if len({len(values) for values in found.values()}) != 1:
        raise ValueError(f"{path}: {name} has not as many boxes as digits")
    digits = tuple(int(label) % 10 for label in labels)
    sides = zip(found["left"], found["top"], found["width"], found["height"], strict=True)
    return Number(name, digits, tuple(sides))


def crop_box(
    boxes: tuple[tuple[float, float, float, float], ...], enlarged: float = ENLARGED
) -> tuple[float, float, float, float]:
    """Return the box of all digits' boxes, enlarged about its middle: left, top, right, bottom.

    It may reach out of the picture; what lies there is the picture's edge, repeated.

    Args:
        boxes: left, top, width, height of each, in pixels.
        enlarged: by what factor, along each axis.

    Raises:
        ValueError: there is no box, or together they have no area.
    """
    if not boxes:
        raise ValueError("boxes must hold at least one, but none was given")
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, bottom = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    if right <= left or bottom <= top:
        raise ValueError(f"boxes must have an area, but {boxes} were given")
    more_x, more_y = (enlarged - 1) / 2 * (right - left), (enlarged - 1) / 2 * (bottom - top)
    return left - more_x, top - more_y, right + more_x, bottom + more_y


def _cropped(picture: Image.Image, box: tuple[float, float, float, float], side: int) -> np.ndarray:
    """Return that box of a picture as uint8 (side, side, 3)."""
    left, top, right, bottom = box
    room = max(0, -left, -top, right - picture.width, bottom - picture.height)
    pad = int(np.ceil(room))
    pixels = np.asarray(picture.convert("RGB"))
    if pad:
        pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    inside = (left + pad, top + pad, right + pad, bottom + pad)
    resized = Image.fromarray(pixels).resize(
        (side, side), Image.Resampling.BILINEAR, box=inside
    )  # (which averages where it shrinks)
    return np.asarray(resized)


def _unpack(path: Path, part: str, into: Path) -> Path:
    """Unpack an archive; return the folder of its pictures."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            archive.extractall(into, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be unpacked: {error}. Delete it, and fetch it again."
        ) from error
    folder = into / part
    if not (folder / "digitStruct.mat").is_file():
        raise ValueError(f"{path} is not SVHN's archive: {part}/digitStruct.mat is not in it")
    return folder


def prepare(
    part: str,
    archive: Path,
    side: int = 64,
    *,
    numbers: int | None = None,
    target: Path | None = None,
    on_number: Callable[[int], object] | None = None,
) -> dict[str, int]:
    """Unpack an archive, crop its numbers, and write them where `load_house_numbers` reads them.

    Both files come into place whole, or not at all. Numbers of more than five digits, which the
    network has no head for, are left out and counted.

    Args:
        part: `"train"`, `"extra"` or `"test"`.
        archive: as `fetch` returns it.
        side: pixels along each side of a crop.
        numbers: how many pictures there must be; SVHN's own count when left out.
        target: the folder to write into; the one that is read when left out.
        on_number: called with how many are done.

    Raises:
        ValueError: the archive lacks a picture or a box, or has another count than SVHN.
        RuntimeError: h5py is not installed.

    Returns:
        How many are `"written"`, and how many were `"too long"`.
    """
    check_choice("part", part, tuple(ARCHIVES))
    check_count("side", side)
    expected = ARCHIVES[part].numbers if numbers is None else numbers
    target = prepared_folder(side) if target is None else target
    target.mkdir(parents=True, exist_ok=True)
    aside = target / f".{part}.making"
    with FileLock(target / f".{part}.lock"):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            folder = _unpack(archive, part, aside)
            found = list(read_numbers(folder / "digitStruct.mat"))
            if len(found) != expected:
                raise ValueError(
                    f"{archive} must hold {expected:,d} numbers, but has {len(found):,d}"
                )
            kept = [one for one in found if len(one.digits) <= POSITIONS]
            images = np.lib.format.open_memmap(
                aside / "images.npy", "w+", np.uint8, (len(kept), side, side, 3)
            )
            labels = np.full((len(kept), POSITIONS), NO_DIGIT, np.uint8)
            for place, one in enumerate(kept):
                images[place] = _crop(one, folder, side)
                labels[place, : len(one.digits)] = one.digits
                if on_number is not None:
                    on_number(place + 1)
            images.flush()
            np.save(aside / "labels.npy", labels)
            # The pictures last: they are what says that all is there.
            os.replace(aside / "labels.npy", target / f"{part}_labels.npy")
            os.replace(aside / "images.npy", target / f"{part}_images.npy")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return {"written": len(kept), "too long": len(found) - len(kept)}


def _crop(one: Number, folder: Path, side: int) -> np.ndarray:
    try:
        box = crop_box(one.boxes)
    except ValueError as error:
        raise ValueError(f"{folder.name}/{one.name} has no box to crop to: {error}") from error
    try:
        with Image.open(folder / one.name) as picture:
            return _cropped(picture, box, side)
    except OSError as error:
        raise ValueError(f"{folder.name}/{one.name} cannot be read: {error}") from error
