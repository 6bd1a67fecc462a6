"""A point between few pixels (chapters 5 and 6)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw, ImageFont

from stn_tutorial.explorables.base import Explorable, as_array
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.sampling import MODES, sample
from stn_tutorial.viz import INPUT


def _grid(rows: Callable[[int, int], float]) -> list[list[float]]:
    return [[float(rows(row, column)) for column in range(5)] for row in range(5)]


# `bilinear.js` has the same under the same names.
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
        array = as_array(value)
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


class BilinearExplorer(Explorable):
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

    kind = "bilinear"
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
        point = as_array(proposal["value"])
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
        (gradient,) = torch.autograd.grad(V.sum(), grid)
        slopes = gradient.ravel() * 2 / sides
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
