r"""θ, the 2×3 matrix of an affine map (chapter 3).

*Convention.* θ has shape (N, 2, 3) and maps **output to input**: the output position (x, y) reads
the input at θ·(x, y, 1). Coordinates are normalised: x to the right, y **down**, −1 and 1 the outer
edges of the picture. The constructors are named after what *the picture* does, which is the inverse
of what θ says; each docstring gives both.

A parameter may be a number or a tensor of shape () or (N,); parameters broadcast. Numbers alone
give N = 1 in `dtype` (PyTorch's default) on `device`; a floating tensor keeps its own dtype and
device and its gradient. NaN and infinities go through as arithmetic takes them; no value is checked
except by `invert` and the functions that call it.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stn_tutorial._checks import (
    Size,
    check_count,
    check_floating,
    check_same_device,
    check_size,
    check_theta,
    same_or_one,
)

Parameter = float | Tensor

__all__ = [
    "Factors",
    "area_factor",
    "compose",
    "correct_aspect",
    "crop",
    "decompose",
    "from_opencv",
    "from_pixels",
    "identity",
    "invert",
    "reflection",
    "rotation",
    "scaling",
    "shear",
    "to_opencv",
    "to_pixels",
    "transform_points",
    "translation",
]


def _parameters(
    dtype: torch.dtype | None, device: torch.device | str | None, **given: Parameter
) -> tuple[Tensor, ...]:
    """Turn numbers and tensors into tensors of one shape (N,), one dtype and one device."""
    for name, value in given.items():
        if not isinstance(value, (Tensor, Real)):  # torch 2.6 cannot compile `Tensor | Real`
            raise TypeError(
                f"{name} must be a number or a tensor of shape () or (N,), "
                f"but a {type(value).__name__} was given"
            )
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        check_floating(name, value)
        if value.ndim > 1:
            raise ValueError(
                f"{name} must be a number or a tensor of shape () or (N,), "
                f"but shape {tuple(value.shape)} was given"
            )
    check_same_device(**tensors)
    if tensors:
        dtype = dtype or reduce(torch.promote_types, [value.dtype for value in tensors.values()])
        device = device or next(iter(tensors.values())).device
    dtype = dtype or torch.get_default_dtype()
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating dtype, but {dtype} was given")
    columns = [torch.as_tensor(v, dtype=dtype, device=device).reshape(-1) for v in given.values()]
    if not same_or_one(column.shape[0] for column in columns):
        sizes = ", ".join(f"{name} with {len(c)}" for name, c in zip(given, columns, strict=True))
        raise ValueError(
            f"parameters must have the same length or length 1, but {sizes} were given"
        )
    return torch.broadcast_tensors(*columns)


def _matrix(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Stack entries of shape (N,) into (N, rows, columns)."""
    # Adding zero turns −0 into 0, which is what a reader expects to see printed.
    return torch.stack([torch.stack(list(row), dim=-1) for row in rows], dim=-2) + 0.0


def _cos_sin(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, exact at multiples of 90°: a quarter turn then hits pixel centres."""
    radians = torch.deg2rad(degrees)
    cos, sin = torch.cos(radians), torch.sin(radians)
    quarter = degrees.remainder(90) == 0
    # Only the value is mended: `round` has gradient zero, and a rotation that starts at 0° must
    # learn.
    cos = cos + (torch.where(quarter, cos.round(), cos) - cos).detach()
    sin = sin + (torch.where(quarter, sin.round(), sin) - sin).detach()
    return cos, sin


def identity(
    n: int = 1, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Leave the picture as it is: θ = [[1, 0, 0], [0, 1, 0]], shape (n, 2, 3).

    Example:
        >>> identity()
        tensor([[[1., 0., 0.],
                 [0., 1., 0.]]])
    """
    n = check_count("n", n, 0)
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating dtype, but {dtype} was given")
    return torch.eye(2, 3, dtype=dtype, device=device).repeat(n, 1, 1)


def translation(
    tx: Parameter,
    ty: Parameter,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Move the picture right by `tx` and down by `ty`, in normalised units (2 is a whole side).

    θ = [[1, 0, −tx], [0, 1, −ty]]: to see the picture further right, look further left.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> translation(0.5, 0.0)
        tensor([[[ 1.0000,  0.0000, -0.5000],
                 [ 0.0000,  1.0000,  0.0000]]])
    """
    tx, ty = _parameters(dtype, device, tx=tx, ty=ty)
    one, zero = torch.ones_like(tx), torch.zeros_like(tx)
    return _matrix([[one, zero, -tx], [zero, one, -ty]])


def scaling(
    sx: Parameter,
    sy: Parameter | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Make the picture `sx` times as wide and `sy` times as high (`sy` is `sx` when left out).

    θ = [[1/sx, 0, 0], [0, 1/sy, 0]]: twice as large means looking at half of it. A negative factor
    mirrors. A factor of 0 gives an infinite entry: a picture shrunk to nothing has no inverse map.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> scaling(2.0)
        tensor([[[0.5000, 0.0000, 0.0000],
                 [0.0000, 0.5000, 0.0000]]])
    """
    sx, sy = _parameters(dtype, device, sx=sx, sy=sx if sy is None else sy)
    zero = torch.zeros_like(sx)
    return _matrix([[1 / sx, zero, zero], [zero, 1 / sy, zero]])


def rotation(
    degrees: Parameter,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Turn the picture counter-clockwise, as seen on the screen, about its centre.

    θ = [[cos α, −sin α], [sin α, cos α]] with a last column of zeros. The direction is that of
    `torchvision.transforms.functional.rotate`. Exact at multiples of 90°. On a picture that is not
    square, follow with `correct_aspect`.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> rotation(90)
        tensor([[[ 0., -1.,  0.],
                 [ 1.,  0.,  0.]]])
    """
    (degrees,) = _parameters(dtype, device, degrees=degrees)
    cos, sin = _cos_sin(degrees)
    zero = torch.zeros_like(cos)
    return _matrix([[cos, -sin, zero], [sin, cos, zero]])


def shear(
    kx: Parameter,
    ky: Parameter = 0.0,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Slant the picture: the point (x, y) moves to (x + kx·y, y + ky·x).

    θ is the inverse, [[1, −kx, 0], [−ky, 1, 0]] / (1 − kx·ky). Infinite where kx·ky = 1, which
    squeezes the picture onto a line.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> shear(0.5)
        tensor([[[ 1.0000, -0.5000,  0.0000],
                 [ 0.0000,  1.0000,  0.0000]]])
    """
    kx, ky = _parameters(dtype, device, kx=kx, ky=ky)
    zero = torch.zeros_like(kx)
    det = 1 - kx * ky
    return _matrix([[1 / det, -kx / det, zero], [-ky / det, 1 / det, zero]])


def reflection(
    degrees: Parameter,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Mirror the picture in a line through its centre, `degrees` counter-clockwise from the x axis.

    `reflection(90)` swaps left and right, `reflection(0)` top and bottom. A reflection is its own
    inverse: θ = [[cos 2α, −sin 2α], [−sin 2α, −cos 2α]] with a last column of zeros.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> reflection(90)  # left and right change places
        tensor([[[-1.,  0.,  0.],
                 [ 0.,  1.,  0.]]])
    """
    (degrees,) = _parameters(dtype, device, degrees=degrees)
    cos, sin = _cos_sin(2 * degrees)
    zero = torch.zeros_like(cos)
    return _matrix([[cos, -sin, zero], [-sin, -cos, zero]])


def crop(
    box: Sequence[float] | Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Show only the box (left, top, right, bottom), in normalised units, over the whole output.

    θ = [[(r − l)/2, 0, (l + r)/2], [0, (b − t)/2, (t + b)/2]]: the output's edges ±1 read the box's
    edges. A box with right < left is mirrored; an empty one gives a singular θ.

    Args:
        box: four numbers, or a floating tensor of shape (4,) or (N, 4).
        dtype: floating dtype of the result.
        device: device of the result.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> crop((-1, -1, 0, 0))  # the upper left quarter
        tensor([[[ 0.5000,  0.0000, -0.5000],
                 [ 0.0000,  0.5000, -0.5000]]])
    """
    if isinstance(box, Tensor):
        check_floating("box", box)
        edges: tuple[Any, ...] = box.unbind(-1) if box.ndim in (1, 2) else ()
    else:
        edges = tuple(box) if isinstance(box, Iterable) else ()
    if len(edges) != 4:
        given = f"shape {tuple(box.shape)}" if isinstance(box, Tensor) else f"{box!r}"
        raise ValueError(
            "box must be (left, top, right, bottom), four numbers or a tensor of shape (4,) or "
            f"(N, 4), but {given} was given"
        )
    left, top, right, bottom = _parameters(
        dtype, device, **dict(zip(("left", "top", "right", "bottom"), edges, strict=True))
    )
    zero = torch.zeros_like(left)
    return _matrix(
        [
            [(right - left) / 2, zero, (left + right) / 2],
            [zero, (bottom - top) / 2, (top + bottom) / 2],
        ]
    )


def compose(*thetas: Tensor) -> Tensor:
    """Do several transforms to the picture, one after the other, as a single θ.

    `compose(a, b)` does a first and then b. As matrices with the row (0, 0, 1) added it is the
    product θ_a θ_b: the output's position goes through b's map first, since θ maps backwards.

    Args:
        *thetas: one or more, each of shape (N, 2, 3), or (1, 2, 3) for all; same dtype and device.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> # Turn the picture, then move the turned one to the right:
        >>> compose(rotation(90), translation(0.5, 0.0))
        tensor([[[ 0.0000, -1.0000,  0.0000],
                 [ 1.0000,  0.0000, -0.5000]]])
    """
    if not thetas:
        raise ValueError("compose expects at least one theta, but none was given")
    for number, theta in enumerate(thetas):
        check_theta(theta, f"theta {number}")
    check_same_device(**{f"theta {k}": t for k, t in enumerate(thetas)})
    if any(t.dtype != thetas[0].dtype for t in thetas):
        given = ", ".join(str(t.dtype) for t in thetas)
        raise TypeError(f"all thetas must have the same dtype, but {given} were given")
    if not same_or_one(t.shape[0] for t in thetas):
        sizes = sorted({t.shape[0] for t in thetas} - {1})
        raise ValueError(f"thetas must have the same batch size or 1, but {sizes} were given")
    result = thetas[0]
    for theta in thetas[1:]:
        # Written out rather than `@`, which may run in TF32 or bfloat16 on a GPU.
        linear = (result[:, :, :2, None] * theta[:, None, :2, :]).sum(2)
        shift = torch.cat([torch.zeros_like(result[:, :, :2]), result[:, :, 2:]], dim=2)
        result = linear + shift
    return result


def _determinant(theta: Tensor) -> Tensor:
    return theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]


def invert(theta: Tensor) -> Tensor:
    """Undo a transform: the θ that maps input to output, and whose picture undoes `theta`'s.

    The inverse of the 3×3 matrix that θ is the top of, in closed form: A⁻¹ and −A⁻¹t. This is the
    one function that looks at values (and so waits for a GPU): it is not for a forward pass.

    Args:
        theta: shape (N, 2, 3).

    Raises:
        ValueError: a θ is singular, its determinant zero to rounding (or so small or large that
            its dtype cannot hold it), or not finite.

    Returns:
        θ of shape (N, 2, 3), with `compose(theta, invert(theta))` the identity to rounding.

    Example:
        >>> torch.equal(invert(rotation(90)), rotation(-90))
        True
    """
    check_theta(theta)
    (a, b, tx), (c, d, ty) = (row.unbind(-1) for row in theta.unbind(-2))
    det = _determinant(theta)
    # Below the rounding error of its own two products, a determinant cannot be told from zero.
    noise = torch.finfo(theta.dtype).eps * ((a * d).abs() + (b * c).abs())
    regular = (det.abs() > noise) & theta.isfinite().all(-1).all(-1)
    if not bool(regular.all()):
        index = int((~regular).nonzero()[0])
        raise ValueError(
            f"theta must be invertible, but theta[{index}] = {theta[index].tolist()} "
            f"with determinant {det[index].item():g} was given"
        )
    a, b, c, d = d / det, -b / det, -c / det, a / det
    return _matrix([[a, b, -(a * tx + b * ty)], [c, d, -(c * tx + d * ty)]])


def transform_points(theta: Tensor, points: Tensor) -> Tensor:
    """Apply θ to points: output positions in, the input positions that they read out.

    To follow a point *of the picture* to where it ends up, apply `invert(theta)`.

    Args:
        theta: shape (N, 2, 3).
        points: (x, y) last, shape (P, 2) for the same points in each, or (N, P, 2).

    Returns:
        Points of shape (N, P, 2).

    Example:
        >>> corner = torch.tensor([[1.0, 1.0]])
        >>> transform_points(scaling(2.0), corner)  # the output's corner reads half-way out
        tensor([[[0.5000, 0.5000]]])
        >>> transform_points(invert(scaling(2.0)), corner)  # the picture's corner has left
        tensor([[[2., 2.]]])
    """
    check_theta(theta)
    check_floating("points", points)
    if points.ndim not in (2, 3) or points.shape[-1] != 2:
        raise ValueError(
            "points must have shape (P, 2) or (N, P, 2) with (x, y) last, "
            f"but shape {tuple(points.shape)} was given"
        )
    check_same_device(theta=theta, points=points)
    if points.ndim == 3 and not same_or_one((theta.shape[0], points.shape[0])):
        raise ValueError(
            "theta and points must have the same batch size or 1, "
            f"but {theta.shape[0]} and {points.shape[0]} were given"
        )
    x, y = points.unbind(-1)
    t = theta[:, :, :, None]
    return torch.stack([t[:, r, 0] * x + t[:, r, 1] * y + t[:, r, 2] for r in (0, 1)], dim=-1)


class Factors(NamedTuple):
    """What a transform does to the picture, in this order: scale, shear, rotate, translate.

    Each is a tensor of shape (N,). `sx` is positive; a negative `sy` tells of a reflection.
    """

    sx: Tensor
    """Horizontal scale, a factor."""
    sy: Tensor
    """Vertical scale, a factor."""
    shear: Tensor
    """Shear kx, as in `shear(kx)`."""
    degrees: Tensor
    """Rotation, counter-clockwise, in (−180, 180]."""
    tx: Tensor
    """Translation to the right, normalised units."""
    ty: Tensor
    """Translation down, normalised units."""


def decompose(theta: Tensor) -> Factors:
    """Split a transform into a scaling, a shear, a rotation and a translation, done in that order.

    `compose(scaling(sx, sy), shear(kx), rotation(degrees), translation(tx, ty))` gives θ back. The
    factors are those of the *picture's* change M = A⁻¹ = R·K·S (a QR decomposition, R a rotation
    and K·S upper triangular), in normalised units: on a picture that is not square the angle is not
    the one that is seen.

    Args:
        theta: shape (N, 2, 3).

    Raises:
        ValueError: a θ is singular.

    Example:
        >>> factors = decompose(compose(scaling(2.0, 1.0), rotation(90)))
        >>> factors.sx, factors.sy, factors.degrees
        (tensor([2.]), tensor([1.]), tensor([90.]))
    """
    moved = invert(theta)
    (a, b, tx), (c, d, ty) = (row.unbind(-1) for row in moved.unbind(-2))
    sx = torch.hypot(a, c)
    sy = (a * d - b * c) / sx
    # The second column, turned back, is (k·sy, sy).
    kx = (a * b + c * d) / sx / sy + 0.0
    # `0 - c` and not `-c`, which is −0 at half a turn and would give −180°.
    return Factors(sx, sy, kx, torch.rad2deg(torch.atan2(0 - c, a)), tx, ty)


def area_factor(theta: Tensor) -> Tensor:
    """How many times as large an area of the picture becomes: 1 / |det A|, shape (N,).

    A is θ's 2×2 part; |det A| itself is the share of the input that one output sees. Infinite for a
    singular θ. A negative determinant (a mirrored picture) has the same area factor.

    Example:
        >>> area_factor(scaling(2.0, 3.0))
        tensor([6.])
    """
    check_theta(theta)
    return 1 / _determinant(theta).abs()


def _unit_to_pixel(theta: Tensor, size: Size, name: str) -> tuple[Tensor, Tensor]:
    """The maps from normalised to pixel coordinates of one picture, and back, as (1, 2, 3)."""
    height, width = check_size(size, name)
    scale = [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2]]
    back = [[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1]]
    return _constant(scale, theta), _constant(back, theta)


def _constant(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """The same numbers for every θ, (1, rows, columns); one by one, since each may be a symbol."""
    return _matrix([[like.new_full((1,), entry) for entry in row] for row in rows])


def to_pixels(theta: Tensor, in_size: Size, out_size: Size) -> Tensor:
    """θ in pixel coordinates: output pixel (column, row) to input pixel, centres at whole numbers.

    Args:
        theta: shape (N, 2, 3), normalised.
        in_size: (H, W) of the input.
        out_size: (H, W) of the output.

    Returns:
        Matrix of shape (N, 2, 3), still output to input.

    Example:
        >>> to_pixels(scaling(2.0), (8, 8), (8, 8))  # column 0 reads at 1.75
        tensor([[[0.5000, 0.0000, 1.7500],
                 [0.0000, 0.5000, 1.7500]]])
    """
    check_theta(theta)
    to_pixel, _ = _unit_to_pixel(theta, in_size, "in_size")
    _, from_pixel = _unit_to_pixel(theta, out_size, "out_size")
    return compose(to_pixel, theta, from_pixel)


def from_pixels(matrix: Tensor, in_size: Size, out_size: Size) -> Tensor:
    """θ from a matrix that maps output pixels to input pixels; the inverse of `to_pixels`.

    Example:
        >>> half = torch.tensor([[[0.5, 0, 1.75], [0, 0.5, 1.75]]])
        >>> from_pixels(half, (8, 8), (8, 8))
        tensor([[[0.5000, 0.0000, 0.0000],
                 [0.0000, 0.5000, 0.0000]]])
    """
    check_theta(matrix, "matrix")
    _, from_pixel = _unit_to_pixel(matrix, in_size, "in_size")
    to_pixel, _ = _unit_to_pixel(matrix, out_size, "out_size")
    return compose(from_pixel, matrix, to_pixel)


def to_opencv(theta: Tensor, in_size: Size, out_size: Size) -> Tensor:
    """The matrix that OpenCV's `warpAffine` takes: **input** pixel to **output** pixel.

    The direction is the opposite of θ's (OpenCV inverts it inside, unless `WARP_INVERSE_MAP` is
    set) and the units are pixels with centres at whole numbers.

    Args:
        theta: shape (N, 2, 3), normalised.
        in_size: (H, W) of the input; OpenCV's own `dsize` is (W, H).
        out_size: (H, W) of the output.

    Raises:
        ValueError: a θ is singular.

    Returns:
        Matrix of shape (N, 2, 3).

    Example:
        >>> to_opencv(translation(0.5, 0.0), (8, 8), (8, 8))  # two pixels to the right
        tensor([[[1., 0., 2.],
                 [0., 1., 0.]]])
    """
    return invert(to_pixels(theta, in_size, out_size))


def from_opencv(matrix: Tensor, in_size: Size, out_size: Size) -> Tensor:
    """θ from a matrix of OpenCV's (`getRotationMatrix2D`, `getAffineTransform`); see `to_opencv`.

    Raises:
        ValueError: the matrix is singular.

    Example:
        >>> right = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]])
        >>> from_opencv(right, (8, 8), (8, 8))
        tensor([[[ 1.0000,  0.0000, -0.5000],
                 [ 0.0000,  1.0000,  0.0000]]])
    """
    check_theta(matrix, "matrix")
    return from_pixels(invert(matrix), in_size, out_size)


def correct_aspect(theta: Tensor, size: Size) -> Tensor:
    """Make θ do to a picture of H×W pixels what it does to a square one.

    Normalised units are W/2 pixels wide and H/2 pixels high, so a rotation by θ alone shears a
    picture that is not square. The linear part becomes D⁻¹ A D with D = diag(W, H): A₁₂ is scaled
    by H/W and A₂₁ by W/H. The translation stays in normalised units.

    Args:
        theta: shape (N, 2, 3).
        size: (H, W) of the picture, the same for input and output.

    Returns:
        θ of shape (N, 2, 3).

    Example:
        >>> correct_aspect(rotation(90), (20, 40))
        tensor([[[ 0.0000, -0.5000,  0.0000],
                 [ 2.0000,  0.0000,  0.0000]]])
    """
    check_theta(theta)
    height, width = check_size(size)
    return theta * _constant([[1, height / width, 1], [width / height, 1, 1]], theta)
