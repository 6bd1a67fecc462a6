"""`SpatialTransformer`: localisation net, transform and sampler in one module."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_floating,
    check_picture,
    check_size,
    check_volume,
    check_volume_size,
    without_autocast,
)
from stn_tutorial.transformer.reading import (
    Fill,
    check_fill,
    check_reading,
    oversampling,
    read,
)
from stn_tutorial.transformer.transforms import Affine, Transform

__all__ = ["SpatialTransformer"]


class _Regression(nn.Linear):
    """The last layer: at zero to begin with, and in float32 at least.

    In bfloat16 its offsets would read a third of a pixel off (of 224, at a turn by 20°).
    """

    def reset_parameters(self) -> None:
        """All zero: the identity."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Offsets of shape (N, dof)."""
        dtype = at_least_float32(features.dtype, self.weight.dtype)
        return F.linear(features.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class SpatialTransformer(nn.Module):
    """Look at U, choose a θ, and return U seen through it.

    `localisation` makes features of U, a last linear layer turns them into the transform's offsets,
    `transform` makes θ and the sampling grid of them, and `grid_sample` reads U there. The last
    layer starts with zero weights and biases, so that a new module returns U unchanged (when the
    sizes agree), whatever the localisation net says: bit for bit where the sides are powers of two,
    else to `grid_sample`'s rounding, for few other pixels' middles are numbers of a float.
    `reset_parameters` brings that back, and an initialiser given to `apply`, of this module or of a
    network that holds it, leaves a last layer alone that is still at zero.

    θ maps output to input, in normalised coordinates, `align_corners=False`. Last layer and grid
    are computed in float32 at least and outside autocast; V has U's dtype, and its channels last if
    U has. Nothing looks at values.

    Args:
        localisation: any module that takes U, shape (N, C, H, W), or (N, C, D, H, W) for a volume,
            and returns (N, features).
        features: the number of features that `localisation` returns; when left out, its own
            attribute `features` says it, as that of the package's localisation nets does.
        transform: what maps to choose from; `Affine()` when left out.
        size: (H', W') of the output, or (D', H', W'); U's own when left out.
        mode: `"bilinear"` (of a volume: trilinear), `"nearest"` (no gradient reaches θ) or, for
            pictures, `"bicubic"`.
        padding: `"zeros"`, `"border"` or `"reflection"`.
        fill: what lies outside U instead of zeros: a number, or one for each channel.
        antialias: average each output pixel over s×s positions of its own area (s×s×s in a volume),
            s = ⌈H/H'⌉ or ⌈W/W'⌉, whichever is more. Without it an output that is smaller than the
            region it reads skips pixels. It costs s² reads for one, and a picture of that size: 16
            pictures of 3×128×128 to 32×32 took 4.0 ms for 0.2 on one core of a CPU. Of a photograph
            read so, turned, 4 % of the error against its mean over the area was left; a pyramid of
            halved pictures cost 2.6 ms and left 38 %, and 59 % or more where a pixel's area was
            four times as high as wide. Never of `"nearest"`, whose labels have no mean.
        views: how many θ to choose for each input.

    Raises:
        TypeError: `transform` is no `Transform` object, or `features` is not known.
        ValueError: an unknown mode or padding, a size that is none, a fill beside another padding.

    Example:
        >>> import torch
        >>> from stn_tutorial.transformer import FullyConnectedLocalisation
        >>> from stn_tutorial.transformer import Rotation, ThinPlateSpline
        >>> look = SpatialTransformer(FullyConnectedLocalisation(784), transform=ThinPlateSpline(4))
        >>> look(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 1, 28, 28])

        Look at one tensor and warp another: here at features, at half the picture's size.

        >>> finder = FullyConnectedLocalisation((16, 14, 14))
        >>> look = SpatialTransformer(finder, transform=Rotation(), size=(20, 20))
        >>> picture, features = torch.rand(8, 3, 28, 28), torch.rand(8, 16, 14, 14)
        >>> theta = look.theta(features, picture.shape[2:])
        >>> look.sample(picture, theta).shape
        torch.Size([8, 3, 20, 20])

        A mask goes along, label by label; so do boxes, see `Transform.inverse_points`.

        >>> mask = torch.randint(0, 5, (8, 1, 28, 28))
        >>> look.sample(mask, theta, mode="nearest", fill=255).dtype
        torch.int64

        Several views of each picture, and back to pictures and views:

        >>> look = SpatialTransformer(FullyConnectedLocalisation(784), views=3)
        >>> views = look(torch.rand(8, 1, 28, 28))
        >>> views.shape, views.unflatten(0, (8, 3)).shape
        (torch.Size([24, 1, 28, 28]), torch.Size([8, 3, 1, 28, 28]))

        Video, (N, T, C, H, W): θ of each frame, or of a clip (the frames are channels of one
        picture, and share θ and its grid), or of two frames that follow each other, to warp the
        first.

        >>> video = torch.rand(2, 5, 3, 28, 28)
        >>> look = SpatialTransformer(FullyConnectedLocalisation(3 * 784))
        >>> look(video.flatten(0, 1)).unflatten(0, (2, 5)).shape
        torch.Size([2, 5, 3, 28, 28])
        >>> theta = look.theta(video.mean(dim=1))
        >>> look.sample(video.flatten(1, 2), theta).unflatten(1, (5, 3)).shape
        torch.Size([2, 5, 3, 28, 28])
        >>> look = SpatialTransformer(FullyConnectedLocalisation(6 * 784))
        >>> pairs = torch.cat([video[:, :-1], video[:, 1:]], dim=2).flatten(0, 1)
        >>> theta = look.theta(pairs)
        >>> look.sample(video[:, :-1].flatten(0, 1), theta).unflatten(0, (2, 4)).shape
        torch.Size([2, 4, 3, 28, 28])
    """

    def __init__(
        self,
        localisation: nn.Module,
        features: int | None = None,
        transform: Transform | None = None,
        *,
        size: Size | None = None,
        mode: str = "bilinear",
        padding: str = "zeros",
        fill: Fill = None,
        antialias: bool = False,
        views: int = 1,
    ) -> None:
        super().__init__()
        transform = Affine() if transform is None else transform
        if not isinstance(transform, Transform):
            given = transform.__name__ if isinstance(transform, type) else type(transform).__name__
            raise TypeError(
                f"transform must be a Transform object, as Affine() is, but {given} was given"
            )
        check_reading(mode, padding, transform.axes)
        if not isinstance(views, int) or isinstance(views, bool) or views < 1:
            raise ValueError(f"views must be a whole number, 1 or more, but {views!r} was given")
        self.localisation = localisation
        self.regression = _Regression(features_of(localisation, features), views * transform.dof)
        self.transform = transform
        self.size = None if size is None else self._checked_size(size)
        self.mode = mode
        self.padding = padding
        self.fill = check_fill(fill, padding)
        self.antialias = antialias
        self.views = views

    def extra_repr(self) -> str:
        """Show the settings that are not modules."""
        words = f"size={self.size}, mode={self.mode!r}, padding={self.padding!r}"
        words += "" if self.fill is None else f", fill={self.fill}"
        words += ", antialias=True" if self.antialias else ""
        return words + ("" if self.views == 1 else f", views={self.views}")

    def reset_parameters(self) -> None:
        """Go back to the identity: the last layer's weights and biases are zero again."""
        self.regression.reset_parameters()

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Apply `fn` to all modules, as `nn.Module.apply` does; a start at the identity stays one.

        An initialiser would give the last layer weights like any other's, and the first θ would be
        at random. So a last layer that is all zero before is all zero afterwards. One that has
        learned is changed as `fn` likes; `reset_parameters` brings the identity back.
        """
        parameters = [p for p in self.regression.parameters() if not p.is_meta]
        fresh = bool(parameters) and not any(bool(p.detach().any()) for p in parameters)
        super().apply(fn)
        if fresh:
            self.reset_parameters()
        return self

    def theta(self, seen: Tensor, size: Size | None = None) -> Tensor:
        """Choose θ for each of the inputs that are seen.

        Args:
            seen: what the localisation net looks at: U itself, or, with `size`, anything that it
                takes (features, a pair of frames, a vector), N of them.
            size: (H, W) or (D, H, W) of what is going to be warped, of which a turn needs the
                shape; `seen`'s own when left out.

        Raises:
            ValueError: the localisation net returns another shape than (N, features).

        Returns:
            θ as the transform gives it, float32 at least: (N·views, 2, 3) when affine, each input's
            views one after the other.
        """
        if size is not None:
            size = self._checked_size(size)
        elif self.transform.axes == 2:
            check_picture(seen)
            size = seen.shape[2:]
        else:
            check_volume(seen)
            size = seen.shape[2:]
        features = self.localisation(seen)
        check_rows("localisation", features, seen.shape[0], self.regression.in_features)
        with without_autocast(seen.device):
            offsets = self.regression(features)
            # Widened before the identity is added: in bfloat16, 1 + 0.001 is 1.
            offsets = offsets.to(at_least_float32(offsets.dtype))
            if self.views != 1:
                offsets = offsets.reshape(seen.shape[0] * self.views, self.transform.dof)
            return self.transform.theta_of(offsets, size)

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

    def sample(
        self,
        U: Tensor,
        theta: Tensor,
        *,
        size: Size | None = None,
        mode: str | None = None,
        padding: str | None = None,
        fill: Fill = None,
    ) -> Tensor:
        """Return U seen through a θ, whatever θ was made of.

        What is left out is the module's own; with a padding of its own, its fill is left out too.

        Args:
            U: shape (N, C, H, W) or (N, C, D, H, W). With `mode="nearest"` of any dtype (a mask),
                else floating.
            theta: as `theta` gives it, one for each of U, or K for each, those of one input
                following one another.
            size: (H', W') or (D', H', W') of the output; else the module's, else U's own.
            mode: see the class.
            padding: see the class.
            fill: see the class.

        Raises:
            TypeError: a mask with another mode than `"nearest"`.
            ValueError: a wrong shape, or a number of θ that is no multiple of U's.

        Returns:
            V, shape (N·K, C, H', W') or (N·K, C, D', H', W'), in U's dtype.
        """
        axes = self.transform.axes
        if not isinstance(U, Tensor) or U.is_floating_point():
            (check_picture if axes == 2 else check_volume)(U)
        elif U.ndim != axes + 2:
            raise ValueError(f"U must have {axes + 2} axes, but shape {tuple(U.shape)} was given")
        if fill is None and padding is None:
            fill = self.fill
        mode, padding = mode or self.mode, padding or self.padding
        check_reading(mode, padding, axes)
        fill = check_fill(fill, padding)
        views = 1
        if theta.shape[0] != U.shape[0]:
            views, rest = divmod(theta.shape[0], max(U.shape[0], 1))
            if rest or not views:
                raise ValueError(
                    "theta must hold one for each of U, or K for each, "
                    f"but {theta.shape[0]} for {U.shape[0]} were given"
                )
        return self._read(U, theta, views, size, mode, padding, fill)

    def forward(self, U: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return V, shape (N·views, C, H', W'), in U's dtype; with `return_theta`, (V, θ)."""
        # Not by name only: `torch.onnx.export` by way of a trace gives each argument by its place,
        # and False as a tensor.
        if isinstance(return_theta, Tensor) and not torch.jit.is_tracing():
            raise TypeError(
                "return_theta must be True or False, but a Tensor was given; `sample` reads a "
                "second tensor through the θ of a first"
            )
        theta = self.theta(U)
        V = self._read(U, theta, self.views, None, self.mode, self.padding, self.fill)
        return (V, theta) if return_theta else V

    def _read(
        self,
        U: Tensor,
        theta: Tensor,
        views: int,
        size: Size | None,
        mode: str,
        padding: str,
        fill: Fill,
    ) -> Tensor:
        size = self.size if size is None else self._checked_size(size)
        size = U.shape[2:] if size is None else size
        factor = 1
        if self.antialias and mode != "nearest":
            factor = oversampling(U.shape[2:], size)
        grid = self.grid(theta, size if factor == 1 else tuple(factor * side for side in size))
        return read(U, grid, views, factor, mode, padding, fill)

    def _checked_size(self, size: Size) -> tuple[int, ...]:
        return (check_size if self.transform.axes == 2 else check_volume_size)(size)


def check_rows(name: str, features: object, count: int, width: int) -> None:
    """Raise unless what a localisation net has returned is of shape (count, width)."""
    expected = (count, width)
    if not isinstance(features, Tensor) or tuple(features.shape) != expected:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features)
        raise ValueError(
            f"{name} must return shape (N, features) = {expected}, but {shape} was given"
        )


def features_of(localisation: nn.Module, features: int | None) -> int:
    """The number given, or the one that the localisation net carries."""
    # A network of torchvision's carries its layers by this name.
    found = getattr(localisation, "features", None) if features is None else features
    if not isinstance(found, int) or isinstance(found, bool):
        given = "none was given" if features is None else f"{features!r} was given"
        raise TypeError(
            "features must be how many numbers the localisation net returns, unless that net has "
            f"an attribute `features` that says it, but {given}"
        )
    return found
