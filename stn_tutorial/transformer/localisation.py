"""Localisation nets: from the input, of any size, to features."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import Size, check_input_shape, check_size

__all__ = ["ConvolutionalLocalisation", "FullyConnectedLocalisation", "SharedLocalisation"]


class _PooledTo(nn.Module):
    """Average-pool to one size, whatever comes in; what has that size already is left alone.

    Args:
        size: (H, W) or (D, H, W) of what goes out.
        halves: a size that comes in and is pooled by 2, its odd last row and column left out.
    """

    def __init__(self, size: Sequence[int], halves: Sequence[int] | None = None) -> None:
        super().__init__()
        self.size = tuple(size)
        self.halves = None if halves is None else tuple(halves)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"size={self.size}"

    def forward(self, U: Tensor) -> Tensor:
        """Shape (N, C, *size)."""
        sides = tuple(U.shape[2:])
        if sides == self.size:
            return U
        if sides == self.halves:
            return F.avg_pool2d(U, 2)
        if len(sides) != len(self.size):
            raise ValueError(
                f"U must have {len(self.size)} axes after its channels, "
                f"but shape {tuple(U.shape)} was given"
            )
        if len(sides) == 2:
            return F.adaptive_avg_pool2d(U, (self.size[0], self.size[1]))
        return F.adaptive_avg_pool3d(U, (self.size[0], self.size[1], self.size[2]))


class FullyConnectedLocalisation(nn.Sequential):
    """The paper's localisation net of its fully connected models: flatten, then dense layers.

    Args:
        inputs: numbers in one input, C·H·W; or its shape, (C, H, W) or (C, D, H, W), and then
            inputs of any other size may come too, which are average-pooled to it (or, where they
            are smaller, repeated).
        widths: units of each layer. The paper has three layers; 32 units each is how we understand
            its appendix.

    Example:
        >>> look = FullyConnectedLocalisation((1, 28, 28))
        >>> look(torch.rand(8, 1, 28, 28)).shape, look(torch.rand(8, 1, 40, 60)).shape
        (torch.Size([8, 32]), torch.Size([8, 32]))
    """

    def __init__(self, inputs: int | Sequence[int], widths: Sequence[int] = (32, 32, 32)) -> None:
        if not widths:
            raise ValueError("widths must name at least one layer, but none was given")
        layers: list[nn.Module] = [nn.Flatten()]
        if isinstance(inputs, Sequence):
            shape = check_input_shape(inputs, "inputs")
            layers = [nn.Sequential(_PooledTo(shape[1:]), nn.Flatten())]
            inputs = math.prod(shape)
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        super().__init__(*layers)
        self.features = inputs
        """How many numbers it gives for each input."""


class ConvolutionalLocalisation(nn.Sequential):
    """The paper's localisation net of its convolutional models, on the input at half its size.

    Average-pool 2, convolution 5×5, max-pool 2, convolution 5×5, one dense layer (the paper's
    appendix as a secondary source tells it). An input of another size than `size` is average-pooled
    to half of `size` instead, so that any may come; a smaller one is repeated.

    Args:
        channels: C of the input.
        size: (H, W) of the input, at least (28, 28): the larger, the more of it is seen.
        filters: of each convolution.
        features: units of the dense layer.

    Example:
        >>> ConvolutionalLocalisation(3)(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 20])
    """

    def __init__(
        self, channels: int, size: Size = (28, 28), *, filters: int = 20, features: int = 20
    ) -> None:
        whole = check_size(size)
        half = [side // 2 for side in whole]
        height, width = ((side - 4) // 2 - 4 for side in half)
        if min(height, width) < 1:
            raise ValueError(f"size must be at least (28, 28), but {tuple(size)} was given")
        super().__init__(
            _PooledTo(half, halves=whole),
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
    classifier, on what was straightened. They are the same module, so both runs train them. Inputs
    of any size may come that the layers take: what they make of it is average-pooled to what they
    make of `shape`.

    Args:
        layers: the layers to share, by reference.
        shape: (C, H, W) of the input, or (C, D, H, W) of a volume.
        features: units of the dense layer that follows them.

    Example:
        >>> first = torch.nn.Conv2d(3, 16, 5)
        >>> SharedLocalisation(first, (3, 28, 28))(torch.rand(8, 3, 28, 28)).shape
        torch.Size([8, 32])
    """

    def __init__(self, layers: nn.Module, shape: Sequence[int], features: int = 32) -> None:
        shape = check_input_shape(shape)
        like = next(layers.parameters(), torch.empty(0))
        modes = [(module, module.training) for module in layers.modules()]
        # In evaluation mode, so that the trial leaves no trace in a batch norm's statistics.
        try:
            with torch.no_grad():
                made = layers.eval()(like.new_zeros(1, *shape)).shape
        finally:  # each its own: a part may have been set to evaluation for good
            for module, mode in modes:
                module.training = mode
        flat: nn.Module = nn.Flatten()
        if len(made) > 3:
            flat = nn.Sequential(_PooledTo(made[2:]), flat)
        super().__init__(layers, flat, nn.Linear(made.numel(), features), nn.ReLU())
        self.features = features
        """How many numbers it gives for each input."""
