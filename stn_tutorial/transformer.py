"""The spatial transformer, as a module for your own network (chapters 7 to 9).

A transformer has three parts, as in the paper: a *localisation net* looks at the input and gives a
few numbers; a *transform* makes θ and the sampling grid of them; the *sampler* reads the input
there. `SpatialTransformer` holds them together, and takes any localisation net and any transform.

*Convention.* Every θ maps **output to input**, in normalised coordinates, `align_corners=False`.
Transforms take *offsets*: all zero is the identity, so that a last layer of zeros starts there.
"""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_choice,
    check_floating,
    check_input_shape,
    check_picture,
    check_shape,
    check_size,
    check_volume,
    check_volume_size,
    without_autocast,
)
from stn_tutorial.grids import (
    affine_grid,
    affine_grid_3d,
    control_points,
    piecewise_affine_grid,
    projective_grid,
    thin_plate_spline_grid,
)
from stn_tutorial.sampling import MODES, PADDINGS

__all__ = [
    "Affine",
    "Affine3d",
    "Attention",
    "ConvolutionalLocalisation",
    "FullyConnectedLocalisation",
    "PiecewiseAffine",
    "Projective",
    "Rotation",
    "SharedLocalisation",
    "Similarity",
    "SpatialTransformer",
    "ThinPlateSpline",
    "Transform",
    "Translation",
]


# --- Transforms: from offsets to θ, from θ to the grid ---


class Transform(nn.Module):
    """A family of maps: how many offsets it has, the θ they give, and the grid of that θ.

    To add one, write a class with `dof` and `theta`, and with `grid` unless θ is affine. Zero
    offsets must give the identity.
    """

    dof: int
    """Degrees of freedom: the number of offsets."""
    axes: int = 2
    """2 for pictures, (N, C, H, W), or 3 for volumes, (N, C, D, H, W)."""

    def theta(self, offsets: Tensor) -> Tensor:
        """Return θ for offsets of shape (N, dof), in their dtype."""
        raise NotImplementedError(f"{type(self).__name__} must define theta(offsets)")

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """Return θ's sampling grid, (N, H, W, 2) or (N, D, H, W, 3), for an output of that size."""
        # Not PyTorch's own `affine_grid`: that one is rounded under autocast and in TF32, and takes
        # neither an empty batch nor, in a compiled graph, a size that may change.
        return affine_grid(theta, size) if self.axes == 2 else affine_grid_3d(theta, size)

    def forward(self, offsets: Tensor, size: Size) -> Tensor:
        """Return the grid of these offsets, in float32 at least and outside autocast."""
        self._checked(offsets)
        with without_autocast(offsets.device):
            return self.grid(self.theta(offsets.to(at_least_float32(offsets.dtype))), size)

    def _checked(self, offsets: Tensor) -> Tensor:
        check_shape("offsets", offsets, f"(N, {self.dof})", self.dof, ndim=2)
        return offsets


def _rows(*rows: Sequence[Tensor]) -> Tensor:
    """Stack entries of shape (N,) into θ, (N, rows, columns)."""
    return torch.stack([torch.stack(list(row), dim=-1) for row in rows], dim=-2)


def _plus_identity(offsets: Tensor, rows: int, columns: int) -> Tensor:
    identity = torch.eye(rows, columns, dtype=offsets.dtype, device=offsets.device)
    return offsets.view(-1, rows, columns) + identity


class Translation(Transform):
    """Look elsewhere: θ = [[1, 0, o₁], [0, 1, o₂]]."""

    dof = 2

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        x, y = self._checked(offsets).unbind(-1)
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        return _rows((one, zero, x), (zero, one, y))


class Attention(Transform):
    """Look elsewhere and closer: θ = [[s, 0, o₂], [0, s, o₃]], s = 1 + o₁ (the paper's eq. 2)."""

    dof = 3

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        scale, x, y = self._checked(offsets).unbind(-1)
        scale, zero = 1 + scale, torch.zeros_like(x)
        return _rows((scale, zero, x), (zero, scale, y))


class _KeepsAngles(Transform):
    """What turns: in pixels and not in normalised units, whose x and y differ in length.

    Args:
        aspect: H/W of the pictures. With 1, what is not square is sheared (chapter 3).
    """

    def __init__(self, aspect: float = 1.0) -> None:
        super().__init__()
        if not isinstance(aspect, Real) or not 0 < aspect < math.inf:
            raise ValueError(
                f"aspect must be height/width, a number above 0, but {aspect!r} was given"
            )
        self.aspect = aspect

    def extra_repr(self) -> str:
        """Show the setting."""
        return f"aspect={self.aspect:g}"


class Rotation(_KeepsAngles):
    """Turn the picture counter-clockwise by o₁ radians: θ = [[cos, −sin, 0], [sin, cos, 0]].

    Args:
        aspect: H/W of the pictures. With 1, what is not square is sheared (chapter 3).
    """

    dof = 1

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        (radians,) = self._checked(offsets).unbind(-1)
        cos, sin = radians.cos(), radians.sin()
        zero = torch.zeros_like(cos)
        return _rows((cos, -sin * self.aspect, zero), (sin / self.aspect, cos, zero))


class Similarity(_KeepsAngles):
    """Turn, scale and move: θ = [[1 + o₁, −o₂, o₃], [o₂, 1 + o₁, o₄]].

    The input is read at 1/s times the picture's size and turned by α, where s⁻¹ cos α = 1 + o₁ and
    s⁻¹ sin α = o₂: linear in the offsets, with no angle that could wind up.

    Args:
        aspect: H/W of the pictures. With 1, what is not square is sheared (chapter 3).
    """

    dof = 4

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        cos, sin, x, y = self._checked(offsets).unbind(-1)
        cos = 1 + cos
        return _rows((cos, -sin * self.aspect, x), (sin / self.aspect, cos, y))


class Affine(Transform):
    """All six numbers of θ, each an offset from the identity (the paper's eq. 1)."""

    dof = 6

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 2, 3)."""
        return _plus_identity(self._checked(offsets), 2, 3)


class Projective(Transform):
    """A homography: eight numbers of a 3×3 θ, whose last entry stays 1."""

    dof = 8

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 3, 3)."""
        return _plus_identity(F.pad(self._checked(offsets), (0, 1)), 3, 3)

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """See `grids.projective_grid`."""
        return projective_grid(theta, size)


class _ControlPoints(Transform):
    """θ is where each of k×k control points of the output reads; the offsets are its movements."""

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


class PiecewiseAffine(_ControlPoints):
    """A mesh of triangles between k×k control points, each triangle affine.

    Args:
        k: control points along each side, at least 2.
    """

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """See `grids.piecewise_affine_grid`."""
        return piecewise_affine_grid(theta, size)


class ThinPlateSpline(_ControlPoints):
    """The smoothest map through k×k control points; the paper's has k = 4.

    Args:
        k: control points along each side, at least 2.
    """

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """See `grids.thin_plate_spline_grid`."""
        return thin_plate_spline_grid(theta, size)


class Affine3d(Transform):
    """All twelve numbers of a volume's θ, each an offset from the identity."""

    dof = 12
    axes = 3

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 3, 4); rows and columns in the order x, y, z."""
        return _plus_identity(self._checked(offsets), 3, 4)


# --- Localisation nets: from the input to features ---


class FullyConnectedLocalisation(nn.Sequential):
    """The paper's localisation net of its fully connected models: flatten, then dense layers.

    Args:
        inputs: numbers in one input: C·H·W.
        widths: units of each layer. The paper has three layers; 32 units each is how we understand
            its appendix.
    """

    def __init__(self, inputs: int, widths: Sequence[int] = (32, 32, 32)) -> None:
        if not widths:
            raise ValueError("widths must name at least one layer, but none was given")
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(*layers)
        self.features = inputs
        """How many numbers it gives for each input."""


class ConvolutionalLocalisation(nn.Sequential):
    """The paper's localisation net of its convolutional models, on the input at half its size.

    Average-pool 2, convolution 5×5, max-pool 2, convolution 5×5, one dense layer (the paper's
    appendix as a secondary source tells it).

    Args:
        channels: C of the input.
        size: (H, W) of the input, at least (28, 28).
        filters: of each convolution.
        features: units of the dense layer.
    """

    def __init__(self, channels: int, size: Size, *, filters: int = 20, features: int = 20) -> None:
        height, width = ((side // 2 - 4) // 2 - 4 for side in check_size(size))
        if min(height, width) < 1:
            raise ValueError(f"size must be at least (28, 28), but {tuple(size)} was given")
        super().__init__(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, filters, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(filters, filters, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(filters * height * width, features),
            nn.ReLU(),
        )
        self.features = features
        """How many numbers it gives for each input."""


class SharedLocalisation(nn.Sequential):
    """A localisation net on top of the classifier's own first layers (Finnveden et al. 2020).

    The input itself is transformed, and the layers run twice: here, on what comes in, and in the
    classifier, on what was straightened. They are the same module, so both runs train them.

    Args:
        layers: the layers to share, by reference.
        shape: (C, H, W) of the input, or (C, D, H, W) of a volume.
        features: units of the dense layer that follows them.
    """

    def __init__(self, layers: nn.Module, shape: Sequence[int], features: int = 32) -> None:
        shape = check_input_shape(shape)
        like = next(layers.parameters(), torch.empty(0))
        modes = [(module, module.training) for module in layers.modules()]
        # In evaluation mode, so that the trial leaves no trace in a batch norm's statistics.
        try:
            with torch.no_grad():
                count = layers.eval()(like.new_zeros(1, *shape)).numel()
        finally:  # each its own: a part may have been set to evaluation for good
            for module, mode in modes:
                module.training = mode
        super().__init__(layers, nn.Flatten(), nn.Linear(count, features), nn.ReLU())
        self.features = features
        """How many numbers it gives for each input."""


# --- The module ---


class SpatialTransformer(nn.Module):
    """Look at U, choose a θ, and return U seen through it.

    `localisation` makes features of U, a last linear layer turns them into the transform's offsets,
    `transform` makes θ and the sampling grid of them, and `grid_sample` reads U there. The last
    layer starts with zero weights and biases, so that a new module returns U unchanged (when the
    sizes agree), whatever the localisation net says.

    θ maps output to input, in normalised coordinates, `align_corners=False`. The grid is computed
    in float32 at least and outside autocast, then used to read U; V has U's dtype.

    Args:
        localisation: any module that takes U, shape (N, C, H, W), or (N, C, D, H, W) for a volume,
            and returns (N, features).
        features: the number of features that `localisation` returns.
        transform: what maps to choose from; `Affine()` when left out.
        size: (H', W') of the output, or (D', H', W'); U's own when left out.
        mode: `"bilinear"` (of a volume: trilinear), `"nearest"` (no gradient reaches θ) or, for
            pictures, `"bicubic"`.
        padding: `"zeros"`, `"border"` or `"reflection"`.

    Example:
        >>> look = SpatialTransformer(FullyConnectedLocalisation(784), 32, ThinPlateSpline(4))
        >>> look(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 1, 28, 28])
    """

    def __init__(
        self,
        localisation: nn.Module,
        features: int,
        transform: Transform | None = None,
        *,
        size: Size | None = None,
        mode: str = "bilinear",
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        transform = Affine() if transform is None else transform
        if not isinstance(transform, Transform):
            given = transform.__name__ if isinstance(transform, type) else type(transform).__name__
            raise TypeError(
                f"transform must be a Transform object, as Affine() is, but {given} was given"
            )
        check_choice("mode", mode, MODES if transform.axes == 2 else ("nearest", "bilinear"))
        check_choice("padding", padding, PADDINGS)
        self.localisation = localisation
        self.regression = nn.Linear(features, transform.dof)
        nn.init.zeros_(self.regression.weight)
        nn.init.zeros_(self.regression.bias)
        self.transform = transform
        check = check_size if transform.axes == 2 else check_volume_size
        self.size = None if size is None else check(size)
        self.mode = mode
        self.padding = padding

    def extra_repr(self) -> str:
        """Show the settings that are not modules."""
        return f"size={self.size}, mode={self.mode!r}, padding={self.padding!r}"

    def theta(self, U: Tensor) -> Tensor:
        """θ for each input, as the transform gives it, float32 at least: (N, 2, 3) when affine."""
        if self.transform.axes == 2:
            check_picture(U)
        else:
            check_volume(U)
        features = self.localisation(U)
        expected = (U.shape[0], self.regression.in_features)
        if not isinstance(features, Tensor) or tuple(features.shape) != expected:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features)
            raise ValueError(
                f"localisation must return shape (N, features) = {expected}, but {shape} was given"
            )
        with without_autocast(U.device):
            # The last layer too: offsets rounded to bfloat16 read a third of a pixel off.
            dtype = torch.promote_types(features.dtype, self.regression.weight.dtype)
            offsets = self.regression(features.to(dtype))
            # Widened before the identity is added: in bfloat16, 1 + 0.001 is 1.
            return self.transform.theta(offsets.to(at_least_float32(offsets.dtype)))

    def grid(self, theta: Tensor, size: Size) -> Tensor:
        """θ's sampling grid for an output of that size, checked: (N, H, W, 2), or of a volume."""
        with without_autocast(theta.device):
            grid = self.transform.grid(theta, size)
        check_floating("the transform's grid", grid)
        # Put into words only when it is wrong: words would fix the sizes of a dynamic export.
        expected = (theta.shape[0], *size, self.transform.axes)
        if tuple(grid.shape) != expected:
            raise ValueError(
                f"the transform's grid must have shape {expected}, "
                f"but shape {tuple(grid.shape)} was given"
            )
        return grid

    def forward(self, U: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return V, shape (N, C, H', W'), in U's dtype; with `return_theta`, (V, θ)."""
        theta = self.theta(U)
        grid = self.grid(theta, U.shape[2:] if self.size is None else self.size)
        with without_autocast(U.device):
            wide = U.to(torch.promote_types(U.dtype, grid.dtype))
            V = F.grid_sample(
                wide, grid.to(wide.dtype), self.mode, self.padding, align_corners=False
            ).to(U.dtype)
        return (V, theta) if return_theta else V
