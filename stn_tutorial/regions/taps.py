"""Deformable convolution: a sampling grid for every tap."""

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import (
    at_least_float32,
    check_count,
    check_picture,
    check_same_batch,
    check_same_device,
    check_shape,
    without_autocast,
)

__all__ = ["deformable_convolution"]


def deformable_convolution(
    U: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Convolve, with every tap moved by an offset of its own at every place (Dai et al. 2017).

    .. math:: V(p) = \sum_k w_k \, m_k(p) \, U(p + p_k + \Delta p_k(p))

    U between its pixels is read bilinearly, 0 outside. All offsets zero give the convolution. The
    result of `torchvision.ops.deform_conv2d` with one group of offsets. An offset that is NaN or
    infinite makes its tap read 0.

    Args:
        U: pictures, shape (N, C, H, W).
        offsets: in pixels, (y, x) of each tap in turn, shape (N, 2·kh·kw, H', W').
        weight: shape (O, C, kh, kw).
        bias: shape (O,), or none.
        stride: as in a convolution, as are `padding` and `dilation`.
        padding: zeros on each side.
        dilation: the distance of the taps.
        mask: how much each tap counts, shape (N, kh·kw, H', W'); 1 when left out (Zhu et al. 2019).

    Raises:
        TypeError: an argument is no floating tensor.
        ValueError: shapes that do not fit, or devices that differ.

    Returns:
        V of shape (N, O, H', W'), in U's dtype; differentiable in all five.

    Example:
        >>> U, weight = torch.rand(1, 2, 6, 6), torch.rand(4, 2, 3, 3)
        >>> still = torch.zeros(1, 18, 4, 4)
        >>> V = deformable_convolution(U, still, weight)
        >>> torch.allclose(V, torch.nn.functional.conv2d(U, weight))
        True
    """
    check_picture(U)
    check_shape("weight", weight, "(O, C, kh, kw)", ndim=4)
    stride, dilation = check_count("stride", stride), check_count("dilation", dilation)
    padding = check_count("padding", padding, 0)
    N, C, H, W = U.shape
    outputs, inputs, kh, kw = weight.shape
    if inputs != C:
        raise ValueError(f"weight must have {C} input channels, but {inputs} were given")
    out_h = (H + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    out_w = (W + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    taps = kh * kw
    check_shape("offsets", offsets, f"(N, {2 * taps}, {out_h}, {out_w})",
                2 * taps, out_h, out_w, ndim=4)  # fmt: skip
    check_same_batch(U=U, offsets=offsets)
    others = {"weight": weight, "offsets": offsets}
    if mask is not None:
        check_shape("mask", mask, f"(N, {taps}, {out_h}, {out_w})", taps, out_h, out_w, ndim=4)
        check_same_batch(U=U, mask=mask)
        others["mask"] = mask
    if bias is not None:
        check_shape("bias", bias, f"({outputs},)", outputs, ndim=1)
        others["bias"] = bias
    check_same_device(U=U, **others)

    dtype = at_least_float32(U.dtype, offsets.dtype)
    with without_autocast(U.device):
        move = offsets.to(dtype).unflatten(1, (taps, 2))
        move = torch.where(move.isfinite().all(dim=2, keepdim=True), move, -9.0 * (H + W))
        whole = torch.arange(max(out_h, out_w, taps), device=U.device)
        row = stride * whole[:out_h, None] - padding
        column = stride * whole[:out_w] - padding
        tap_y = (dilation * (whole[:taps] // kw))[:, None, None]
        tap_x = (dilation * (whole[:taps] % kw))[:, None, None]
        y = (row + tap_y) + move[:, :, 0]
        x = (column + tap_x) + move[:, :, 1]
        # From two pixels outside on, a tent reads nothing.
        y, x = y.clamp(-2, H + 1), x.clamp(-2, W + 1)
        grid = torch.stack([(2 * x + 1) / W - 1, (2 * y + 1) / H - 1], dim=-1)
        read = F.grid_sample(U.to(dtype), grid.flatten(1, 2), align_corners=False)
        read = read.unflatten(2, (taps, out_h))
        if mask is not None:
            read = read * mask.to(dtype)[:, None]
        V = torch.einsum("nckhw,ock->nohw", read, weight.to(dtype).flatten(2))
        if bias is not None:
            V = V + bias.to(dtype)[:, None, None]
    return V.to(U.dtype)
