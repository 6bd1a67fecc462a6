"""Maps that bend: θ is where control points of the output read the input."""

import numpy as np
import torch
from torch import Tensor

from stn_tutorial import _splines
from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_shape,
    check_size,
    is_whole,
    without_autocast,
)
from stn_tutorial.grids import control_points, piecewise_affine_grid, regular_grid
from stn_tutorial.transformer.transforms import Transform, aspect_of, check_aspect

__all__ = ["PiecewiseAffine", "ThinPlateSpline"]


class PiecewiseAffine(Transform):
    """A mesh of triangles between k×k control points, each triangle affine.

    θ is where each of the points, regularly over the output, reads; offsets are its movements.

    Args:
        k: control points along each side, at least 2.

    Example:
        >>> mesh = PiecewiseAffine(3)
        >>> mesh.dof, mesh(torch.zeros(1, 18), (32, 32)).shape
        (18, torch.Size([1, 32, 32, 2]))
    """

    def __init__(self, k: int = 4) -> None:
        super().__init__()
        self.dof = 2 * len(control_points(k))
        self.k = k

    def extra_repr(self) -> str:
        """Show the setting."""
        return f"k={self.k}"

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, k², 2), (x, y) last, the points row by row."""
        movements = self._checked(offsets).view(-1, self.k**2, 2)
        return movements + control_points(self.k, dtype=offsets.dtype, device=offsets.device)

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """See `grids.piecewise_affine_grid`."""
        return piecewise_affine_grid(theta, size)

    def points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """See `Transform.points`. Past the output's edges the movement fades within one cell."""
        theta, points = self._checked_points(theta, points)
        check_shape("theta", theta, f"(N, {self.k**2}, 2)", self.k**2, 2, ndim=3)
        control = control_points(self.k, dtype=theta.dtype, device=theta.device)
        dx, dy = ((points[:, :, None] - control) * ((self.k - 1) / 2)).unbind(-1)
        reach = torch.maximum(torch.maximum(dx.abs(), dy.abs()), (dx - dy).abs())
        with without_autocast(theta.device):
            return points + (1 - reach).clamp(min=0) @ (theta - control)


class ThinPlateSpline(Transform):
    """The smoothest map through control points; the paper's has 4×4, regularly over the output.

    θ is where each of the points reads; offsets are its movements. The map takes each control point
    p to its source q and, of all that do, bends the least, as a thin sheet of metal (Bookstein
    1989): with r² log r for the distance r to each point, in *pixels* of the output, so that a wide
    picture bends as its square middle does. Its coefficients are a constant matrix times the
    movements, and so, for a given size, is the grid: that constant is solved in float64 and kept.

    Args:
        k: points along each side, at least 2; or (rows, columns), such as (2, 10) for the upper and
            lower edge of a line of text.
        control: instead, any points of the output, normalised, shape (K, 2), (x, y) last: three
            or more, not all on one line, no two the same.
        aspect: H/W of the output, where it is not that of the output's size. (`torch.jit.trace`
            keeps the proportions of the picture that it traced; `torch.export` does not.)

    Example:
        >>> import torch
        >>> line = ThinPlateSpline((2, 10))
        >>> line.dof, line(torch.zeros(1, 40), (32, 256)).shape
        (40, torch.Size([1, 32, 256, 2]))
    """

    def __init__(
        self,
        k: int | tuple[int, int] = 4,
        *,
        control: Tensor | None = None,
        aspect: float | None = None,
    ) -> None:
        super().__init__()
        self.k: int | tuple[int, int] | None = k
        if control is None:
            self._control: _splines.Control = _splines.lattice(*_rows_and_columns(k))
        else:
            check_shape("control", control, "(K, 2) with (x, y) last", 2, ndim=2)
            self._control = _splines.packed(control.detach().cpu().double().numpy())
            _check_control(_splines.unpacked(self._control))
            self.k = None
        self.dof = 2 * len(_splines.unpacked(self._control))
        self.aspect = check_aspect(aspect)
        self._pinned = b"" if aspect is None else np.float64(aspect).tobytes()

    def extra_repr(self) -> str:
        """Show the settings."""
        aspect = "" if self.aspect is None else f", aspect={self.aspect:g}"
        return (f"{self.dof // 2} points" if self.k is None else f"k={self.k}") + aspect

    def control(self, like: Tensor) -> Tensor:
        """The control points, where they stand on the output: (K, 2), as `like`."""
        return _splines.positions(self._control, like)

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, K, 2), (x, y) last; K = k², the points row by row."""
        movements = self._checked(offsets).view(-1, self.dof // 2, 2)
        return movements + self.control(movements)

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """θ's grid, (N, H, W, 2), in θ's dtype, float32 at least."""
        theta = self._checked_theta(theta)
        N, K, _ = theta.shape
        height, width = size = check_size(size)
        own = regular_grid(size, dtype=theta.dtype, device=theta.device)
        aspect = self._aspect(size)
        if _splines.is_traced(own):
            weights = self._weights(own.view(-1, 2), aspect)
        else:
            weights = _splines.kept_weights(self._control, aspect, size, theta.dtype, theta.device)
        # Movements and not positions: zero movement then is the identity, bit for bit. One product
        # for the whole batch; without autocast, which would make it in half precision.
        with without_autocast(theta.device):
            movement = (theta - self.control(theta)).transpose(1, 2).reshape(2 * N, K)
            movement = movement @ weights.T
        return own + movement.view(N, 2, height, width).permute(0, 2, 3, 1)

    def points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """See `Transform.points`; without a size and an aspect, a square output's."""
        theta, points = self._checked_points(theta, points)
        theta = self._checked_theta(theta)
        movements = theta - self.control(theta)
        aspect, wide = self._aspect(size), self._wide(theta)
        with without_autocast(theta.device):
            at = points.to(wide)
            control = _splines.positions(self._control, at)
            solved = _splines.system(self._control, aspect, self._pinned, at)
            coefficients = solved @ movements.to(wide)
            bent = _splines.bends(at, control, aspect) @ coefficients[:, :-3]
            flat = coefficients[:, -3:-2] + at @ coefficients[:, -2:]
            return points + (bent + flat).to(theta.dtype)

    def _weights(self, own: Tensor, aspect: float) -> Tensor:
        at = own.to(self._wide(own))
        return _splines.weights(at, self._control, aspect, self._pinned).to(own.dtype)

    def _aspect(self, size: Size | None) -> float:
        return aspect_of(size) if self.aspect is None else self.aspect

    def _checked_theta(self, theta: Tensor) -> Tensor:
        count = self.dof // 2
        check_shape("theta", theta, f"(N, {count}, 2)", count, 2, ndim=3)
        return theta.to(at_least_float32(theta.dtype))

    @staticmethod
    def _wide(like: Tensor) -> torch.dtype:
        """Float64, unless the device has none: for 16×16 points float32 is 0.01 pixels off."""
        return like.dtype if like.device.type == "mps" else torch.float64


def _rows_and_columns(k: int | tuple[int, int]) -> tuple[int, int]:
    """Both as whole numbers; raise unless `k` is one such number or two, each 2 or more."""
    both = k if isinstance(k, tuple) else (k, k)
    if len(both) != 2 or not all(is_whole(one) and one >= 2 for one in both):
        raise ValueError(
            f"k must be a whole number, 2 or more, or (rows, columns), but {k!r} was given"
        )
    rows, columns = both
    return int(rows), int(columns)


def _check_control(points: np.ndarray) -> None:
    """Raise unless one spline goes through these points."""
    flat = np.concatenate([np.ones((len(points), 1)), points], axis=1)
    if not np.isfinite(points).all() or np.linalg.matrix_rank(flat) < 3:
        raise ValueError("control must hold three points or more that are not all on one line")
    if len(np.unique(points, axis=0)) < len(points):
        raise ValueError("control must hold no point twice")
