"""Several transformers at once: side by side, or one after the other (chapters 12 to 14)."""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from stn_tutorial._checks import (
    Size,
    check_choice,
    check_count,
    check_floating,
    check_picture,
    check_shape,
    check_size,
    check_volume,
    check_volume_size,
    without_autocast,
)
from stn_tutorial.affine import crop
from stn_tutorial.transformer.module import SpatialTransformer, check_rows, features_of
from stn_tutorial.transformer.reading import Fill, check_fill, check_reading, oversampling, read
from stn_tutorial.transformer.transforms import Transform, chained_grid

__all__ = ["ParallelTransformer", "SeriesTransformer", "crowding", "tiling"]


def tiling(count: int, side: float | None = None) -> Tensor:
    """Return the θ of windows that tile the picture: a start for transformers side by side.

    The windows stand in rows, as square as can be; a last row that holds fewer is made of wider
    ones. θ maps output to input; θ[k] is `affine.crop` of window k, counted row by row.

    Args:
        count: how many windows, 1 or more.
        side: of each window, as a share of the picture's, above 0: square windows about the middle
            of each tile (which may overlap, or leave something out). The tiles themselves when left
            out.

    Raises:
        ValueError: `count` is no whole number above 0, or `side` no number above 0.

    Returns:
        θ of shape (count, 2, 3), float32.

    Example:
        >>> tiling(2)  # the left half, and the right one
        tensor([[[ 0.5000,  0.0000, -0.5000],
                 [ 0.0000,  1.0000,  0.0000]],
        <BLANKLINE>
                [[ 0.5000,  0.0000,  0.5000],
                 [ 0.0000,  1.0000,  0.0000]]])
        >>> tiling(4, side=0.5).shape
        torch.Size([4, 2, 3])
    """
    count = check_count("count", count)
    if side is not None and not (isinstance(side, int | float) and 0 < side < math.inf):
        raise ValueError(f"side must be a share of the picture's, above 0, but {side!r} was given")
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    boxes = []
    for row in range(rows):
        here = min(columns, count - row * columns)
        for column in range(here):
            x, y = (2 * column + 1) / here - 1, (2 * row + 1) / rows - 1
            half_x, half_y = (1 / here, 1 / rows) if side is None else (side, side)
            boxes.append((x - half_x, y - half_y, x + half_x, y + half_y))
    return crop(torch.tensor(boxes))


def crowding(centres: Tensor, distance: float) -> Tensor:
    """Return how much several windows crowd: a penalty to be added to a loss.

    The mean, over all pictures and all pairs of their windows, of (1 − d²/`distance`²)² where the
    centres' distance d is below `distance`, and 0 where it is not. It is smooth; of two centres in
    exactly one place it is 1, and its gradient there is *zero*: nothing says to which side they
    should part. So it keeps windows apart, and does not part those that start as one: `tiling`
    does.

    Args:
        centres: as `ParallelTransformer.centres` gives them, (N, K, 2), or (N, K, 3) of volumes.
        distance: from which on windows do not mind each other, in normalised units, above 0.

    Raises:
        ValueError: another shape, or a distance that is not above 0.

    Returns:
        A number, 0 to 1, in the centres' dtype; 0 of a single window, or of no picture.

    Example:
        >>> crowding(torch.tensor([[[0.0, 0.0], [0.5, 0.0]]]), 1.0)  # (1 − ¼)²
        tensor(0.5625)
    """
    check_shape("centres", centres, "(N, K, axes)", ndim=3)
    if not (isinstance(distance, int | float) and 0 < distance < math.inf):
        raise ValueError(f"distance must be a number above 0, but {distance!r} was given")
    count = centres.shape[1]
    pairs = count * (count - 1) // 2 * centres.shape[0]
    squares = (centres[:, :, None] - centres[:, None]).square().sum(dim=-1)
    near = (1 - squares / distance**2).clamp(min=0).square()
    return near.triu(diagonal=1).sum() / max(pairs, 1)


def _offsets_for(transform: Transform, theta: Tensor) -> Tensor:
    """Return the offsets with which a transform maps as an affine θ does, (dof,), in float64.

    By Gauss and Newton's method on 5 points along each axis: of a family that is linear in its
    offsets, as most are, the first step is the last. `ValueError` where the family has no such map.
    """
    axes = transform.axes
    check_shape("start", theta, f"(count, {axes}, {axes + 1})", axes, axes + 1, ndim=2)
    line = torch.linspace(-1, 1, 5, dtype=torch.float64)
    at = torch.cartesian_prod(*[line] * axes)
    wanted = at @ theta[:, :-1].double().T + theta[:, -1].double()
    size = (8,) * axes

    def off(offsets: Tensor) -> Tensor:
        own = transform.theta_of(offsets[None], size)
        return (transform.points(own, at, size)[0] - wanted).flatten()

    offsets = torch.zeros(transform.dof, dtype=torch.float64)
    with torch.enable_grad():
        for _ in range(20):
            slopes = torch.autograd.functional.jacobian(off, offsets)
            step = torch.linalg.lstsq(slopes, -off(offsets)[:, None], driver="gelsd").solution[:, 0]
            offsets = offsets + step.detach()
            if step.abs().max() < 1e-12:
                break
    left = off(offsets).abs().max().item()
    if not left < 1e-6:
        raise ValueError(
            f"start must be windows that a {type(transform).__name__} can show, but the nearest "
            f"that it can is {left:.2g} beside one of them, in normalised units"
        )
    return offsets.detach()


class ParallelTransformer(nn.Module):
    """Several transformers side by side: each chooses a θ of its own, and all read the same U.

    One transformer has one window, and can attend to one thing. K of them have K: here they all
    look at U before any of it is changed, and what they read is handed on together, as channels of
    one picture or as a stack of pictures.

    **Diversity.** With zero offsets all K start with the same window. Where what follows treats
    them alike (a stack whose descriptors are averaged, say) and one localisation net serves them
    all, they get the same gradient, and stay one window for ever; and where it does not, they part
    slowly. So give them a `start` of their own, as `tiling` makes it, and keep them apart by
    `crowding` of their `centres` where the loss does not.

    Each is a `SpatialTransformer`, in `transformers`, with all its conventions: θ maps output to
    input; last layer and grid in float32 at least; V has U's dtype; nothing looks at values. (A
    localisation net that serves all is in `localisation`, outside of them.)

    Args:
        localisation: one module for all, run once, or a sequence of K modules, one for each. Each
            takes the whole of U and returns (N, features).
        count: K, 1 or more.
        transform: one for all, or a sequence of K; `Affine()` when left out.
        features: how many numbers a localisation net returns; its own attribute when left out.
        channels: for each transformer the channels of U that it reads, such as `[(0,), (1,)]`; all
            of them when left out. (The localisation nets look at all of U in any case.)
        join: `"channels"`: one picture, (N, the sum of all C_k, H', W'), the first one's channels
            first; or `"stack"`: (N, K, C, H', W'), to be flattened to N·K pictures for a network
            that describes each.
        start: θ of K affine windows, (K, 2, 3), or (K, 3, 4) of volumes, where the transformers
            start; the identity when left out. The last layers' weights are zero in either case.
        size: as in `SpatialTransformer`.
        mode: as there.
        padding: as there.
        fill: as there; one number for each channel only where all channels are read.
        antialias: as there.

    Raises:
        TypeError: no `Transform`, or `features` is not known.
        ValueError: a sequence of another length than K, windows that a transform cannot show, an
            unknown way to join, transforms of pictures and of volumes together.

    Example:
        >>> finder = FullyConnectedLocalisation((2, 42, 42))
        >>> look = ParallelTransformer(finder, 2, start=tiling(2), size=(21, 21))
        >>> V, theta = look(torch.rand(8, 2, 42, 42), return_theta=True)
        >>> V.shape, len(theta), theta[0].shape
        (torch.Size([8, 4, 21, 21]), 2, torch.Size([8, 2, 3]))
        >>> look.centres(theta).shape
        torch.Size([8, 2, 2])

        Descriptors: each view through one network, and side by side.

        >>> look = ParallelTransformer(finder, 2, Attention(), start=tiling(2, 0.5), join="stack")
        >>> describe = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 42 * 42, 5))
        >>> views = look(torch.rand(8, 2, 42, 42))
        >>> describe(views.flatten(0, 1)).view(8, -1).shape
        torch.Size([8, 10])
    """

    def __init__(
        self,
        localisation: nn.Module | Sequence[nn.Module],
        count: int = 2,
        transform: Transform | Sequence[Transform] | None = None,
        *,
        features: int | None = None,
        channels: Sequence[Sequence[int]] | None = None,
        join: str = "channels",
        start: Tensor | None = None,
        size: Size | None = None,
        mode: str = "bilinear",
        padding: str = "zeros",
        fill: Fill = None,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.count = check_count("count", count)
        self.localisation: nn.Module | None = None
        if isinstance(localisation, nn.Module) and not isinstance(localisation, nn.ModuleList):
            # Run once, and so not inside any one of those that it serves.
            self.localisation = localisation
            features, nets = features_of(localisation, features), [nn.Identity()] * self.count
        else:
            nets = self._for_each("localisation", localisation, "Module")
        transforms = self._for_each("transform", transform, "Transform")
        check_choice("join", join, ("channels", "stack"))
        self.join = join
        self.channels = self._checked_channels(channels)
        looks = [
            SpatialTransformer(
                net, features, own, size=size, mode=mode, padding=padding, fill=fill,
                antialias=antialias,
            )
            for net, own in zip(nets, transforms, strict=True)
        ]  # fmt: skip
        if len({look.transform.axes for look in looks}) > 1:
            raise ValueError("transform must be of pictures or of volumes, but both were given")
        self.transformers = nn.ModuleList(looks)
        self._start = self._checked_start(start)
        self.reset_parameters()

    def _for_each(self, name: str, given: object, kind: str) -> list:
        """One for each transformer: K of a sequence, or K times the one that serves all."""
        if not isinstance(given, Sequence | nn.ModuleList) or isinstance(given, str):
            return [given] * self.count
        if len(given) != self.count:
            raise ValueError(
                f"{name} must be one {kind}, or {self.count} of them in a sequence, "
                f"but {len(given)} were given"
            )
        return list(given)

    def _checked_channels(
        self, channels: Sequence[Sequence[int]] | None
    ) -> tuple[tuple[int, ...], ...] | None:
        if channels is None:
            return None
        if len(channels) != self.count or not all(len(own) for own in channels):
            raise ValueError(
                f"channels must name one or more for each of {self.count} transformers, "
                f"but {channels!r} was given"
            )
        if self.join == "stack" and len({len(own) for own in channels}) > 1:
            raise ValueError(
                "channels must be as many for each transformer where views are stacked, "
                f"but {channels!r} was given"
            )
        return tuple(tuple(check_count("channels", c, 0) for c in own) for own in channels)

    def _checked_start(self, start: Tensor | None) -> list[Tensor] | None:
        if start is None:
            return None
        check_floating("start", start)
        axes = self._each[0].transform.axes
        if start.ndim != 3 or len(start) != self.count:
            raise ValueError(
                f"start must have shape ({self.count}, {axes}, {axes + 1}), "
                f"but shape {tuple(start.shape)} was given"
            )
        pairs = zip(self._each, start.detach().cpu(), strict=True)
        return [_offsets_for(look.transform, theta) for look, theta in pairs]

    @property
    def _each(self) -> list[SpatialTransformer]:
        return list(self.transformers)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Show the settings that are not modules."""
        words = f"count={self.count}, join={self.join!r}"
        return words + ("" if self.channels is None else f", channels={self.channels}")

    def reset_parameters(self) -> None:
        """Go back to the start: the last layers' weights are zero, and their biases its windows."""
        for k, look in enumerate(self._each):
            look.reset_parameters()
            if self._start is not None:
                with torch.no_grad():
                    look.regression.bias.copy_(self._start[k])

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Apply `fn` to all modules; transformers that are at their start stay there.

        See `SpatialTransformer.apply`: an initialiser would send the windows somewhere at random.
        """
        weights = [look.regression.weight for look in self._each]
        fresh = not any(w.is_meta or bool(w.detach().any()) for w in weights)
        super().apply(fn)
        if fresh:
            self.reset_parameters()
        return self

    def thetas(self, U: Tensor) -> list[Tensor]:
        """Choose each transformer's θ for U, (N, C, H, W): K tensors, float32 at least.

        Raises:
            ValueError: U has another shape, or a localisation net returns another.
        """
        (check_picture if self._each[0].transform.axes == 2 else check_volume)(U)
        if self.localisation is None:
            return [look.theta(U) for look in self._each]
        features = self.localisation(U)
        check_rows("localisation", features, U.shape[0], self._each[0].regression.in_features)
        return [look.theta(features, U.shape[2:]) for look in self._each]

    def centres(self, thetas: Sequence[Tensor]) -> Tensor:
        """Return where the middle of each window reads: (N, K, 2), or (N, K, 3) of volumes.

        Args:
            thetas: as `thetas` gives them, or `forward` with `return_theta`.
        """
        if len(thetas) != self.count:
            raise ValueError(f"thetas must be {self.count}, but {len(thetas)} were given")
        middles = []
        for look, theta in zip(self._each, thetas, strict=True):
            axes = look.transform.axes
            middle = theta.new_zeros(1, axes)
            size = (8,) * axes if look.size is None else look.size
            middles.append(look.transform.points(theta, middle, size))
        return torch.cat(middles, dim=1)

    def sample(self, U: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """Return U seen through K θ, joined, whatever they were made of.

        Args:
            U: shape (N, C, H, W) or (N, C, D, H, W).
            thetas: K, each as `thetas` gives it.
        """
        if len(thetas) != self.count:
            raise ValueError(f"thetas must be {self.count}, but {len(thetas)} were given")
        parts: list[Tensor] = [U] * self.count
        if self.channels is not None:
            most = max(max(own) for own in self.channels)
            if most >= U.shape[1]:
                raise ValueError(
                    f"U must have a channel {most}, which a transformer reads, "
                    f"but shape {tuple(U.shape)} was given"
                )
            parts = [U[:, list(own)] for own in self.channels]
        views = [
            look.sample(part, theta)
            for look, part, theta in zip(self._each, parts, thetas, strict=True)
        ]
        return torch.cat(views, dim=1) if self.join == "channels" else torch.stack(views, dim=1)

    def forward(
        self, U: Tensor, return_theta: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return all views of U, joined, in its dtype; with `return_theta`, (views, K θ)."""
        thetas = self.thetas(U)
        views = self.sample(U, thetas)
        return (views, thetas) if return_theta else views

    def grids(self, U: Tensor) -> list[Tensor]:
        """Return where each of them reads U: K grids, (N, H', W', 2)."""
        sides = U.shape[2:]
        pairs = zip(self._each, self.thetas(U), strict=True)
        return [look.grid(theta, look.size or sides) for look, theta in pairs]


class SeriesTransformer(nn.Module):
    """Several transformers one after the other, their θ composed, and U read once.

    Each step looks at what those before it have made of U, and chooses what is still to be done; so
    a large turn may be made of a coarse one and a fine one. Two `SpatialTransformer` in a row would
    do so too, but read what was read: each reading blurs, and what the first one has cut off, the
    second one cannot bring back. Here the maps are composed, as `Chain` composes them, and each
    picture is read from U itself (as in the inverse compositional networks of Lin and Lucey 2017).

    A step may come again: `SeriesTransformer([step] * 3)` has one set of weights, three times in
    use. All start at the identity.

    Args:
        steps: one or more `SpatialTransformer` without `views` and without a `size`. Of each the
            localisation net, the last layer and the transform are used; how the pictures are read
            is said here.
        size: (H', W') of the output, or (D', H', W'); U's own when left out. The localisation nets
            see pictures of U's size.
        mode: as in `SpatialTransformer`.
        padding: as there.
        fill: as there.
        antialias: as there; of the output.

    Raises:
        TypeError: a step is no `SpatialTransformer`.
        ValueError: no step, one with `views` or `size`, or pictures and volumes together.

    Example:
        >>> finder = FullyConnectedLocalisation((1, 28, 28))
        >>> step = SpatialTransformer(finder, transform=Rotation())
        >>> look = SeriesTransformer([step, step])
        >>> V, theta = look(torch.rand(8, 1, 28, 28), return_theta=True)
        >>> V.shape, len(theta), theta[0].shape
        (torch.Size([8, 1, 28, 28]), 2, torch.Size([8, 2, 3]))
    """

    def __init__(
        self,
        steps: Sequence[SpatialTransformer],
        *,
        size: Size | None = None,
        mode: str = "bilinear",
        padding: str = "zeros",
        fill: Fill = None,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        steps = list(steps)
        if not steps:
            raise ValueError("steps must be one SpatialTransformer or more, but none was given")
        for step in steps:
            if not isinstance(step, SpatialTransformer):
                raise TypeError(
                    f"steps must be SpatialTransformers, but a {type(step).__name__} was given"
                )
            if step.views != 1 or step.size is not None:
                raise ValueError(
                    "steps must have one view each and no size of their own, "
                    f"but views={step.views} and size={step.size} were given"
                )
        self.axes = steps[0].transform.axes
        if any(step.transform.axes != self.axes for step in steps):
            raise ValueError("steps must be of pictures or of volumes, but both were given")
        check_reading(mode, padding, self.axes)
        self.transformers = nn.ModuleList(steps)
        self.size = None if size is None else self._checked_size(size)
        self.mode, self.padding = mode, padding
        self.fill = check_fill(fill, padding)
        self.antialias = antialias

    @property
    def _each(self) -> list[SpatialTransformer]:
        return list(self.transformers)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Show the settings that are not modules."""
        words = f"size={self.size}, mode={self.mode!r}, padding={self.padding!r}"
        words += "" if self.fill is None else f", fill={self.fill}"
        return words + (", antialias=True" if self.antialias else "")

    def _checked_size(self, size: Size) -> tuple[int, ...]:
        return (check_size if self.axes == 2 else check_volume_size)(size)

    def thetas(self, U: Tensor) -> list[Tensor]:
        """Choose the steps' θ for U, the first step's first: float32 at least.

        Raises:
            ValueError: U has another shape, or a localisation net returns another.
        """
        (check_picture if self.axes == 2 else check_volume)(U)
        sides, seen = U.shape[2:], U
        thetas: list[Tensor] = []
        for number, step in enumerate(self._each):
            if number:
                seen = self.sample(U, thetas, size=sides)
            thetas.append(step.theta(seen, sides))
        return thetas

    def grid(self, thetas: Sequence[Tensor], size: Size) -> Tensor:
        """Return where the composed map of these θ reads: (N, H, W, 2), or of a volume.

        Args:
            thetas: one for each step, or for the first few of them.
            size: of the output.
        """
        if not 0 < len(thetas) <= len(self.transformers):
            raise ValueError(
                f"thetas must be 1 to {len(self.transformers)}, but {len(thetas)} were given"
            )
        transforms = [step.transform for step in self._each[: len(thetas)]]
        with without_autocast(thetas[0].device):
            return chained_grid(transforms, thetas, size)

    def sample(self, U: Tensor, thetas: Sequence[Tensor], *, size: Size | None = None) -> Tensor:
        """Return U seen through these θ, one after the other, read once.

        Args:
            U: shape (N, C, H, W) or (N, C, D, H, W).
            thetas: one for each step, or for the first few of them.
            size: of the output; the module's own, or U's, when left out.
        """
        (check_picture if self.axes == 2 else check_volume)(U)
        size = self.size if size is None else self._checked_size(size)
        sides = tuple(U.shape[2:]) if size is None else tuple(size)
        factor = 1
        if self.antialias and self.mode != "nearest":
            factor = oversampling(U.shape[2:], sides)
        grid = self.grid(thetas, sides if factor == 1 else tuple(factor * s for s in sides))
        return read(U, grid, 1, factor, self.mode, self.padding, self.fill)

    def forward(
        self, U: Tensor, return_theta: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return V, (N, C, H', W'), in U's dtype; with `return_theta`, (V, the steps' θ)."""
        thetas = self.thetas(U)
        V = self.sample(U, thetas)
        return (V, thetas) if return_theta else V

    def grids(self, U: Tensor) -> list[Tensor]:
        """Return where it reads U, in a list of one: (N, H', W', 2)."""
        return [self.grid(self.thetas(U), self.size or U.shape[2:])]
