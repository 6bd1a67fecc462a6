"""A convolution whose training is faster on a CPU (chapters 10 and 11).

`Conv2d` is PyTorch's layer, with the same weights, names and initial values, and computes the same.
What differs is how, in two places where PyTorch's kernels for CPUs are slow:

- **The gradient towards an input of few channels.** A network that begins with a convolution never
  needs it; one with a spatial transformer before that convolution does, for θ learns from nothing
  else. PyTorch spreads its work over the channels of the result, of which a picture has one. Here
  one matrix product gives each output's share in each pixel of its window, and the shares are then
  added up where the windows overlap, in float32 at least.
- **bfloat16, channels last.** The windows are laid out as the rows of a matrix ("im2col": with the
  channels side by side, each row of a window is one piece of memory), so that the outputs, and the
  gradient towards the weight, are one matrix product each. The gradient towards the input is one
  product for each of its rows, with the weight written out as a banded matrix. No partial sum is
  rounded to bfloat16.

Everything else is PyTorch's own convolution: on any other device, without a gradient, and in other
layouts. The gradients are made of PyTorch's operations, so that they can be differentiated again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv2d"]

FEW = 4
"""As many input channels as a picture may have, with which the first way pays."""


def _own_gradients(grad: Tensor, x: Tensor, weight: Tensor, needed: list[bool]) -> list[Tensor]:
    """Return PyTorch's own gradients towards x, the weight and the bias, those that are needed."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needed
    )


def _rows(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (N, H, W, C), the channels side by side in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def _folded(grad: Tensor, weight: Tensor, size: torch.Size) -> Tensor:
    """Return the gradient towards the input: one matrix product, then overlapping windows added up.

    Args:
        grad: towards the output, (N, F, H', W').
        weight: (F, C, h, w).
        size: of the input, (N, C, H, W).
    """
    batch, channels, height, width = size
    filters, _, h, w = weight.shape
    rows, columns = grad.shape[2:]
    windows = _rows(grad).view(-1, filters)
    shares = weight.reshape(filters, -1).t() @ windows.t()
    shares = shares.view(channels, h, w, batch, rows, columns)
    # Added up in float32: of up to h·w shares, bfloat16 would lose the small ones. First along the
    # columns, then along the rows: h + w additions and not h·w.
    dtype = torch.promote_types(grad.dtype, torch.float32)
    tall = shares.new_zeros(channels, w, batch, height, columns, dtype=dtype)
    for k in range(h):
        tall[..., k : k + rows, :] += shares[:, k]
    result = shares.new_zeros(channels, batch, height, width, dtype=dtype)
    for k in range(w):
        result[..., k : k + columns] += tall[:, k]
    return result.transpose(0, 1).to(grad.dtype)


def _windows(x: Tensor, h: int, w: int) -> Tensor:
    """Return every window of (N, H, W, C) as a row: (N·H'·W', h·w·C)."""
    channels = x.shape[3]
    windows = x.unfold(1, h, 1).unfold(2, w, 1)  # (N, H', W', C, h, w), a view
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, h * w * channels)


def _banded(grad: Tensor, weight: Tensor, size: torch.Size) -> Tensor:
    """Return the gradient towards the input, each of its rows one matrix product.

    The arguments are those of `_folded`.
    """
    batch, channels, height, width = size
    filters, _, h, w = weight.shape
    rows, columns = grad.shape[2:]
    # What the outputs of one row give to the h rows of the input below, the last row first: one
    # block for each, from (W', F) to (W, C).
    band = weight.new_zeros(h, columns, filters, width, channels)
    flipped = weight.permute(2, 0, 3, 1).flip(0)
    for k in range(columns):
        band[:, k, :, k : k + w] = flipped
    length = columns * filters
    band = band.view(h * length, width * channels)
    grad = _rows(grad).view(batch, rows * length)
    result = []
    for y in range(height):
        first, last = max(0, y - h + 1), min(rows - 1, y)  # the rows of outputs that see row y
        start = h - 1 - y + first
        blocks = band[start * length : (start + last - first + 1) * length]
        result.append(grad[:, first * length : (last + 1) * length] @ blocks)
    return torch.stack(result, dim=1).view(batch, height, width, channels).permute(0, 3, 1, 2)


class _FewChannels(torch.autograd.Function):
    """PyTorch's own convolution, with `_folded` for the gradient towards the input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = list(ctx.needs_input_grad)
        _, *others = _own_gradients(grad, x, weight, [False, *needed[1:]])
        return _folded(grad, weight, x.shape) if needed[0] else None, *others


class _ManyChannels(torch.autograd.Function):
    """A convolution as matrix products: for channels last, in bfloat16."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        filters, _, h, w = weight.shape
        batch, _, height, width = x.shape
        windows, matrix = _windows(_rows(x), h, w), _rows(weight).view(filters, -1).t()
        y = windows @ matrix if bias is None else torch.addmm(bias, windows, matrix)
        return y.view(batch, height - h + 1, width - w + 1, filters).permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = list(ctx.needs_input_grad)
        filters, channels, h, w = weight.shape
        towards: list[Tensor | None] = [None, None, None]
        if needed[0]:
            towards[0] = _banded(grad, weight, x.shape)
        flat = _rows(grad).view(-1, filters)
        if needed[1]:
            # Made once more: to keep them would take many times the memory of the input.
            products = flat.t() @ _windows(_rows(x), h, w)
            towards[1] = products.view(filters, h, w, channels).permute(0, 3, 1, 2)
        if needed[2]:
            towards[2] = flat.sum(dim=0)
        return tuple(towards)


class Conv2d(nn.Conv2d):
    """PyTorch's convolution of stride 1 without padding; on a CPU, faster to train.

    Values and gradients are PyTorch's up to rounding. The ways of this module are taken on a CPU
    when a gradient is recorded: the first one for inputs of up to four channels that need a
    gradient themselves, the second one for more channels, in bfloat16 (autocast's too) and channels
    last. They were measured on an AMD Zen 5 (`benchmarks/convolution.py`).

    Args:
        in_channels: C of the input, (N, C, H, W).
        out_channels: the filters.
        kernel_size: the side of the square windows.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H − kernel_size + 1, W − kernel_size + 1)."""
        weight, bias = self.weight, self.bias
        if x.device.type != "cpu" or not torch.is_grad_enabled() or x.ndim != 4:
            return super().forward(x)
        if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        if self.in_channels <= FEW:
            if x.requires_grad:
                return _FewChannels.apply(x, weight, bias)
        elif x.dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last):
            return _ManyChannels.apply(x, weight, bias)
        return super().forward(x)
