"""A projective map, moved by its corners, and what is beyond it (chapter 9)."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from stn_tutorial.explorables.base import Pictured, PointsTrait, shorten, six_digits
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import Picture
from stn_tutorial.explorables.stills import RIM, hatched, read_by, still_grid
from stn_tutorial.explorables.words import describe, fixed, percent, signed
from stn_tutorial.grids import HORIZON, control_points, projective_grid, regular_grid
from stn_tutorial.viz import ERROR, GRID, OUTPUT


class CornersExplorer(Pictured):
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

    kind = "corners"
    _esm = bundle("corners")

    corners = PointsTrait(2, 2, 2).tag(sync=True)
    """The corners as a list of four lists of two floats."""

    def __init__(self, picture: Picture = "temple", corners: Any = None) -> None:
        if corners is None:
            corners = control_points(2, dtype=torch.float64)
        super().__init__(picture, corners=corners)

    def _weights(self) -> list[float]:
        """θ's denominator at each corner, but for a common factor: see `warps.js`."""
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
        assert theta is not None  # it is None when all corners lie in line alone
        g, h, i = theta[2]
        ends = [g * x + h * y + i for y in (-1, 1) for x in (-1, 1)]
        affine = fixed(g) == fixed(h) == "0"
        if affine:
            words = describe(six_digits(theta[:2]), self.image.size[::-1])
        else:
            words = (
                f"The picture is seen in perspective: the denominator runs from "
                f"{signed(min(ends))} to {signed(max(ends))}."
            )
        beyond = self._beyond()
        if beyond > 0:
            return (
                f"{words} {percent(beyond)} of the output is beyond the horizon: the denominator "
                "is negative there, and the picture the other way round."
            )
        if affine:
            return f"{words} The corners form a parallelogram: this map is affine."
        return f"{words} The denominator is positive everywhere: the map is one to one."

    def _beyond(self) -> float:
        """The share of the output where the denominator is negative."""
        theta = self.theta
        assert theta is not None
        g, h, i = theta[2]
        polygon: list[list[float]] = []
        for a, b in zip(RIM, RIM[1:] + RIM[:1], strict=True):
            wa, wb = (g * x + h * y + i for x, y in (a, b))
            polygon += [a] * (wa < 0)
            if (wa < 0) != (wb < 0):
                part = wa / (wa - wb)
                polygon.append([p + part * (q - p) for p, q in zip(a, b, strict=True)])
        ends = zip(polygon, polygon[1:] + polygon[:1], strict=True)
        return abs(sum((p[0] * q[1] - p[1] * q[0]) / 8 for p, q in ends))

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        return f"CornersExplorer(picture={self._picture!r}, corners=[{shorten(self.corners)}])"

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
        marks = np.array(six_digits(self.corners))
        if theta is None:
            output = np.zeros((*size, 3), dtype=np.uint8)
            return still_grid(image, output, marks, [], marks), text
        matrix = torch.tensor([theta], dtype=torch.float64).round(decimals=9)
        output = read_by(image, projective_grid(matrix, size))
        own = regular_grid(size, dtype=torch.float64)
        w = own @ matrix[0, 2, :2] + matrix[0, 2, 2]
        steps = np.linspace(-1, 1, 9)
        lines = [np.array([[k, -1.0], [k, 1.0]]) for k in steps[1:-1]]
        lines += [line[:, ::-1] for line in lines]
        rim = [np.array([RIM[k], RIM[(k + 1) % 4]]) for k in range(4)]
        strokes = [
            (piece, ERROR if beyond else colour, weight)
            for colour, weight, segments in ((GRID, 4, lines), (OUTPUT, 7, rim))
            for segment in segments
            for piece, beyond in _project_line(matrix[0].numpy(), segment)
        ]
        return still_grid(image, hatched(output, (w < 0).numpy()), marks, strokes, marks), text


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
