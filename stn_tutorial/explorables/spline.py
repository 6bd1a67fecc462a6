"""A spline or a mesh, moved by its points, and its folds (chapter 9)."""

import math
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from stn_tutorial.explorables.base import Pictured, PointsTrait, shorten, six_digits
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import Picture
from stn_tutorial.explorables.stills import hatched, read_by, still_grid
from stn_tutorial.explorables.words import fixed, percent
from stn_tutorial.grids import (
    _spline_system,
    control_points,
    piecewise_affine_grid,
    regular_grid,
    thin_plate_spline_grid,
)
from stn_tutorial.viz import GRID, OUTPUT

NODES = 49
"""Nodes a side of the lattice on which a spline is drawn, and its folds are counted."""


class SplineExplorer(Pictured):
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

    kind = "spline"
    _esm = bundle("spline")

    theta = PointsTrait(2, 7, 4).tag(sync=True)
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
        moved = sum(fixed(way) != "0" for way in ways)
        between = (
            "each triangle between them has an affine map of its own"
            if self.transform == "mesh"
            else "a thin-plate spline bends what is between them"
        )
        words = "The picture stays as it is."
        if moved:
            words = (
                f"{moved} of {len(ways)} points {'is' if moved == 1 else 'are'} moved, "
                f"by up to {fixed(max(ways))}: {between}."
            )
        folded, mirrored = self._folds()
        if folded.any():
            return (
                f"{words} {percent(folded.mean())} of the output is folded over: the determinant "
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
        theta = f"{self.k}×{self.k}" if still else f"[{shorten(self.theta)}]"
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
        output = read_by(image, make(theta, size).round(decimals=9))
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
        output = hatched(output, folded[cell])
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
        marks = np.array(six_digits(self.theta))
        return still_grid(image, output, np.concatenate([marks, *lines]), strokes, marks), text
