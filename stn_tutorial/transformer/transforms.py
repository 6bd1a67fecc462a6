"""Transforms: from offsets to θ, from θ to the grid, and points along it and back."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_floating,
    check_same_device,
    check_shape,
    check_size,
    without_autocast,
)
from stn_tutorial.grids import HORIZON, affine_grid, affine_grid_3d, projective_grid, regular_grid
from stn_tutorial.transformer.inverse import adjugate, newton

__all__ = [
    "Affine",
    "Attention",
    "Chain",
    "Projective",
    "Rotation",
    "Similarity",
    "Transform",
    "Translation",
]


class Transform(nn.Module):
    """A family of maps: how many offsets it has, the θ they give, and where that θ reads.

    To add one, write a class with `dof` and `theta`, and with `points` unless θ is affine (or with
    `grid`, where the map is known on the regular grid only). Zero offsets must give the identity.
    If θ depends on the shape of the picture, as an angle does, set `in_pixels` and let `theta` take
    the picture's size as well.
    """

    dof: int
    """Degrees of freedom: the number of offsets."""
    axes: int = 2
    """2 for pictures, (N, C, H, W), or 3 for volumes, (N, C, D, H, W)."""
    in_pixels: bool = False
    """Whether θ depends on the input's size, so that `theta` takes (offsets, size)."""
    _is_affine: bool = True

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Note whether a class has points of its own."""
        super().__init_subclass__(**kwargs)
        cls._is_affine = cls.points is Transform.points

    def theta(self, offsets: Tensor) -> Tensor:
        """Return θ for offsets of shape (N, dof), in their dtype."""
        raise NotImplementedError(f"{type(self).__name__} must define theta(offsets)")

    def theta_of(self, offsets: Tensor, size: Size | None) -> Tensor:
        """Return θ for an input of that size, (H, W) or (D, H, W), whether it needs one or not."""
        return self.theta(*((offsets, size) if self.in_pixels else (offsets,)))

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """Return θ's sampling grid, (N, H, W, 2) or (N, D, H, W, 3), for an output of that size."""
        # Not PyTorch's own `affine_grid`: that one is rounded under autocast and in TF32, and takes
        # neither an empty batch nor, in a compiled graph, a size that may change.
        if self._is_affine:
            return affine_grid(theta, size) if self.axes == 2 else affine_grid_3d(theta, size)
        like: dict[str, Any] = {
            "dtype": at_least_float32(theta.dtype),
            "device": theta.device,
        }
        if self.axes == 2:
            own = regular_grid(size, **like)
        else:
            own = affine_grid_3d(torch.eye(3, 4, **like)[None], size)[0]
        moved = self.points(theta, own.reshape(-1, self.axes), size)
        return moved.view(theta.shape[0], *size, self.axes)

    def points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """Follow points of the *output* to where they read the input.

        Args:
            theta: as `theta` gives it, N of them.
            points: normalised, shape (P, 2) for the same points in each, or (N, P, 2); (x, y)
                last, or (x, y, z).
            size: of the output, which a map needs that is the smoothest in pixels.

        Returns:
            Points of shape (N, P, 2), or (N, P, 3), in the wider dtype, float32 at least.

        Example:
            >>> corner = torch.tensor([[1.0, 1.0]])
            >>> closer = Affine().theta(torch.tensor([[-0.5, 0, 0, 0, -0.5, 0]]))
            >>> Affine().points(closer, corner)  # the output's corner reads half-way out
            tensor([[[0.5000, 0.5000]]])
        """
        self._check_has_points()
        theta, points = self._checked_points(theta, points)
        check_affine(theta, self.axes)
        x = points.unbind(-1)
        rows = []
        for row in theta[:, :, :, None].unbind(1):
            first, *others, shift = row.unbind(1)
            total = first * x[0]
            for entry, coordinate in zip(others, x[1:], strict=True):
                total = total + entry * coordinate
            rows.append(total + shift)
        return torch.stack(rows, dim=-1)

    def inverse_points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """Follow points of the *input* to where the output shows them: boxes, landmarks.

        Affine and projective maps are inverted in closed form, and give NaN where θ is singular;
        all others by Newton's method, to the precision that `inverse.newton` states, and NaN where
        none was found.

        Args:
            theta: as `theta` gives it, N of them.
            points: normalised, shape (P, 2) for the same points in each, or (N, P, 2); (x, y)
                last, or (x, y, z).
            size: of the output, as for `points`.

        Returns:
            Points of shape (N, P, 2), or (N, P, 3), in the wider dtype, float32 at least. They may
            lie outside the output.

        Example:
            A box goes along with a picture that is turned by a tenth of a radian:

            >>> turn = Rotation()
            >>> theta = turn.theta(torch.tensor([[0.1]]))
            >>> box = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
            >>> corners = turn.inverse_points(theta, box)
            >>> torch.cat([corners.amin(1), corners.amax(1)], dim=1)  # left, top, right, bottom
            tensor([[-0.5474, -0.5474,  0.5474,  0.5474]])
        """
        self._check_has_points()
        theta, points = self._checked_points(theta, points)
        with without_autocast(theta.device):
            if not self._is_affine:
                points = points.expand(theta.shape[0], -1, -1)
                # Slopes are asked for inside, also in inference mode.
                with torch.inference_mode(mode=False):
                    theta, points = (t.clone() if t.is_inference() else t for t in (theta, points))
                    return newton(lambda at: self.points(theta, at, size), points)
            check_affine(theta, self.axes)
            adj, det = adjugate(theta[:, :, :-1])
            left = points - theta[:, None, :, -1]
            moved = (adj[:, None] * left[:, :, None]).sum(-1) / det[:, None, None]
            return torch.where((det == 0)[:, None, None], torch.nan, moved)

    def forward(self, offsets: Tensor, size: Size) -> Tensor:
        """Return the grid of these offsets, in float32 at least and outside autocast.

        The input is taken to have the output's shape; `SpatialTransformer` knows both.
        """
        self._checked(offsets)
        with without_autocast(offsets.device):
            wide = offsets.to(at_least_float32(offsets.dtype))
            return self.grid(self.theta_of(wide, size), size)

    def _checked(self, offsets: Tensor) -> Tensor:
        check_shape("offsets", offsets, f"(N, {self.dof})", self.dof, ndim=2)
        return offsets

    def _check_has_points(self) -> None:
        if self._is_affine and type(self).grid is not Transform.grid:
            raise NotImplementedError(
                f"{type(self).__name__} defines a grid of its own, and must define points as well"
            )

    def _checked_points(self, theta: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Both in the wider dtype, and the points with a first axis of N or 1."""
        check_floating("theta", theta)
        check_floating("points", points)
        check_same_device(theta=theta, points=points)
        if points.ndim not in (2, 3) or points.shape[-1] != self.axes:
            raise ValueError(
                f"points must have shape (P, {self.axes}) or (N, P, {self.axes}), "
                f"but shape {tuple(points.shape)} was given"
            )
        if points.ndim == 2:
            points = points[None]
        elif points.shape[0] != 1 and points.shape[0] != theta.shape[0]:
            raise ValueError(
                "theta and points must have the same batch size, "
                f"but {theta.shape[0]} and {points.shape[0]} were given"
            )
        dtype = at_least_float32(theta.dtype, points.dtype)
        return theta.to(dtype), points.to(dtype)


def check_affine(theta: Tensor, axes: int) -> None:
    """Raise unless θ has the shape (N, 2, 3), or (N, 3, 4) of volumes."""
    check_shape("theta", theta, f"(N, {axes}, {axes + 1})", axes, axes + 1, ndim=3)


def _rows(*rows: Sequence[Tensor]) -> Tensor:
    """Stack entries of shape (N,) into θ, (N, rows, columns)."""
    return torch.stack([torch.stack(list(row), dim=-1) for row in rows], dim=-2)


def _plus_identity(offsets: Tensor, rows: int, columns: int) -> Tensor:
    identity = torch.eye(rows, columns, dtype=offsets.dtype, device=offsets.device)
    return offsets.view(-1, rows, columns) + identity


class Translation(Transform):
    """Move the picture right by o₁ and down by o₂, as `affine.translation` does.

    θ = [[1, 0, −o₁], [0, 1, −o₂]], in normalised units (2 is a whole side): to see the picture
    further right, look further left.

    Example:
        >>> Translation().theta(torch.tensor([[0.5, 0.0]]))
        tensor([[[ 1.0000,  0.0000, -0.5000],
                 [ 0.0000,  1.0000,  0.0000]]])
    """

    dof = 2

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        x, y = self._checked(offsets).unbind(-1)
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        return _rows((one, zero, zero - x), (zero, one, zero - y))


class Attention(Transform):
    """Look elsewhere and closer: θ = [[s, 0, o₂], [0, s, o₃]], s = 1 + o₁ (the paper's eq. 2).

    As `affine.crop` does: (o₂, o₃) is the middle of the window, and s half its side. With a fixed
    `scale` only the place is chosen, as the paper's bird windows do: θ = [[s, 0, o₁], [0, s, o₂]].
    Zero offsets are then the window of that scale about the picture's middle, and not the identity.

    Args:
        scale: s, above 0; chosen too, by o₁, when left out.

    Raises:
        ValueError: `scale` is no number above 0.

    Example:
        >>> Attention().theta(torch.tensor([[-0.5, 0.25, 0.0]]))
        tensor([[[0.5000, 0.0000, 0.2500],
                 [0.0000, 0.5000, 0.0000]]])
        >>> Attention(scale=0.5).theta(torch.tensor([[0.25, 0.0]]))
        tensor([[[0.5000, 0.0000, 0.2500],
                 [0.0000, 0.5000, 0.0000]]])
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and not (isinstance(scale, Real) and 0 < scale < math.inf):
            raise ValueError(f"scale must be a number above 0, but {scale!r} was given")
        self.scale = scale
        self.dof = 3 if scale is None else 2

    def extra_repr(self) -> str:
        """Show the setting."""
        return "" if self.scale is None else f"scale={self.scale:g}"

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        offsets = self._checked(offsets)
        x, y = offsets[:, -2], offsets[:, -1]
        scale = 1 + offsets[:, 0] if self.scale is None else torch.full_like(x, self.scale)
        zero = torch.zeros_like(x)
        return _rows((scale, zero, x), (zero, scale, y))


class _KeepsAngles(Transform):
    """What turns: in pixels and not in normalised units, whose x and y differ in length.

    Args:
        aspect: H/W of the pictures. When left out, it is that of the input's size.
    """

    in_pixels = True

    def __init__(self, aspect: float | None = None) -> None:
        super().__init__()
        self.aspect = check_aspect(aspect)

    def extra_repr(self) -> str:
        """Show the setting."""
        return "" if self.aspect is None else f"aspect={self.aspect:g}"

    def _shape(self, size: Size | None) -> float:
        """H/W: as given, or of the input, or of a square where neither is known."""
        return self.aspect if self.aspect is not None else aspect_of(size)


def check_aspect(aspect: float | None) -> float | None:
    """Return the aspect as given; raise unless it is a number above 0 or None."""
    if aspect is not None and (not isinstance(aspect, Real) or not 0 < aspect < math.inf):
        raise ValueError(f"aspect must be height/width, a number above 0, but {aspect!r} was given")
    return aspect


def aspect_of(size: Size | None) -> float:
    """H/W of a size, and 1, a square's, where none is given."""
    if size is None:
        return 1.0
    height, width = check_size(size)
    return height / width


class Rotation(_KeepsAngles):
    """Turn the picture counter-clockwise by o₁ radians: θ = [[cos, −sin, 0], [sin, cos, 0]].

    In pixels: −sin is multiplied by H/W of the input, and sin divided by it, as
    `affine.correct_aspect` does. `theta` without a size and without an aspect is a square's.

    Args:
        aspect: H/W of the pictures, where it is not that of the input's size (feature maps of
            another shape, pixels that are not square).

    Example:
        >>> Rotation().theta(torch.tensor([[0.1]]), (20, 40))  # a picture twice as wide as high
        tensor([[[ 0.9950, -0.0499,  0.0000],
                 [ 0.1997,  0.9950,  0.0000]]])
    """

    dof = 1

    def theta(self, offsets: Tensor, size: Size | None = None) -> Tensor:
        """θ of shape (N, 2, 3), for an input of that size, (H, W)."""
        (radians,) = self._checked(offsets).unbind(-1)
        cos, sin = radians.cos(), radians.sin()
        zero, aspect = torch.zeros_like(cos), self._shape(size)
        return _rows((cos, -sin * aspect, zero), (sin / aspect, cos, zero))


class Similarity(_KeepsAngles):
    """Turn, scale and move: θ = [[1 + o₁, −o₂, o₃], [o₂, 1 + o₁, o₄]].

    The input is read at 1/s times the picture's size and turned by α, where s⁻¹ cos α = 1 + o₁ and
    s⁻¹ sin α = o₂: linear in the offsets, with no angle that could wind up. It is read about
    (o₃, o₄), which moves the picture the other way. In pixels, as `Rotation`.

    Args:
        aspect: H/W of the pictures, where it is not that of the input's size.

    Example:
        >>> Similarity().theta(torch.tensor([[0.0, 0.5, 0.0, 0.0]]))
        tensor([[[ 1.0000, -0.5000,  0.0000],
                 [ 0.5000,  1.0000,  0.0000]]])
    """

    dof = 4

    def theta(self, offsets: Tensor, size: Size | None = None) -> Tensor:
        """θ of shape (N, 2, 3), for an input of that size, (H, W)."""
        cos, sin, x, y = self._checked(offsets).unbind(-1)
        cos, aspect = 1 + cos, self._shape(size)
        return _rows((cos, -sin * aspect, x), (sin / aspect, cos, y))


class Affine(Transform):
    """All six numbers of θ, each an offset from the identity (the paper's eq. 1).

    Example:
        >>> Affine().theta(torch.zeros(1, 6))
        tensor([[[1., 0., 0.],
                 [0., 1., 0.]]])
    """

    dof = 6

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        return _plus_identity(self._checked(offsets), 2, 3)


class Projective(Transform):
    """A homography: eight numbers of a 3×3 θ, whose last entry stays 1.

    Example:
        >>> Projective().theta(torch.zeros(1, 8))
        tensor([[[1., 0., 0.],
                 [0., 1., 0.],
                 [0., 0., 1.]]])
    """

    dof = 8

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 3, 3)."""
        return _plus_identity(F.pad(self._checked(offsets), (0, 1)), 3, 3)

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """See `grids.projective_grid`."""
        return projective_grid(theta, size)

    def points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """See `Transform.points`, and `grids.projective_grid` for points near the horizon."""
        theta, points = self._checked_points(theta, points)
        n, w = self._homogeneous(theta, points)
        horizon = w.new_full((), HORIZON)
        w = torch.where(w.abs() < HORIZON, torch.where(w < 0, -horizon, horizon), w)
        return n / w

    def inverse_points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """See `Transform.inverse_points`; infinite for what is shown infinitely far away."""
        theta, points = self._checked_points(theta, points)
        check_shape("theta", theta, "(N, 3, 3)", 3, 3, ndim=3)
        adj, det = adjugate(theta)
        n, w = self._homogeneous(adj, points)
        return torch.where((det == 0)[:, None, None], torch.nan, n / w)

    @staticmethod
    def _homogeneous(theta: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        check_shape("theta", theta, "(N, 3, 3)", 3, 3, ndim=3)
        x, y = points.unbind(-1)
        t = theta[:, :, :, None]
        n_x, n_y, w = (t[:, r, 0] * x + (t[:, r, 1] * y + t[:, r, 2]) for r in (0, 1, 2))
        return torch.stack([n_x, n_y], dim=-1), w[..., None]


def chained_grid(transforms: Sequence[Transform], thetas: Sequence[Tensor], size: Size) -> Tensor:
    """The last transform's grid, and its positions as points through all the others."""
    *others, (last, own) = zip(transforms, thetas, strict=True)
    at = last.grid(own, size)
    for transform, own in reversed(others):
        at = transform.points(own, at.flatten(1, -2), size).view(at.shape)
    return at


class Chain(Transform):
    """Several transforms of the picture, one after the other, and still read only once.

    `Chain(a, b)` does a first and then b, in the order of `affine.compose`: an output position goes
    through b's map, and from there through a's. No picture is made in between, so that none is
    blurred twice; and a position that b sends outside the picture may come back.

    Beside a grid of the last transform's alone it costs the *points* of each of the others at each
    output pixel: little for affine and projective ones (put those first), while a spline that is
    not the last takes a distance to each control point from each pixel, without the constants that
    it keeps for the regular grid.

    Args:
        *transforms: two or more, all for pictures or all for volumes. All but the last need
            `points`. Their offsets follow one another, and so do their θ, flat: (N, numbers).

    Example:
        >>> from stn_tutorial.transformer import ThinPlateSpline
        >>> look = Chain(Rotation(), ThinPlateSpline(3))
        >>> look.dof, look(torch.zeros(2, 19), (28, 28)).shape
        (19, torch.Size([2, 28, 28, 2]))
    """

    in_pixels = True

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        if len(transforms) < 2:
            raise ValueError(f"Chain expects two transforms or more, but {len(transforms)} given")
        for transform in transforms:
            if not isinstance(transform, Transform):
                raise TypeError(
                    f"Chain expects Transform objects, but a {type(transform).__name__} was given"
                )
        if len({transform.axes for transform in transforms}) > 1:
            raise ValueError("Chain expects transforms of pictures or of volumes, but both given")
        self.transforms = nn.ModuleList(transforms)
        self.axes = transforms[0].axes
        self.dof = sum(transform.dof for transform in transforms)
        size = (1,) * self.axes
        self._shapes = [
            tuple(t.theta_of(torch.zeros(1, t.dof), size).shape[1:]) for t in transforms
        ]

    @property
    def _each(self) -> list[Transform]:
        return cast("list[Transform]", list(self.transforms))

    def theta(self, offsets: Tensor, size: Size | None = None) -> Tensor:
        """θ of shape (N, numbers): the transforms' own, flat, one after the other."""
        parts = self._checked(offsets).split([t.dof for t in self._each], dim=1)
        thetas = [t.theta_of(o, size) for t, o in zip(self._each, parts, strict=True)]
        return torch.cat([theta.flatten(1) for theta in thetas], dim=1)

    def thetas(self, theta: Tensor) -> list[Tensor]:
        """Each transform's own θ, from all of them flat."""
        counts = [math.prod(shape) for shape in self._shapes]
        check_shape("theta", theta, f"(N, {sum(counts)})", sum(counts), ndim=2)
        parts = theta.split(counts, dim=1)
        return [p.reshape(-1, *shape) for p, shape in zip(parts, self._shapes, strict=True)]

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """The last transform's grid, and its positions as points through all the others."""
        return chained_grid(self._each, self.thetas(theta), size)

    def points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """See `Transform.points`: the last transform's first."""
        theta, points = self._checked_points(theta, points)
        pairs = list(zip(self._each, self.thetas(theta), strict=True))
        for transform, own in reversed(pairs):
            points = transform.points(own, points, size)
        return points

    def inverse_points(self, theta: Tensor, points: Tensor, size: Size | None = None) -> Tensor:
        """See `Transform.inverse_points`: each transform's own, the first one's first."""
        theta, points = self._checked_points(theta, points)
        for transform, own in zip(self._each, self.thetas(theta), strict=True):
            points = transform.inverse_points(own, points, size)
        return points
