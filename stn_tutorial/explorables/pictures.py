"""The pictures that explorables show: the embedded ones, and those that are given."""

import base64
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from stn_tutorial.data import letter_f, photograph

Picture = str | Path | np.ndarray | torch.Tensor


SIDE = 128
"""Side of the embedded pictures: what a page can carry and a frame can warp."""


LARGEST = 256
"""Longest side of a picture that is given; a larger one is shrunk."""


BACKGROUND = "white"
"""What a file's transparent parts are laid on."""


QUALITY = 74
"""Of the photographs that pages carry, as WebP counts."""


def _digit() -> Image.Image:
    """A 5 drawn with a round pen, white on black: it shows turns and flips, as handwriting does."""
    angle = np.radians(np.linspace(-138, 150, 40))
    bowl = np.stack([0.4 * np.cos(angle), 0.22 + 0.4 * np.sin(angle)], axis=1)
    line = np.concatenate([[[0.42, -0.62], [-0.22, -0.62]], bowl])
    place = (2 * np.arange(SIDE) + 1) / SIDE - 1
    point = np.stack(np.meshgrid(place, place), axis=-1)[:, :, None]
    start, end = line[:-1], line[1:]
    way = end - start
    along = ((point - start) * way).sum(-1) / (way**2).sum(-1)
    nearest = start + np.clip(along, 0, 1)[..., None] * way
    distance = np.linalg.norm(point - nearest, axis=-1).min(-1)
    ink = np.clip((0.11 - distance) * SIDE / 2 + 0.5, 0, 1)
    return Image.fromarray((ink * 255).round().astype(np.uint8))


def _photograph(name: str) -> Image.Image:
    # Shrunk by Pillow, in whole numbers, rather than by PyTorch: the same bytes on every machine,
    # or a chapter's committed output would not be reproduced.
    whole = to_image(photograph(name, (427, 427)), largest=427)
    return whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


# Built when asked for: opening the photographs takes a moment.
EMBEDDED: dict[str, tuple[str, Callable[[], Image.Image]]] = {
    "temple": ("photograph of a temple", lambda: _photograph("temple")),
    "flower": ("photograph of a flower", lambda: _photograph("flower")),
    "F": ("letter F", lambda: to_image(letter_f((SIDE, SIDE)))),
    "digit": ("handwritten 5", _digit),
}


def to_image(picture: Picture, largest: int = LARGEST) -> Image.Image:
    """Turn a picture of any accepted kind into an 8-bit image, grey or RGB.

    A file is shown as it is meant to be seen: turned as its camera says, 16 bits scaled to 8,
    values with a point as from 0 to 1, transparent parts over `BACKGROUND`; of several pictures,
    the first.

    Raises:
        TypeError: something else than a name, a path, an array or a tensor, or a wrong dtype.
        ValueError: neither an embedded picture's name nor a file, a file that holds no readable
            picture, a wrong shape, or values out of range.
    """
    if isinstance(picture, str | Path):
        path = Path(picture)
        if not path.is_file():
            raise ValueError(
                f"picture must be one of {', '.join(EMBEDDED)}, or a picture file's path, "
                f"but {str(picture)!r} was given"
            )
        image = _read(path)
    else:
        image = Image.fromarray(_to_array(picture))
    if max(image.size) > largest:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return image


def _read(path: Path) -> Image.Image:
    """Read a picture file as `to_image` describes."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
    # Pillow's own errors are of all these kinds: no picture at all, cut short, broken, too large.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        raise ValueError(
            f"picture must be a file that holds a readable picture, but {str(path)!r} was given: "
            f"{problem}"
        ) from problem
    if image.mode.startswith("I"):  # whole numbers of more than 8 bits, one channel
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if not (low >= 0 and high < 2**16):
            raise ValueError(
                "a picture file's whole numbers must have 16 bits, "
                f"but {str(path)!r} with values from {low} to {high} was given"
            )
        return Image.fromarray((values / 257).round().astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_to_array(np.asarray(image)))
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    return image.convert("L" if grey else "RGB")


def _to_array(picture: Any) -> np.ndarray:
    """Turn an array or a tensor into uint8 of shape (H, W) or (H, W, 3)."""
    if isinstance(picture, torch.Tensor):
        tensor = picture.detach().cpu()
        return _to_array((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    if not isinstance(picture, np.ndarray):
        raise TypeError(
            "picture must be a name, a path, a NumPy array or a tensor, "
            f"but a {type(picture).__name__} was given"
        )
    shape = picture.shape
    if picture.ndim == 4 and shape[0] == 1:
        picture = picture[0]
    if picture.ndim == 3 and picture.shape[2] not in (1, 3) and picture.shape[0] in (1, 3):
        picture = picture.transpose(1, 2, 0)
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    if picture.size == 0 or not (
        picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    ):
        raise ValueError(
            "picture must have shape (H, W), (H, W, 3), (3, H, W) or (1, C, H, W) with C = 1 or 3, "
            f"but shape {shape} was given"
        )
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture)
    if picture.dtype == bool:
        return picture.astype(np.uint8) * 255
    if not np.issubdtype(picture.dtype, np.floating):
        raise TypeError(f"picture must be floating, uint8 or bool, but {picture.dtype} was given")
    if not (picture.min() >= 0 and picture.max() <= 1):
        raise ValueError(
            "a floating picture must have values in [0, 1], "
            f"but values from {picture.min():g} to {picture.max():g} were given"
        )
    return (picture.astype(np.float64) * 255).round().astype(np.uint8)


def data_uri(image: Image.Image, form: str = "PNG", **options: Any) -> str:
    """Return an image as a `data:` address, PNG unless another form is named."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({} if form == "WEBP" else {"optimize": True}), **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{data}"


def from_data_uri(src: str) -> Image.Image:
    """Return the picture that a front end sent as a PNG's `data:` address, grey or RGB."""
    data = base64.b64decode(src.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("L" if opened.mode == "L" else "RGB")


@cache
def _source(name: str, side: int) -> str:
    """What a page carries of an embedded picture, as a `data:` address.

    Photographs as WebP: an eighth of their PNGs' size, and each page that shows one carries it.
    """
    image = EMBEDDED[name][1]()
    if side != SIDE:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    if image.mode == "RGB":
        return data_uri(image, "WEBP", quality=QUALITY, method=6)
    return data_uri(image)


@cache
def embedded_image(name: str, side: int = SIDE) -> Image.Image:
    """Return an embedded picture by name, 128×128 or smaller: the values that a page shows."""
    data = base64.b64decode(_source(name, side).partition(",")[2])
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("L" if opened.mode == "L" else "RGB")


@cache
def embedded_pictures(side: int = SIDE) -> dict[str, dict[str, str]]:
    """Return what a front end needs of the embedded pictures: name → label and data URI."""
    return {
        name: {"label": label[0].upper() + label[1:], "src": _source(name, side)}
        for name, (label, _) in EMBEDDED.items()
    }
