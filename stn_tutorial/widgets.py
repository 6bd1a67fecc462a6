r"""Explorables: pictures that answer to sliders, in a notebook and in the book's static pages.

Each is an `anywidget` whose front end is one ES module (the files in `static/`, joined when this
module is imported). Shown by a notebook's cell it leaves two things in the cell's output: the live
widget, and HTML that stands for it where no kernel runs. The book's Sphinx extension brings that
HTML to life; GitHub, and a browser without JavaScript, show the picture in it.

Pictures are kept and shown as 8-bit values; the front end computes in double precision.
"""

import base64
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw, ImageFont

from stn_tutorial import _network
from stn_tutorial._bundle import bundle
from stn_tutorial.affine import compose, invert, rotation, scaling, transform_points, translation
from stn_tutorial.data import letter_f, photograph
from stn_tutorial.grids import (
    HORIZON,
    _spline_system,
    affine_grid,
    control_points,
    piecewise_affine_grid,
    projective_grid,
    regular_grid,
    thin_plate_spline_grid,
)
from stn_tutorial.sampling import MODES, Splat, sample, splat
from stn_tutorial.viz import ERROR, GRID, INPUT, OUTPUT, THETA

__all__ = [
    "BilinearExplorer",
    "CornersExplorer",
    "DescentExplorer",
    "MappingExplorer",
    "NetworkExplorer",
    "PoolingExplorer",
    "SplineExplorer",
    "ThetaExplorer",
    "describe",
]

Picture = str | Path | np.ndarray | torch.Tensor

SIDE = 128
"""Side of the embedded pictures: what a page can carry and a frame can warp."""

LARGEST = 256
"""Longest side of a picture that is given; a larger one is shrunk."""

QUALITY = 74
"""Of the photographs that pages carry, as WebP counts."""

SHOWS = ("grid", "point", "weights")


# --- θ in words ---


def describe(theta: Sequence[Sequence[float]], size: Sequence[int] = (1, 1)) -> str:
    """Say in words what θ does to a picture, as it is seen on the screen.

    Scale, slant, turn and shift, in this order, from the same factors as `affine.decompose`; of a
    mirrored picture, the mirror that leaves the smaller turn.

    Args:
        theta: 2×3 numbers, normalised, output to input.
        size: (H, W) of the picture; only its proportions matter.
    """
    (a, b, tx), (c, d, ty) = theta
    det = a * d - b * c
    if not abs(det) > 2**-52 * (abs(a * d) + abs(b * c)):
        if a == b == c == d == 0:
            return "Every output pixel reads one and the same point of the input."
        return "Every output pixel reads from one line of the input: this map has no inverse."
    right = -(d * tx - b * ty) / det
    down = -(a * ty - c * tx) / det
    # As it is seen: a normalised unit is W/2 pixels wide and H/2 pixels high.
    height, width = size
    b, c = b * width / height, c * height / width
    det = a * d - b * c
    p, q, r, s = d / det, -b / det, -c / det, a / det
    parts = []
    if p * s - q * r < 0:
        if p < -1e-9:
            p, r = -p, -r
            parts.append("mirrored left to right")
        else:
            q, s = -q, -s
            parts.append("mirrored top to bottom")
    sx = math.hypot(p, r)
    sy = (p * s - q * r) / sx
    slant = (p * q + r * s) / sx / sy
    degrees = math.degrees(math.atan2(-r, p))
    side = "bottom to the right" if slant > 0 else "bottom to the left"
    if abs(q) < 1e-9 and p > 0 and s > 0:
        # A downward slant alone, which would otherwise be told as a turn and two more changes.
        sx, sy, slant, degrees = p, s, r / p, 0.0
        side = "right side down" if slant > 0 else "right side up"
    wide, high = _fixed(sx), _fixed(sy)
    if wide == high != "1":
        parts.append(f"made {_times(wide)} as large")
    elif wide != high:
        sides = [f"{_times(wide)} as wide"] * (wide != "1")
        sides += [f"{_times(high)} as high"] * (high != "1")
        parts.append("made " + " and ".join(sides))
    if _fixed(slant) != "0":
        parts.append(f"slanted by {_fixed(slant)} ({side})")
    turn = _fixed(degrees, 1)
    if turn == "180":
        parts.append("turned 180°")
    elif turn != "0":
        parts.append(f"turned {turn}° {'counter-clockwise' if degrees > 0 else 'clockwise'}")
    moves = []
    if _fixed(right) != "0":
        moves.append(f"{'right' if right > 0 else 'left'} by {_fixed(right)}")
    if _fixed(down) != "0":
        moves.append(f"{'down' if down > 0 else 'up'} by {_fixed(down)}")
    if moves:
        parts.append("moved " + " and ".join(moves))
    if not parts:
        return "The picture stays as it is."
    *most, last = parts
    return f"The picture is {', '.join(most)}{' and ' if most else ''}{last}."


def _fixed(value: float, places: int = 2) -> str:
    """The size of a number without its sign: halves away from zero, as JavaScript rounds."""
    size = abs(value)
    if size >= 1e21:
        return repr(size)
    text = str(Decimal(size).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    return text.rstrip("0").rstrip(".")


def _times(factor: str) -> str:
    words = {"2": "twice", "0.5": "half", "0.33": "a third", "0.25": "a quarter"}
    return words.get(factor, f"{factor} times")


# --- Pictures ---


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
    whole = _to_image(photograph(name, (427, 427)), largest=427)
    return whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


# Built when asked for: opening the photographs takes a moment.
_EMBEDDED: dict[str, tuple[str, Callable[[], Image.Image]]] = {
    "temple": ("photograph of a temple", lambda: _photograph("temple")),
    "flower": ("photograph of a flower", lambda: _photograph("flower")),
    "F": ("letter F", lambda: _to_image(letter_f((SIDE, SIDE)))),
    "digit": ("handwritten 5", _digit),
}


def _to_image(picture: Picture, largest: int = LARGEST) -> Image.Image:
    """Turn a picture of any accepted kind into an 8-bit image, grey or RGB."""
    if isinstance(picture, str | Path):
        path = Path(picture)
        if not path.is_file():
            raise ValueError(
                f"picture must be one of {', '.join(_EMBEDDED)}, or a picture file's path, "
                f"but {str(picture)!r} was given"
            )
        with Image.open(path) as opened:
            image = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    else:
        image = Image.fromarray(_to_array(picture))
    if max(image.size) > largest:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return image


def _to_array(picture: np.ndarray | torch.Tensor) -> np.ndarray:
    """Turn an array or a tensor into uint8 of shape (H, W) or (H, W, 3)."""
    if isinstance(picture, torch.Tensor):
        picture = picture.detach().cpu()
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
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


def _data_uri(image: Image.Image, form: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **({} if form == "WEBP" else {"optimize": True}), **options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{data}"


@cache
def embedded_image(name: str, side: int = SIDE) -> Image.Image:
    """Return an embedded picture by name, 128×128 or smaller."""
    image = _EMBEDDED[name][1]()
    return image if side == SIDE else image.resize((side, side), Image.Resampling.LANCZOS)


@cache
def embedded_pictures(side: int = SIDE) -> dict[str, dict[str, str]]:
    """Return what a front end needs of the embedded pictures: name → label and data URI.

    Photographs as WebP: an eighth of their PNGs' size, and each page that shows one carries it.
    """
    pictures = {}
    for name, (label, _) in _EMBEDDED.items():
        image = embedded_image(name, side)
        photo = image.mode == "RGB"
        src = _data_uri(image, "WEBP", quality=QUALITY, method=6) if photo else _data_uri(image)
        pictures[name] = {"label": label[0].upper() + label[1:], "src": src}
    return pictures


# --- The picture that stands where nothing moves ---


def _still(image: Image.Image, theta: Sequence[Sequence[float]]) -> Image.Image:
    """Draw the input with the sampling grid over it, and the output beside it."""
    # In float64: a rounding that differs between machines would change the picture's bytes.
    matrix = torch.tensor([theta], dtype=torch.float64)
    size = image.height, image.width
    steps = torch.linspace(-1, 1, 9, dtype=torch.float64)
    lines = [torch.stack([k.expand(2), steps[[0, -1]]], 1) for k in steps[1:-1]]
    lines += [line.flip(1) for line in lines]
    corners = torch.tensor(_RIM, dtype=torch.float64)
    rim = [corners[[k, (k + 1) % 4]] for k in range(4)]
    strokes = [
        (transform_points(matrix, segment)[0].numpy(), colour, weight)
        for colour, weight, segments in ((GRID, 4, lines), (OUTPUT, 7, rim))
        for segment in segments
    ]
    ends = transform_points(matrix, corners)[0].numpy()
    return _still_grid(image, _output(image, affine_grid(matrix, size)), ends, strokes)


_RIM = [[-1.0, -1.0], [1, -1], [1, 1], [-1, 1]]


def _output(image: Image.Image, grid: torch.Tensor) -> np.ndarray:
    """What the grid reads of an image, as 8-bit RGB."""
    U = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None].double()
    V = sample(U, grid)[0].permute(1, 2, 0)
    return V.round().clamp(0, 255).to(torch.uint8).numpy()


def _still_grid(
    image: Image.Image,
    output: np.ndarray,
    ends: np.ndarray,
    strokes: Sequence[tuple[np.ndarray, str, int]],
    marks: Sequence[np.ndarray] = (),
) -> Image.Image:
    """Draw the input with lines over it, and the output beside it.

    Args:
        image: the input.
        output: the output, as 8-bit RGB.
        ends: points that must be in view, (n, 2), normalised.
        strokes: lines over the input, each with its points, its colour and its weight.
        marks: points over the input.
    """
    width, height = image.size
    half = np.array([width, height]) / max(width, height)
    ends = ends * half
    low, high = np.minimum(ends.min(0), -half), np.maximum(ends.max(0), half)
    middle, reach = (low + high) / 2, max(1.45, (high - low).max() / 2 * 1.05)
    if reach == 1.45:
        middle = np.zeros(2)
    scale, fine = 66, 3  # pixels in a unit; drawn three times as large, then shrunk: smooth lines
    left_side, right_side = round(2 * 1.45 * scale), round(2 * 1.12 * scale)
    canvas = Image.new("RGB", ((left_side + right_side) * fine, left_side * fine), "white")
    draw = ImageDraw.Draw(canvas)

    def panel(picture: Image.Image, centre: np.ndarray, unit: float, colour: str) -> None:
        corner, opposite = (centre - half * unit).round(), (centre + half * unit).round()
        side = np.maximum(opposite - corner, 1).astype(int)
        canvas.paste(
            picture.resize(tuple(side.tolist()), Image.Resampling.BICUBIC),
            tuple(corner.astype(int).tolist()),
        )
        draw.rectangle([*(corner - 6), *(opposite + 6)], outline=colour, width=7)

    unit = left_side * fine / 2 / reach
    centre = np.full(2, left_side * fine / 2) - middle * unit
    panel(image.convert("RGB"), centre, unit, INPUT)
    for points, colour, weight in strokes:
        places = points * half * unit + centre
        flat = places.ravel().clip(-1e5, 1e5).tolist()
        draw.line(flat, fill="white", width=weight + 5)
        draw.line(flat, fill=colour, width=weight)
    for point in marks:
        x, y = point * half * unit + centre
        for radius, colour in ((15, "white"), (11, THETA)):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    # Over what a line may have left there on its way out of view.
    draw.rectangle([left_side * fine, 0, *canvas.size], fill="white")
    right = np.array([left_side + right_side / 2, left_side / 2]) * fine
    panel(Image.fromarray(output), right, scale * fine, OUTPUT)
    return canvas.resize((canvas.width // fine, canvas.height // fine), Image.Resampling.BOX)


# --- The explorables ---


class _Explorable(anywidget.AnyWidget):
    """What all explorables share: a stable text, and HTML for where no kernel runs."""

    _kind: str

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """What all of this kind on one page share: name → label and data URI."""
        return {}

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """What else all of this kind on one page share: traits that no cell's output holds."""
        return {}

    def _state(self) -> dict[str, Any]:
        """What a page needs to know to show this, as JSON."""
        raise NotImplementedError

    def _fallback(self) -> tuple[Image.Image, str]:
        """A picture that stands for this, and its text."""
        raise NotImplementedError

    def to_html(self) -> str:
        """Return HTML that a static page of the book brings to life; elsewhere, a picture."""
        image, alt = self._fallback()
        state = json.dumps({"kind": self._kind, **self._state()}, ensure_ascii=False)
        src = _data_uri(image, "JPEG", quality=62)
        return (
            f'<div class="stn-explorable" data-stn-widget="{html.escape(state)}">'
            f'<img alt="{html.escape(alt)}" src="{src}" width="{image.width}" '
            f'height="{image.height}"></div>'
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        # Colab reads the metadata; everything else that is kept here is the widget's view.
        data, metadata = bundle
        return {**data, "text/plain": repr(self), "text/html": self.to_html()}, metadata


class _Pictured(_Explorable):
    """An explorable that shows one of the embedded pictures, or one that is given."""

    _choice = tuple(_EMBEDDED)
    _side = SIDE
    _largest = LARGEST

    _picture = traitlets.Unicode().tag(sync=True)
    _pictures = traitlets.Dict().tag(sync=True)

    def __init__(self, picture: Picture, **kwargs: Any) -> None:
        self._given: Image.Image | None = None
        name, pictures = self._take(picture)
        super().__init__(_picture=name, _pictures=pictures, **kwargs)

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        every = embedded_pictures(cls._side)
        return {name: every[name] for name in cls._choice}

    def _take(self, picture: Picture) -> tuple[str, dict[str, dict[str, str]]]:
        if isinstance(picture, str) and picture in self._choice:
            return picture, self._pictures or self.page_pictures()
        self._given = _to_image(picture, self._largest)
        own = {"label": "Your picture", "src": _data_uri(self._given)}
        return "yours", {**self.page_pictures(), "yours": own}

    @property
    def picture(self) -> str:
        """The name of the picture that is shown, `"yours"` for one that was given; settable."""
        return self._picture

    @picture.setter
    def picture(self, picture: Picture) -> None:
        name, pictures = self._take(picture)
        # Before the name: the front end looks it up among them.
        self._pictures = pictures
        self._picture = name

    @property
    def image(self) -> Image.Image:
        """The picture that is shown, as a PIL image of 8-bit values."""
        if self._picture == "yours":
            return self._given
        return embedded_image(self._picture, self._side)

    def _label(self) -> str:
        """The picture in words."""
        return "picture" if self._picture == "yours" else _EMBEDDED[self._picture][0]

    def _picture_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"_picture": self._picture}
        if self._picture == "yours":
            state["_pictures"] = {"yours": self._pictures["yours"]}
        return state


def _rows(theta: Any) -> list[list[float]]:
    """Turn what was given as θ into 2×3 floats; raise `TraitError` when it is something else."""
    if isinstance(theta, torch.Tensor):
        theta = theta.detach().cpu().double().numpy()
    try:
        array = np.asarray(theta, dtype=np.float64)
    except (TypeError, ValueError):
        array = None
    if array is not None and array.shape == (1, 2, 3):
        array = array[0]
    if array is None or array.shape != (2, 3):
        given = f"shape {array.shape}" if array is not None and array.ndim else repr(theta)
        raise traitlets.TraitError(
            f"theta must be 2×3 numbers, or a tensor of shape (1, 2, 3), but {given} was given"
        )
    if not np.isfinite(array).all():
        raise traitlets.TraitError(f"theta must be finite, but {array.tolist()} was given")
    # Adding zero turns −0 into 0.
    return (array + 0.0).tolist()


class _Theta(traitlets.TraitType):
    """A trait that holds θ as lists, whatever it was given as: lists travel as JSON."""

    default_value = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]  # noqa: RUF012 (never changed in place)

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        return _rows(value)


def _six(rows: list[list[float]]) -> list[list[float]]:
    """θ to six digits: the same on every machine, whatever its last bits."""
    return [[float(f"{value:.6g}") for value in row] for row in rows]


class ThetaExplorer(_Pictured):
    """Six sliders, the matrix θ, that move a picture.

    θ maps output to input, in normalised coordinates: the grid drawn over the input shows where
    each output pixel reads. Its origin and the tips of its axes can be dragged; a pixel picked in
    the output shows which four input pixels it reads, and their weights.

    Show it by ending a cell with it. `theta` follows the sliders, and moves them when it is set, to
    a list, an array or a tensor of shape (2, 3) or (1, 2, 3). To link a slider of ipywidgets::

        explorer = ThetaExplorer("F")
        angle = FloatSlider(min=-180, max=180, description="degrees")
        angle.observe(lambda change: setattr(explorer, "theta", rotation(change.new)), "value")
        display(angle, explorer)

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`; a picture file's path; an array of
            shape (H, W), (H, W, 3) or (3, H, W), or a tensor of shape (1, C, H, W), floating in
            [0, 1], uint8 or bool. A longest side above 256 pixels is shrunk to 256.
        theta: 2×3 numbers; the identity when left out.
        pixel: (column, row) of the output pixel that is picked at first; one to the upper right
            of the middle when left out.
        show: what is open at first: `"grid"`, the matrix; `"point"`, also where the picked output
            pixel reads; `"weights"`, the four neighbours and their weights first.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: theta is not 2×3 finite numbers, pixel lies outside the picture, or
            show is none of the three.
    """

    _kind = "theta"
    _esm = bundle("theta")

    theta = _Theta().tag(sync=True)
    """θ as a list of two lists of three floats."""
    pixel = traitlets.Any(None, allow_none=True).tag(sync=True)
    """The picked output pixel as [column, row]; None until one was picked."""
    show = traitlets.Enum(SHOWS, "grid").tag(sync=True)

    def __init__(
        self,
        picture: Picture = "temple",
        theta: Any = ((1, 0, 0), (0, 1, 0)),
        *,
        pixel: Sequence[int] | None = None,
        show: str = "grid",
        **kwargs: Any,
    ) -> None:
        super().__init__(picture, theta=theta, show=show, **kwargs)
        self.pixel = pixel  # checked against the picture, which is known by now

    @traitlets.validate("pixel")
    def _validate_pixel(self, proposal: dict[str, Any]) -> list[int] | None:
        pixel = proposal["value"]
        if pixel is None:
            return None
        width, height = self.image.size
        whole = isinstance(pixel, Sequence) and all(isinstance(one, int) for one in pixel)
        if not (whole and len(pixel) == 2 and 0 <= pixel[0] < width and 0 <= pixel[1] < height):
            raise traitlets.TraitError(
                f"pixel must be (column, row) within {width} columns and {height} rows, "
                f"but {pixel!r} was given"
            )
        return list(pixel)

    @traitlets.observe("_picture", "_pictures")
    def _keep_pixel_inside(self, change: dict[str, Any]) -> None:
        if self.pixel and any(p >= n for p, n in zip(self.pixel, self.image.size, strict=True)):
            self.pixel = None

    def describe(self) -> str:
        """Say in words what θ does to the picture."""
        return describe(_six(self.theta), self.image.size[::-1])

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        rows = ", ".join("[" + ", ".join(f"{v:g}" for v in row) + "]" for row in _six(self.theta))
        pixel = "" if self.pixel is None else f", pixel={tuple(self.pixel)}"
        return (
            f"ThetaExplorer(picture={self._picture!r}, theta=[{rows}]{pixel}, show={self.show!r})"
        )

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"theta": _six(self.theta), "show": self.show}
        return {**state, "pixel": self.pixel, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        text = (
            f"Left, the input, a {self._label()}, with the sampling grid over it; right, the "
            f"output. {self.describe()}"
        )
        return _still(self.image, _six(self.theta)), text


# --- A point between few pixels ---


def _array(value: Any) -> np.ndarray | None:
    """What was given as numbers, in float64; None when it is something else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _grid(rows: Callable[[int, int], float]) -> list[list[float]]:
    return [[float(rows(row, column)) for column in range(5)] for row in range(5)]


# `static/bilinear.js` has the same under the same names.
PATTERNS: dict[str, list[list[float]]] = {
    "ramp": _grid(lambda row, column: 5 * row + column),
    "edge": _grid(lambda row, column: column > 2),
    "pixel": _grid(lambda row, column: row == column == 2),
    "constant": _grid(lambda row, column: 1),
}
"""Pictures of 5×5 values: what chapters 5 and 6 look at."""


class _Values(traitlets.TraitType):
    """A trait that holds a small picture's values as lists, whatever it was given as."""

    default_value = PATTERNS["ramp"]

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        if isinstance(value, str):
            if value not in PATTERNS:
                raise traitlets.TraitError(
                    f"picture must be one of {', '.join(PATTERNS)}, or rows of numbers, "
                    f"but {value!r} was given"
                )
            return PATTERNS[value]
        array = _array(value)
        if array is not None and array.ndim == 4 and array.shape[:2] == (1, 1):
            array = array[0, 0]
        if array is None or array.ndim != 2 or not all(1 <= side <= 9 for side in array.shape):
            given = repr(value) if array is None else f"shape {array.shape}"
            raise traitlets.TraitError(
                "picture must be 1 to 9 rows of 1 to 9 numbers, or a tensor of shape (1, 1, H, W), "
                f"but {given} was given"
            )
        if not np.isfinite(array).all():
            raise traitlets.TraitError(f"picture must be finite, but {array.tolist()} was given")
        return (array + 0.0).tolist()


class BilinearExplorer(_Explorable):
    """A point among few pixels: which it reads, with what weights, its value and its two slopes.

    The point is dragged, stepped with the arrow keys, or given as numbers. Bilinear sampling shows
    its four weights as the four areas into which the point cuts the square between the pixels'
    centres. The slopes are the derivatives of the value by the position, as autograd gives them:
    cells are half open, so that at a whole position the slope is the one to the right and
    downwards. Outside the picture all is zero.

    Show it by ending a cell with it; `picture`, `point` and `mode` follow the reader and can be
    set.

    Args:
        picture: `"ramp"`, `"edge"`, `"pixel"` or `"constant"`, 5×5; or 1 to 9 rows of 1 to 9
            numbers, as lists, an array of shape (H, W) or a tensor of shape (1, 1, H, W).
        point: (x, y) in the picture's pixel coordinates: column and row, whole numbers at the
            pixels' centres, at most one pixel outside.
        mode: `"nearest"`, `"bilinear"` or `"bicubic"`.

    Raises:
        traitlets.TraitError: one of the three is something else.
    """

    _kind = "bilinear"
    _esm = bundle("bilinear")

    picture = _Values().tag(sync=True)
    """The values as a list of rows."""
    point = traitlets.Any((1.6, 2.4)).tag(sync=True)
    """The point as [x, y], in pixels."""
    mode = traitlets.Enum(MODES, "bilinear").tag(sync=True)

    def __init__(
        self, picture: Any = "ramp", point: Sequence[float] = (1.6, 2.4), mode: str = "bilinear"
    ) -> None:
        super().__init__(picture=picture, mode=mode)
        self.point = point  # checked against the picture, which is known by now

    @traitlets.validate("point")
    def _validate_point(self, proposal: dict[str, Any]) -> list[float]:
        point = _array(proposal["value"])
        height, width = len(self.picture), len(self.picture[0])
        if (
            point is None
            or point.shape != (2,)
            or not (-1 <= point[0] <= width and -1 <= point[1] <= height)
        ):
            raise traitlets.TraitError(
                f"point must be (x, y) with x from −1 to {width} and y from −1 to {height}, "
                f"but {proposal['value']!r} was given"
            )
        return (point + 0.0).tolist()

    @traitlets.observe("picture")
    def _keep_point_inside(self, change: dict[str, Any]) -> None:
        height, width = len(self.picture), len(self.picture[0])
        x, y = self.point
        if x > width or y > height:
            self.point = [min(x, width), min(y, height)]

    def _read(self) -> tuple[float, float, float]:
        """The value and the two slopes, in pixels."""
        U = torch.tensor([[self.picture]], dtype=torch.float64)
        sides = torch.tensor([U.shape[3], U.shape[2]])
        point = torch.tensor(self.point, dtype=torch.float64)
        grid = ((2 * point + 1) / sides - 1).view(1, 1, 1, 2).requires_grad_()
        V = sample(U, grid, self.mode)
        V.sum().backward()
        slopes = grid.grad.ravel() * 2 / sides
        return V.item(), slopes[0].item(), slopes[1].item()

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        named = next((name for name, one in PATTERNS.items() if one == self.picture), None)
        size = f"{len(self.picture)}×{len(self.picture[0])}"
        point = ", ".join(f"{value:g}" for value in self.point)
        return (
            f"BilinearExplorer(picture={repr(named) if named else size}, point=({point}), "
            f"mode={self.mode!r})"
        )

    def _state(self) -> dict[str, Any]:
        return {"picture": self.picture, "point": self.point, "mode": self.mode}

    def _fallback(self) -> tuple[Image.Image, str]:
        value, _, _ = self._read()
        x, y = (f"{one:g}" for one in self.point)
        text = (
            f"A picture of {len(self.picture)}×{len(self.picture[0])} pixels, enlarged, and a "
            f"point at column {x}, row {y}. {self.mode.capitalize()} sampling gives "
            f"{value:.2f} there."
        )
        return _still_point(self.picture, self.point, self.mode), text


def _still_point(
    rows: list[list[float]], point: Sequence[float], mode: str, unit: int = 150
) -> Image.Image:
    """Draw the pixels with their values, the areas of the weights and the point."""
    values = np.array(rows)
    low, high = min(values.min(), 0), max(values.max(), 0)
    height, width = values.shape
    canvas = Image.new("RGB", (int((width + 1) * unit), int((height + 1) * unit)), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(unit * 0.26)

    def at(column: float, row: float) -> tuple[float, float]:
        return (column + 1) * unit, (row + 1) * unit

    def box(column: float, row: float) -> list[float]:
        return [*at(column - 0.5, row - 0.5), *at(column + 0.5, row + 0.5)]

    for (row, column), value in np.ndenumerate(values):
        grey = round(255 * (value - low) / ((high - low) or 1))
        draw.rectangle(box(column, row), fill=(grey, grey, grey), outline="#888888", width=3)
    draw.rectangle([*at(-0.5, -0.5), *at(width - 0.5, height - 0.5)], outline=INPUT, width=9)
    left, top = math.floor(point[0]), math.floor(point[1])
    if mode == "bilinear":
        for k, colour in enumerate(("#56B4E9", "#0072B2", "#F0E442", "#CC79A7")):
            c, r = k % 2, k // 2
            xs = (left, point[0], left + 1)[1 - c : 3 - c]
            ys = (top, point[1], top + 1)[1 - r : 3 - r]
            corners = [*at(xs[0], ys[0]), *at(xs[1], ys[1])]
            draw.rectangle(corners, fill=colour, outline="white", width=4)
            x, y = at(left + c, top + r)
            spot = unit * 0.27
            draw.ellipse([x - spot, y - spot, x + spot, y + spot], fill=colour, outline="white")
    for (row, column), value in np.ndenumerate(values):
        dark = (value - low) / ((high - low) or 1) > 0.55
        near = mode == "bilinear" and 0 <= column - left <= 1 and 0 <= row - top <= 1
        fill, rim = ("black", "white") if dark or near else ("white", "black")
        draw.text(
            at(column, row), f"{value:.3g}", fill, font, "mm", stroke_width=4 * near,
            stroke_fill=rim,
        )  # fmt: skip
    x, y = at(*point)
    draw.ellipse([x - 20, y - 20, x + 20, y + 20], fill="white")
    draw.ellipse([x - 13, y - 13, x + 13, y + 13], fill=INPUT)
    side = 380 / max(canvas.size)
    return canvas.resize(
        (round(canvas.width * side), round(canvas.height * side)), Image.Resampling.LANCZOS
    )


# --- A row of bits and a max-pool ---


class PoolingExplorer(_Explorable):
    """A row of bits, the same row moved, and what a max-pool over two entries makes of both.

    Each entry can be turned over by a press. With a blur it is Zhang's blur-pool: the larger of
    each two, a binomial blur, every second entry. The ends meet (circular padding), so that a shift
    loses nothing. Outputs that differ are marked; an output counts as moved by the whole part of
    shift / stride.

    Show it by ending a cell with it; its traits follow the reader and can be set.

    Args:
        bits: 4 to 16 zeros and ones, an even number of them.
        shift: how many places the second row is moved to the right; to the left when negative.
        stride: 1 or 2: whether every output is kept or every second.
        blur: 0 for none, 3 or 5 taps.

    Raises:
        traitlets.TraitError: one of the four is something else.
    """

    _kind = "pooling"
    _esm = bundle("pooling")

    bits = traitlets.Unicode("00110011").tag(sync=True)
    """The signal, as text."""
    shift = traitlets.Int(-1).tag(sync=True)
    """Places to the right."""
    stride = traitlets.Enum((1, 2), 2).tag(sync=True)
    """1 or 2."""
    blur = traitlets.Enum((0, 3, 5), 0).tag(sync=True)
    """How many taps; 0 for none."""

    def __init__(
        self, bits: str = "00110011", shift: int = -1, *, stride: int = 2, blur: int = 0
    ) -> None:
        super().__init__(bits=bits, shift=shift, stride=stride, blur=blur)

    @traitlets.validate("bits")
    def _validate_bits(self, proposal: dict[str, Any]) -> str:
        bits = proposal["value"]
        if set(bits) - {"0", "1"} or not 4 <= len(bits) <= 16 or len(bits) % 2:
            raise traitlets.TraitError(
                f"bits must be 4 to 16 zeros and ones, an even number, but {bits!r} was given"
            )
        return bits

    def _rows(self) -> list[tuple[str, list[float]]]:
        """The signal and the moved signal, and what becomes of each."""
        signal = np.array([float(bit) for bit in self.bits])
        rows = []
        taps = {0: [1.0], 3: [0.25, 0.5, 0.25], 5: [0.0625, 0.25, 0.375, 0.25, 0.0625]}[self.blur]
        for name, one in (("signal", signal), ("moved", np.roll(signal, self.shift))):
            pooled = np.maximum(one, np.roll(one, -1))
            middle = len(taps) // 2
            blurred = sum(w * np.roll(pooled, middle - k) for k, w in enumerate(taps))
            rows += [(name, one.tolist()), ("output", blurred[:: self.stride].tolist())]
        return rows

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        return (
            f"PoolingExplorer(bits={self.bits!r}, shift={self.shift}, stride={self.stride}, "
            f"blur={self.blur})"
        )

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("bits", "shift", "stride", "blur")}

    def _fallback(self) -> tuple[Image.Image, str]:
        rows = self._rows()

        def written(values: list[float]) -> str:
            return ("" if all(v in (0, 1) for v in values) else " ").join(f"{v:g}" for v in values)

        (_, signal), (_, output), (_, moved), (_, other) = rows
        text = (
            f"The signal {written(signal)} becomes {written(output)} under a max-pool of stride "
            f"{self.stride}{f' with a blur of {self.blur} taps' if self.blur else ''}; moved by "
            f"{self.shift}, as {written(moved)}, it becomes {written(other)}."
        )
        return _still_rows(rows, self.stride), text


def _still_rows(rows: list[tuple[str, list[float]]], stride: int) -> Image.Image:
    """Draw the rows as squares with numbers, one above the other."""
    unit, side = 132, 260
    width = side + unit * len(rows[0][1])
    canvas = Image.new("RGB", (width, unit * 4 + 60), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(44)
    for number, (name, values) in enumerate(rows):
        top = number * unit + (40 if number > 1 else 0)
        span = stride if name == "output" else 1
        colour = OUTPUT if name == "output" else INPUT
        draw.text((10, top + unit / 2), name, "black", font, "lm")
        for k, value in enumerate(values):
            left = side + k * span * unit
            grey = round(255 * value)
            box = [left + 4, top + 4, left + span * unit - 8, top + unit - 8]
            draw.rectangle(box, fill=(grey, grey, grey), outline=colour, width=8)
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            draw.text(middle, f"{value:g}", "black" if value > 0.45 else "white", font, "mm")
    scale = min(0.4, 560 / width)
    size = (round(width * scale), round(canvas.height * scale))
    return canvas.resize(size, Image.Resampling.LANCZOS)


# --- Forward and inverse mapping ---


class MappingExplorer(_Pictured):
    """One change of a small picture, made forwards and backwards.

    Forwards, each input pixel is sent to the output pixel nearest to where it moves, as
    `sampling.splat` does: what it leaves empty is a hole, vermilion, and where several landed is a
    collision, a dot. Backwards, each output pixel reads the input. Turn and size have a slider
    each; below are the six numbers θ.

    Show it by ending a cell with it; `theta` and `mode` follow the reader and can be set, θ to a
    list, an array or a tensor of shape (2, 3) or (1, 2, 3).

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`, 32×32; a picture file's path; an array
            or a tensor, as `ThetaExplorer` takes them. A longest side above 48 pixels is shrunk.
        theta: 2×3 numbers, output to input, normalised; a turn of 30° when left out.
        mode: how the inverse mapping reads: `"nearest"` or `"bilinear"`.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: theta is not 2×3 finite numbers, or mode neither of the two.
    """

    _kind = "mapping"
    _esm = bundle("mapping")
    _side = 32
    _largest = 48

    theta = _Theta().tag(sync=True)
    """θ as a list of two lists of three floats."""
    mode = traitlets.Enum(("nearest", "bilinear"), "nearest").tag(sync=True)

    def __init__(
        self, picture: Picture = "temple", theta: Any = None, *, mode: str = "nearest"
    ) -> None:
        if theta is None:
            theta = rotation(30, dtype=torch.float64)
        super().__init__(picture, theta=theta, mode=mode)

    def splat(self) -> Splat | None:
        """What forward mapping gives, in float64, values to 255; None when θ has no inverse."""
        array = np.asarray(self.image.convert("RGB")).copy()
        U = torch.from_numpy(array).permute(2, 0, 1)[None].double()
        try:
            return splat(U, torch.tensor([self.theta], dtype=torch.float64))
        except ValueError:
            return None

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        rows = ", ".join("[" + ", ".join(f"{v:g}" for v in row) + "]" for row in _six(self.theta))
        return f"MappingExplorer(picture={self._picture!r}, theta=[{rows}], mode={self.mode!r})"

    def _state(self) -> dict[str, Any]:
        # All of θ's digits: a pixel half-way between two must fall to the same side as here.
        return {"theta": self.theta, "mode": self.mode, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        done = self.splat()
        words = describe(_six(self.theta), self.image.size[::-1])
        if done is None:
            found = "θ has no inverse, and forward mapping no answer"
        else:
            found = (
                f"{int(done.holes.sum())} holes and {int(done.collisions.sum())} collisions "
                f"among {done.hits.numel()} pixels"
            )
        text = (
            f"A {self._label()}, small. {words} Left, by forward mapping: {found}. Right, by "
            "inverse mapping: every pixel has a value."
        )
        U = torch.from_numpy(np.asarray(self.image.convert("RGB")).copy())
        theta = torch.tensor([self.theta], dtype=torch.float64)
        U = U.permute(2, 0, 1)[None].double()
        V = sample(U, affine_grid(theta, U.shape[2:]), self.mode)
        panels = [V]
        if done is not None:
            red = torch.tensor([0xD5, 0x5E, 0x00], dtype=torch.float64).view(1, 3, 1, 1)
            panels = [torch.where(done.holes[:, None], red, done.V), V]
        return _still_panels(panels, [OUTPUT] * len(panels)), text


def _still_panels(panels: Sequence[torch.Tensor], colours: Sequence[str]) -> Image.Image:
    """Draw small pictures, values to 255, side by side, their pixels as squares."""
    images = []
    for panel in panels:
        array = panel[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
        image = Image.fromarray(array)
        scale = max(1, 192 // max(image.size))
        images.append(
            image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        )
    width = sum(image.width for image in images) + 24 * len(images)
    canvas = Image.new("RGB", (width, max(image.height for image in images) + 24), "white")
    draw = ImageDraw.Draw(canvas)
    left = 12
    for image, colour in zip(images, colours, strict=True):
        canvas.paste(image, (left, 12))
        draw.rectangle(
            [left - 4, 8, left + image.width + 3, image.height + 15], outline=colour, width=4
        )
        left += image.width + 24
    return canvas


# --- Registration by descent ---


class _Pose(_Theta):
    """A trait that holds a θ that shifts and turns, and does nothing else."""

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        rows = _rows(value)
        (a, b, _), (c, d, _) = rows
        if not np.allclose([a, b, a * a + c * c], [d, -c, 1], rtol=0, atol=1e-4):
            raise traitlets.TraitError(
                f"theta must be a turn and a shift, [[cos, −sin, tx], [sin, cos, ty]], "
                f"but {rows} was given"
            )
        return rows


class DescentExplorer(_Pictured):
    """A picture finds its place by gradient descent on θ.

    The target is the picture itself. θ moves the picture off its place; each step goes down the
    slope of the mean squared difference of output and target, θ ← θ − η ∂L/∂θ, by θ's last column
    and, with `turn`, by the angle (in radians). The map shows the loss at each place of the
    picture, and the way that descent takes over it. Blur, of both pictures, widens the valley.

    Show it by ending a cell with it. `theta`, `blur`, `turn` and `rate` follow the reader and can
    be set; a new `theta` is a new start. `steps` and `loss` follow the descent.

    Args:
        picture: `"F"`, `"temple"`, `"flower"` or `"digit"`, 48×48 and grey; a picture file's path;
            an array or a tensor, as `ThetaExplorer` takes them, as wide as high. A side above 64
            pixels is shrunk.
        theta: where it starts: 2×3 numbers, a shift and a turn; moved right by 0.5 and down by 0.3
            when left out.
        blur: 0, 2 or 4: the standard deviation of a Gaussian, in pixels.
        turn: descend in the angle too.
        rate: η, the step size: 0.03, 0.1 or 0.3.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, a wrong shape, or values out of range.
        traitlets.TraitError: one of the others is something else.
    """

    _kind = "descent"
    _esm = bundle("descent")
    _side = 48
    _largest = 64

    theta = _Pose().tag(sync=True)
    """θ as a list of two lists of three floats."""
    blur = traitlets.Enum((0, 2, 4), 0).tag(sync=True)
    turn = traitlets.Bool(False).tag(sync=True)
    rate = traitlets.Enum((0.03, 0.1, 0.3), 0.1).tag(sync=True)
    steps = traitlets.Int(0).tag(sync=True)
    """How many steps have been taken since the start."""
    loss = traitlets.Float(None, allow_none=True).tag(sync=True)
    """The loss at `theta`; None until the picture has moved."""

    def __init__(
        self,
        picture: Picture = "F",
        theta: Any = ((1, 0, -0.5), (0, 1, -0.3)),
        *,
        blur: int = 0,
        turn: bool = False,
        rate: float = 0.1,
    ) -> None:
        super().__init__(picture, theta=theta, blur=blur, turn=turn, rate=rate)

    def _take(self, picture: Picture) -> tuple[str, dict[str, dict[str, str]]]:
        if not (isinstance(picture, str) and picture in self._choice):
            width, height = _to_image(picture, self._largest).size
            if width != height:
                raise ValueError(f"picture must be as wide as high, but {height}×{width} was given")
        return super()._take(picture)

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        rows = ", ".join("[" + ", ".join(f"{v:g}" for v in row) + "]" for row in _six(self.theta))
        return (
            f"DescentExplorer(picture={self._picture!r}, theta=[{rows}], blur={self.blur}, "
            f"turn={self.turn}, rate={self.rate:g})"
        )

    def _state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("blur", "turn", "rate")}
        return {"theta": self.theta, **state, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        U = torch.from_numpy(np.asarray(self.image.convert("L")).copy())[None, None].double()
        theta = torch.tensor([self.theta], dtype=torch.float64)
        V = sample(U, affine_grid(theta, U.shape[2:]))
        both = torch.minimum(U, V)
        orange = torch.tensor([0.9, 0.62, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
        blue = torch.tensor([0.2, 0.55, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
        overlay = both + (V - both) * orange + (U - both) * blue
        words = describe(_six(self.theta), self.image.size[::-1])
        text = (
            f"Left, a {self._label()}, the target. Right, the moved picture, orange, over the "
            f"target, blue; white where they agree. {words} Gradient descent on θ brings it back."
        )
        return _still_panels([U.expand(-1, 3, -1, -1), overlay], [INPUT, OUTPUT]), text


# --- Points to drag: a projective map, and what is beyond it ---


class _Points(traitlets.TraitType):
    """A trait that holds k² points as lists, whatever they were given as."""

    def __init__(self, least: int, most: int, default: int) -> None:
        self._sides = range(least, most + 1)
        super().__init__(control_points(default, dtype=torch.float64).tolist())

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        array = _array(value)
        if array is not None and array.ndim == 3 and array.shape[0] == 1:
            array = array[0]
        counts = [side * side for side in self._sides]
        if array is None or array.ndim != 2 or len(array) not in counts or array.shape[1] != 2:
            few = len(counts) == 1
            wanted = counts[0] if few else f"k² (k from {self._sides[0]} to {self._sides[-1]})"
            given = f"shape {array.shape}" if array is not None and array.ndim else repr(value)
            raise traitlets.TraitError(
                f"{self.name} must be {wanted} points (x, y), or a tensor of shape "
                f"(1, {counts[0] if few else 'k²'}, 2), but {given} was given"
            )
        if not (np.abs(array) <= 10).all():
            raise traitlets.TraitError(
                f"{self.name} must lie between −10 and 10, but {array.tolist()} was given"
            )
        return (array + 0.0).tolist()


def _percent(share: float) -> str:
    text = str(Decimal(100 * share).quantize(Decimal(1), ROUND_HALF_UP))
    return "less than 1 %" if text == "0" else f"{text} %"


def _signed(value: float) -> str:
    text = _fixed(value)
    return f"−{text}" if value < 0 and text != "0" else text


def _shorten(points: list[list[float]]) -> str:
    return ", ".join("[" + ", ".join(f"{v:g}" for v in point) + "]" for point in _six(points))


def _hatched(output: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Mark a part of an 8-bit RGB picture by strokes."""
    row, column = np.indices(wrong.shape)
    output = output.copy()
    colour = np.array([int(ERROR[k : k + 2], 16) for k in (1, 3, 5)], dtype=np.uint8)
    output[wrong & ((row + column) % 6 < 2)] = colour
    return output


class CornersExplorer(_Pictured):
    """Four corners to drag, and the projective map that takes the output's corners there.

    Below the pictures is θ, 3×3, output to input, as `grids.projective_grid` takes it. Where the
    four corners do not make a convex quadrilateral, the horizon, on which θ's denominator is 0,
    crosses the output: the part beyond it is hatched in vermilion.

    Show it by ending a cell with it; `corners` follows the reader and can be set.

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`; a picture file's path; an array or a
            tensor, as `ThetaExplorer` takes them.
        corners: where the output's corners read in the input, in the order of
            `grids.control_points(2)`: upper left, upper right, lower left, lower right; 4 points
            (x, y), normalised, as lists, an array or a tensor of shape (4, 2) or (1, 4, 2). The
            input's own corners when left out.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: corners are not 4 points between −10 and 10.
    """

    _kind = "corners"
    _esm = bundle("corners")

    corners = _Points(2, 2, 2).tag(sync=True)
    """The corners as a list of four lists of two floats."""

    def __init__(self, picture: Picture = "temple", corners: Any = None) -> None:
        if corners is None:
            corners = control_points(2, dtype=torch.float64)
        super().__init__(picture, corners=corners)

    def _weights(self) -> list[float]:
        """θ's denominator at each corner, but for a common factor: see `static/maths.js`."""
        a, b, c, d = self.corners

        def cross(p: list[float], q: list[float], r: list[float]) -> float:
            return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

        return [cross(b, d, c), cross(a, d, c), cross(a, b, d), cross(a, b, c)]

    @property
    def theta(self) -> list[list[float]] | None:
        """θ as a list of three lists of three floats; None when all corners lie in line.

        Its last entry is 1 where it can be; otherwise the denominator that is largest in size, of
        those at the corners, is 1.
        """
        weights = np.array(self._weights())
        peak = weights[np.abs(weights).argmax()]
        if not abs(peak) > 1e-9:
            return None
        places = np.concatenate([self.corners, np.ones((4, 1))], axis=1) * weights[:, None]
        # Each row is an affine function, known at the square's corners.
        square = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]]) / 4
        theta = (square @ places).T
        scale = theta[2, 2] if abs(theta[2, 2]) > 1e-9 * abs(peak) else peak
        return (theta / scale + 0.0).tolist()

    def describe(self) -> str:
        """Say in words what the map is, and how much of the output is beyond its horizon."""
        flat = sum(abs(weight) < 1e-9 for weight in self._weights())
        if flat == 1:
            return (
                "Three corners lie in line. Every output pixel reads from one line of the input, "
                "and θ has no inverse."
            )
        if flat == 2:
            return (
                "Two corners lie on one another. Every output pixel reads one and the same point "
                "of the input, and θ has no inverse."
            )
        if flat:
            return (
                "All four corners lie in line. Every output pixel reads nothing: no projective map "
                "goes there."
            )
        theta = self.theta
        g, h, i = theta[2]
        ends = [g * x + h * y + i for y in (-1, 1) for x in (-1, 1)]
        affine = _fixed(g) == _fixed(h) == "0"
        if affine:
            words = describe(_six(theta[:2]), self.image.size[::-1])
        else:
            words = (
                f"The picture is seen in perspective: the denominator runs from "
                f"{_signed(min(ends))} to {_signed(max(ends))}."
            )
        beyond = self._beyond()
        if beyond > 0:
            return (
                f"{words} {_percent(beyond)} of the output is beyond the horizon: the denominator "
                "is negative there, and the picture the other way round."
            )
        if affine:
            return f"{words} The corners form a parallelogram: this map is affine."
        return f"{words} The denominator is positive everywhere: the map is one to one."

    def _beyond(self) -> float:
        """The share of the output where the denominator is negative."""
        g, h, i = self.theta[2]
        polygon = []
        for a, b in zip(_RIM, _RIM[1:] + _RIM[:1], strict=True):
            wa, wb = (g * x + h * y + i for x, y in (a, b))
            polygon += [a] * (wa < 0)
            if (wa < 0) != (wb < 0):
                part = wa / (wa - wb)
                polygon.append([p + part * (q - p) for p, q in zip(a, b, strict=True)])
        ends = zip(polygon, polygon[1:] + polygon[:1], strict=True)
        return abs(sum((p[0] * q[1] - p[1] * q[0]) / 8 for p, q in ends))

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        return f"CornersExplorer(picture={self._picture!r}, corners=[{_shorten(self.corners)}])"

    def _state(self) -> dict[str, Any]:
        return {"corners": self.corners, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        text = (
            f"Left, the input, a {self._label()}, with the grid of a projective map over it; "
            f"right, the output. {self.describe()}"
        )
        image = self.image
        size = image.height, image.width
        theta = self.theta
        marks = np.array(_six(self.corners))
        if theta is None:
            output = np.zeros((*size, 3), dtype=np.uint8)
            return _still_grid(image, output, marks, [], marks), text
        matrix = torch.tensor([theta], dtype=torch.float64).round(decimals=9)
        output = _output(image, projective_grid(matrix, size))
        own = regular_grid(size, dtype=torch.float64)
        w = own @ matrix[0, 2, :2] + matrix[0, 2, 2]
        steps = np.linspace(-1, 1, 9)
        lines = [np.array([[k, -1.0], [k, 1.0]]) for k in steps[1:-1]]
        lines += [line[:, ::-1] for line in lines]
        rim = [np.array([_RIM[k], _RIM[(k + 1) % 4]]) for k in range(4)]
        strokes = [
            (piece, ERROR if beyond else colour, weight)
            for colour, weight, segments in ((GRID, 4, lines), (OUTPUT, 7, rim))
            for segment in segments
            for piece, beyond in _project_line(matrix[0].numpy(), segment)
        ]
        return _still_grid(image, _hatched(output, (w < 0).numpy()), marks, strokes, marks), text


def _project_line(theta: np.ndarray, ends: np.ndarray) -> list[tuple[np.ndarray, bool]]:
    """A line of the output as the input sees it, in two where it meets the horizon."""

    def at(part: float) -> np.ndarray:
        x, y, w = theta @ [*(ends[0] + part * (ends[1] - ends[0])), 1]
        w = math.copysign(max(abs(w), HORIZON), w)
        return np.array([x, y]) / w

    first, last = (float(theta[2] @ [*end, 1]) for end in ends)
    if (first < 0) == (last < 0):
        return [(np.stack([at(0), at(1)]), first < 0)]
    part = first / (first - last)
    return [
        (np.stack([at(0), at(0.999 * part)]), first < 0),
        (np.stack([at(1 - 0.999 * (1 - part)), at(1)]), last < 0),
    ]


NODES = 49
"""Nodes a side of the lattice on which a spline is drawn, and its folds are counted."""


class SplineExplorer(_Pictured):
    """k×k control points to drag, and the thin-plate spline or the mesh of triangles through them.

    θ is where each control point of the output reads in the input, as
    `grids.thin_plate_spline_grid` and `grids.piecewise_affine_grid` take it. Where the map folds
    over, and is no longer one to one, input and output are marked in vermilion.

    Show it by ending a cell with it; `theta` and `transform` follow the reader and can be set.

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`; a picture file's path; an array or a
            tensor, as `ThetaExplorer` takes them.
        theta: k² points (x, y), normalised, row by row as `grids.control_points(k)`; lists, an
            array or a tensor of shape (k², 2) or (1, k², 2), k from 2 to 7. 4×4 points that have
            not moved when left out.
        transform: `"spline"` or `"mesh"`.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: theta is not k² points between −10 and 10, or transform neither of
            the two.
    """

    _kind = "spline"
    _esm = bundle("spline")

    theta = _Points(2, 7, 4).tag(sync=True)
    """θ as a list of k² lists of two floats."""
    transform = traitlets.Enum(("spline", "mesh"), "spline").tag(sync=True)

    def __init__(
        self, picture: Picture = "flower", theta: Any = None, *, transform: str = "spline"
    ) -> None:
        if theta is None:
            theta = control_points(4, dtype=torch.float64)
        super().__init__(picture, theta=theta, transform=transform)

    @property
    def k(self) -> int:
        """How many points a side."""
        return math.isqrt(len(self.theta))

    def _moved(self, places: np.ndarray) -> np.ndarray:
        """Where these positions, (n, 2), read: the package's grids, for any positions."""
        homes = control_points(self.k, dtype=torch.float64).numpy()
        way = places[:, None] - homes
        if self.transform == "mesh":
            dx, dy = np.moveaxis(way * (self.k - 1) / 2, -1, 0)
            weights = (1 - np.maximum(np.maximum(abs(dx), abs(dy)), abs(dx - dy))).clip(min=0)
        else:
            squares = (way**2).sum(-1)
            bends = 0.5 * squares * np.log(np.where(squares > 0, squares, 1))
            flat = np.concatenate([np.ones((len(places), 1)), places], axis=1)
            weights = np.concatenate([bends, flat], axis=1) @ _spline_system(self.k)
        return places + weights @ (np.array(self.theta) - homes)

    def _folds(self) -> tuple[np.ndarray, bool]:
        """Which cells are folded over, and whether the map is mirrored elsewhere.

        A mesh's cells are its triangles, two to a square; a spline's the squares of a lattice.
        """
        mesh = self.transform == "mesh"
        side = self.k if mesh else NODES
        homes = control_points(side, dtype=torch.float64).numpy()
        places = np.array(self.theta) if mesh else self._moved(homes)
        row, column = np.divmod(np.arange((side - 1) ** 2), side - 1)
        first = row * side + column
        cells = np.stack([first, first + 1, first + side + 1, first + side], axis=1)
        if mesh:
            # A triangle's fourth corner is its first: one formula for both.
            cells = cells[:, [[0, 1, 2, 0], [0, 2, 3, 0]]].reshape(-1, 4)

        def area(points: np.ndarray) -> np.ndarray:
            a, b, c, d = np.moveaxis(points[cells], 1, 0)
            return (c - a)[:, 0] * (d - b)[:, 1] - (c - a)[:, 1] * (d - b)[:, 0]

        relative = area(places) / area(homes)
        mirrored = bool((relative < -1e-6).sum() > (relative > 1e-6).sum())
        return ~((-relative if mirrored else relative) > 1e-6), mirrored

    def describe(self) -> str:
        """Say in words how many points are moved, and how much of the output is folded over."""
        homes = control_points(self.k, dtype=torch.float64).tolist()
        ways = [math.dist(*pair) for pair in zip(self.theta, homes, strict=True)]
        moved = sum(_fixed(way) != "0" for way in ways)
        between = (
            "each triangle between them has an affine map of its own"
            if self.transform == "mesh"
            else "a thin-plate spline bends what is between them"
        )
        words = "The picture stays as it is."
        if moved:
            words = (
                f"{moved} of {len(ways)} points {'is' if moved == 1 else 'are'} moved, "
                f"by up to {_fixed(max(ways))}: {between}."
            )
        folded, mirrored = self._folds()
        if folded.any():
            return (
                f"{words} {_percent(folded.mean())} of the output is folded over: the determinant "
                "changes sign there, and the map is not one to one."
            )
        if mirrored:
            return (
                f"{words} Nothing is folded: the determinant is negative everywhere, and the "
                "picture is mirrored."
            )
        return f"{words} Nothing is folded: the determinant is positive everywhere."

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        still = self.theta == control_points(self.k, dtype=torch.float64).tolist()
        theta = f"{self.k}×{self.k}" if still else f"[{_shorten(self.theta)}]"
        return (
            f"SplineExplorer(picture={self._picture!r}, theta={theta}, "
            f"transform={self.transform!r})"
        )

    def _state(self) -> dict[str, Any]:
        return {"theta": self.theta, "transform": self.transform, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        called = "mesh of triangles" if self.transform == "mesh" else "thin-plate spline"
        text = (
            f"Left, the input, a {self._label()}, with the grid of a {called} through "
            f"{self.k}×{self.k} control points over it; right, the output. {self.describe()}"
        )
        image = self.image
        size = image.height, image.width
        theta = torch.tensor([self.theta], dtype=torch.float64)
        make = piecewise_affine_grid if self.transform == "mesh" else thin_plate_spline_grid
        output = _output(image, make(theta, size).round(decimals=9))
        # The cell in which each output pixel stands; of a square's two triangles the upper right
        # one comes first.
        mesh = self.transform == "mesh"
        cells = (self.k if mesh else NODES) - 1
        place = (regular_grid(size, dtype=torch.float64).numpy() + 1) / 2 * cells
        column, row = np.moveaxis(place.astype(int), -1, 0)
        cell = row * cells + column
        if mesh:
            right, down = np.moveaxis(place % 1, -1, 0)
            cell = 2 * cell + (down > right)
        folded, _ = self._folds()
        output = _hatched(output, folded[cell])
        # A mesh shows its own sides; a spline a grid as the other pictures have it.
        steps = np.linspace(-1, 1, self.k if mesh else 9)
        along = steps if mesh else np.linspace(-1, 1, NODES)
        lines = [np.stack([np.full(len(along), k), along], axis=1) for k in steps]
        lines = [self._moved(one).round(9) for line in lines for one in (line, line[:, ::-1])]
        if mesh:
            square = np.array(self.theta).reshape(self.k, self.k, 2)
            ends = zip(square[:-1, :-1].reshape(-1, 2), square[1:, 1:].reshape(-1, 2), strict=True)
            lines[2:2] = [np.stack(pair) for pair in ends]
        rim = [*lines[:2], *lines[-2:]]
        strokes = [(line, GRID, 4) for line in lines[2:-2]] + [(line, OUTPUT, 7) for line in rim]
        marks = np.array(_six(self.theta))
        return _still_grid(image, output, np.concatenate([marks, *lines]), strokes, marks), text


# --- Two trained networks ---


def _pose(value: Any) -> list[float]:
    """Turn what was given as a pose into four floats."""
    pose = _array(value)
    low, high = (-180, 0.3, -1, -1), (180, 2.5, 1, 1)
    if pose is None or pose.shape != (4,) or not ((low <= pose) & (pose <= high)).all():
        raise traitlets.TraitError(
            "pose must be (degrees, size, right, down), from −180 to 180, 0.3 to 2.5 and −1 to 1, "
            f"but {value!r} was given"
        )
    return (pose + 0.0).tolist()


def _strokes(value: Any) -> list[list[list[float]]]:
    """Turn what was given as strokes into lists of points."""
    lines = [_array(line) for line in value] if isinstance(value, Sequence) else [None]
    for line in lines:
        if line is None or line.ndim != 2 or line.shape[1] != 2 or not np.isfinite(line).all():
            raise traitlets.TraitError(
                f"strokes must be lists of points (x, y), but {value!r} was given"
            )
    return [(line + 0.0).tolist() for line in lines]


class _Checked(traitlets.TraitType):
    """A trait that holds what a function makes of what it is given."""

    def __init__(self, check: Callable[[Any], list], default: Any) -> None:
        super().__init__(check(default))
        self._check = check

    def validate(self, obj: Any, value: Any) -> list:
        return self._check(value)


class NetworkExplorer(_Explorable):
    """A digit to turn, move, scale or draw, and what two trained networks make of it.

    Both were trained on MNIST's digits, each turned by up to 90°, scaled by 0.7 to 1.5 and shifted
    in a frame of 42×42 pixels. One is a plain convolutional network; the other, of as many
    parameters, straightens the digit with a spatial transformer first. They run in the page. A
    drawing is read where it stands and as large as it stands: nothing centres or scales it first.

    Show it by ending a cell with it. `picture`, `pose`, `strokes` and `pen` follow the reader and
    can be set; `frame` and `result` are what the networks read and say at the moment.

    Args:
        picture: `"2"`, `"3"`, `"4"`, `"5"`, `"7"` or `"9"`, a test digit of MNIST, or `"drawing"`.
        pose: (degrees, size, right, down): turned counter-clockwise, so many times as large, and
            moved, in normalised units of the frame.
        strokes: of the drawing: each a list of points (x, y), normalised to the frame, as they are
            before the pose moves them.
        pen: the width of the pen in the frame's pixels, at size 1: from 1 to 6.

    Raises:
        traitlets.TraitError: one of the four is something else.
    """

    _kind = "network"
    _esm = bundle("network")

    _picture = traitlets.Enum((*_network.DIGITS, "drawing"), "3").tag(sync=True)
    _pictures = traitlets.Dict().tag(sync=True)
    _nets = traitlets.Dict().tag(sync=True)
    pose = _Checked(_pose, (0, 1, 0, 0)).tag(sync=True)
    """[degrees, size, right, down]."""
    strokes = _Checked(_strokes, ()).tag(sync=True)
    """The drawing's strokes, each a list of points [x, y]."""
    pen = traitlets.Float(3.0, min=1, max=6).tag(sync=True)
    """The pen's width in pixels."""

    def __init__(
        self,
        picture: str = "3",
        pose: Sequence[float] = (40, 1.1, -0.2, 0.15),
        *,
        strokes: Sequence[Sequence[Sequence[float]]] = (),
        pen: float = 3.0,
    ) -> None:
        super().__init__(
            _picture=picture,
            _pictures=self.page_pictures(),
            pose=pose,
            strokes=strokes,
            pen=pen,
            **self.page_state(),
        )

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """The digits to choose from: name → label and data URI."""
        return {
            name: {"label": f"Handwritten {name}", "src": _data_uri(image)}
            for name, image in _network.digits().items()
        }

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """The networks: a page carries them once, and a cell's output never."""
        return {"_nets": _network.sent()}

    @property
    def picture(self) -> str:
        """The digit that is shown, or `"drawing"`; settable."""
        return self._picture

    @picture.setter
    def picture(self, picture: str) -> None:
        self._picture = picture

    @property
    def frame(self) -> torch.Tensor:
        """What the networks read, U: shape (1, 1, 42, 42), float64 in [0, 1]."""
        degrees, size, right, down = self.pose
        posed = compose(
            scaling(size, dtype=torch.float64),
            rotation(degrees, dtype=torch.float64),
            translation(right, down, dtype=torch.float64),
        )
        side = _network.FRAME
        if self._picture == "drawing":
            return _inked(self.strokes, posed, self.pen * size / 2, side)
        image = torch.from_numpy(np.array(_network.digits()[self._picture]))[None, None] / 255
        theta = compose(scaling(image.shape[3] / side, dtype=torch.float64), posed)
        return sample(image.double(), affine_grid(theta, (side, side)))

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """What the networks make of it: `theta`, `V`, and ten probabilities, `look` and `plain`."""
        return _network.run(self.frame)

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        pose = ", ".join(f"{value:g}" for value in self.pose)
        drawn = f", strokes={len(self.strokes)}" if self._picture == "drawing" else ""
        return f"NetworkExplorer(picture={self._picture!r}, pose=({pose}){drawn}, pen={self.pen:g})"

    def _state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("_picture", "pose", "strokes", "pen")}
        return {**state, "_pictures": {}}

    def _fallback(self) -> tuple[Image.Image, str]:
        U, result = self.frame, self.result

        def said(name: str) -> str:
            share, digit = result[name][0].max(0)
            return f"{digit.item()} at {100 * share.item():.0f} %"

        text = (
            "Left, a digit in its frame, and the grid where a trained spatial transformer reads; "
            f"right, what it reads. The network with the transformer reads {said('look')}, "
            f"the one without {said('plain')}."
        )
        theta = result["theta"].double()
        panels = [255 * one.double().expand(-1, 3, -1, -1) for one in (U, result["V"])]
        still = _still_panels(panels, [INPUT, OUTPUT])
        draw = ImageDraw.Draw(still)
        unit = (192 // _network.FRAME) * _network.FRAME / 2
        corners = torch.tensor(
            [[-1.0, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], dtype=torch.float64
        )
        places = transform_points(theta, corners)[0].numpy() * unit + 12 + unit
        draw.line(places.ravel().tolist(), fill=GRID, width=4)
        draw.line(places[:2].ravel().tolist(), fill=OUTPUT, width=4)
        return still, text


def _inked(
    strokes: list[list[list[float]]], posed: torch.Tensor, radius: float, side: int
) -> torch.Tensor:
    """Draw strokes with a round pen whose edge is one pixel soft, as the front end does."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    pixel = torch.stack([x, y], dim=-1)
    ink = torch.zeros(side, side, dtype=torch.float64)
    for line in strokes:
        points = torch.tensor(line, dtype=torch.float64)
        points = ((transform_points(invert(posed), points)[0] + 1) * side - 1) / 2
        for start, end in zip([points[0], *points], points, strict=False):
            way = end - start
            along = ((pixel - start) @ way) / (way @ way or 1)
            distance = (pixel - start - along.clamp(0, 1)[..., None] * way).norm(dim=-1)
            ink = ink.maximum((radius - distance + 0.5).clamp(0, 1))
    return ink[None, None]


# --- All of them ---


EXPLORABLES: dict[str, type[_Explorable]] = {
    one._kind: one
    for one in (
        ThetaExplorer,
        PoolingExplorer,
        MappingExplorer,
        BilinearExplorer,
        DescentExplorer,
        CornersExplorer,
        SplineExplorer,
        NetworkExplorer,
    )
}
"""By the name that a page calls them: what the book's directive takes."""
