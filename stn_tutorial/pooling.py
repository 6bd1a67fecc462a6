r"""Max-pool, blur-pool, and how steady a class is under shifts (chapters 1 and 2).

*Convention.* Everything works on signals (N, C, L) and on pictures (N, C, H, W) alike, each channel
for itself, and keeps dtype and device. Entry i of a pooled signal stands for the entries from
i · stride on: the same places, and the same sizes, as `torch.nn.functional.max_pool1d` and
`max_pool2d` without padding.

Blur-pool is Zhang's (2019, *Making Convolutional Networks Shift-Invariant Again*, ICML): the
maximum at every place, a blur, and only then every second entry.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import check_choice, check_count, check_floating, check_picture

__all__ = ["PADDINGS", "MaxBlurPool", "agreement", "binomial", "blur", "shift", "shift_consistency"]

PADDINGS = {"border": "replicate", "circular": "circular"}
"""What lies beyond the ends, and PyTorch's name for it: the end goes on, or the signal wraps."""


def _check_signal(x: object, name: str = "x") -> None:
    """Raise unless `x` is a floating tensor (N, C, L) or (N, C, H, W) that is not empty."""
    check_floating(name, x)
    assert isinstance(x, Tensor)
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{name} must have shape (N, C, L) or (N, C, H, W), "
            f"but shape {tuple(x.shape)} was given"
        )
    if not torch.jit.is_tracing() and any(side == 0 for side in x.shape[2:]):
        raise ValueError(f"{name} must not be empty, but shape {tuple(x.shape)} was given")


def binomial(taps: int) -> list[float]:
    """Return a row of Pascal's triangle over its sum: 3 taps are ¼, ½, ¼. Exact in binary.

    Args:
        taps: how many weights, an odd number, so that one stands in the middle.

    Example:
        >>> binomial(3)
        [0.25, 0.5, 0.25]
    """
    taps = check_count("taps", taps)
    if taps % 2 == 0:
        raise ValueError(f"taps must be odd, but {taps} was given")
    row = [1]
    for _ in range(taps - 1):
        row = [left + right for left, right in zip([0, *row], [*row, 0], strict=True)]
    return [weight / 2 ** (taps - 1) for weight in row]


def blur(x: Tensor, taps: int = 3, padding: str = "border", *, stride: int = 1) -> Tensor:
    r"""Blur with binomial weights, along L or along H and W; with a stride, keep every so-many-th.

    Away from the ends, and everywhere with `"circular"`,
    out[i] = Σₖ wₖ x[i · stride + k − ⌊taps/2⌋], with `binomial(taps)` for w. The weights
    add up to 1, so a constant stays itself.

    Args:
        x: shape (N, C, L) or (N, C, H, W), any floating dtype.
        taps: odd; 1 does not blur.
        padding: what lies beyond the ends: `"border"` (the outermost entry goes on; Zhang's own
            code mirrors instead) or `"circular"` (the signal wraps round).
        stride: of the subsampling that follows; the entries 0, stride, 2 · stride, … are computed.

    Raises:
        TypeError: x is not a floating tensor.
        ValueError: a wrong shape, an even number of taps, an unknown padding, a stride below 1, or
            a side shorter than ⌊taps/2⌋ that shall wrap.

    Returns:
        Of x's dtype, each side ⌈side / stride⌉ long.

    Example:
        >>> blur(torch.tensor([[[0.0, 0, 4, 0, 0]]]))
        tensor([[[0., 1., 2., 1., 0.]]])
    """
    _check_signal(x)
    weights = binomial(taps)
    check_choice("padding", padding, tuple(PADDINGS))
    stride = check_count("stride", stride)
    reach = len(weights) // 2
    if padding == "circular" and min(x.shape[2:]) < reach:
        raise ValueError(
            f"x must be {reach} long at least to be wrapped under {taps} taps, "
            f"but shape {tuple(x.shape)} was given"
        )
    padded = F.pad(x, [reach, reach] * (x.ndim - 2), mode=PADDINGS[padding])
    for axis in range(2, x.ndim):
        # One axis after the other is the same, and less work. Slices and numbers rather than a
        # convolution: no tensor of weights has to be sent to a GPU.
        stop = x.shape[axis]
        windows = (_slice(padded, axis, k, k + stop, stride) for k in range(len(weights)))
        first, *others = (w * window for w, window in zip(weights, windows, strict=True))
        padded = sum(others, start=first)
    return padded


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


class MaxBlurPool(nn.Module):
    """Max-pool without (most of) the aliasing: the maximum at stride 1, a blur, a subsampling.

    In the place of `nn.MaxPool1d` or `nn.MaxPool2d`: it takes (N, C, L) and (N, C, H, W), any
    number of channels, has no parameters, and returns what they return in shape, ⌊(side − kernel) /
    stride⌋ + 1. With `padding="circular"` the windows of the maximum wrap round as well, and a side
    becomes ⌈side / stride⌉. Zhang (2019).

    Args:
        kernel: width of the maximum's window.
        stride: every so-many-th entry is kept.
        taps: of the blur, odd; 1 does not blur and gives the plain max-pool.
        padding: `"border"` or `"circular"`, see `blur`.

    Example:
        >>> MaxBlurPool()(torch.rand(8, 16, 28, 28)).shape
        torch.Size([8, 16, 14, 14])
    """

    def __init__(
        self, kernel: int = 2, stride: int = 2, taps: int = 3, padding: str = "border"
    ) -> None:
        super().__init__()
        check_choice("padding", padding, tuple(PADDINGS))
        self.kernel = check_count("kernel", kernel)
        self.stride = check_count("stride", stride)
        self.taps = len(binomial(taps))  # raises on a wrong number
        self.padding = padding

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"kernel={self.kernel}, stride={self.stride}, "
            f"taps={self.taps}, padding={self.padding!r}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x pooled, in x's dtype; for the shapes see the class."""
        _check_signal(x)
        axes = x.ndim - 2
        least = self.kernel - 1 if self.padding == "circular" else self.kernel
        if min(x.shape[2:]) < least:
            raise ValueError(
                f"x must be {least} long at least for a window of {self.kernel}, "
                f"but shape {tuple(x.shape)} was given"
            )
        if self.padding == "circular":
            x = F.pad(x, [0, self.kernel - 1] * axes, mode="circular")
        x = (F.max_pool1d if axes == 1 else F.max_pool2d)(x, self.kernel, stride=1)
        return blur(x, self.taps, self.padding, stride=self.stride)


# --- How steady is a class? ---


def shift(U: Tensor, right: int = 0, down: int = 0) -> Tensor:
    """Move pictures by whole pixels; what leaves is lost, and 0 comes in.

    Args:
        U: shape (N, C, H, W), any floating dtype.
        right: pixels, negative to the left.
        down: pixels, negative upwards.

    Returns:
        Of U's shape and dtype.

    Example:
        >>> shift(torch.tensor([[[[1.0, 2, 3]]]]), right=1)
        tensor([[[[0., 1., 2.]]]])
    """
    check_picture(U)
    H, W = U.shape[2:]
    right, down = max(-W, min(right, W)), max(-H, min(down, H))
    wide = F.pad(U, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return wide[:, :, top : top + H, left : left + W]


def agreement(classes: Tensor) -> float:
    r"""Return the probability that two views of a picture, drawn at random, get the same class.

    The two are drawn independently, all views equally likely, so that one may be drawn twice. With
    n_c of K views in class c that is Σ_c (n_c / K)² for one picture; the mean over the pictures is
    returned, from 1/K to 1.

    Args:
        classes: the class of each view of each picture, whole numbers, shape (K, N).

    Raises:
        TypeError: classes is not a tensor of whole numbers.
        ValueError: classes does not have shape (K, N), or is empty.

    Example:
        >>> agreement(torch.tensor([[7], [7], [1], [7]]))  # four views of one picture
        0.625
    """
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.is_complex():
        given = classes.dtype if isinstance(classes, Tensor) else type(classes).__name__
        raise TypeError(f"classes must be a tensor of whole numbers, but {given} was given")
    if classes.ndim != 2 or classes.numel() == 0:
        raise ValueError(
            f"classes must have shape (K, N), not empty, but {tuple(classes.shape)} was given"
        )
    # A view at a time: all pairs at once would take K² · N places.
    same = sum((classes == view).double().mean() for view in classes)
    return (same / len(classes)).item()


@torch.no_grad()
def shift_consistency(
    model: Callable[[Tensor], Tensor], images: Tensor, reach: int = 4, batch_size: int = 1000
) -> float:
    """Return the probability that two random shifts of a picture are given the same class.

    The shifts are all (2 · reach + 1)² moves by whole pixels of at most `reach` right or left and
    at most `reach` down or up, by `shift`; see `agreement` for how two of them are drawn. Zhang
    (2019) compares shifted crops of a larger photograph instead.

    Args:
        model: takes (N, C, H, W), returns a score for each class, (N, classes). A module is put
            into evaluation mode.
        images: shape (N, C, H, W), floating, on the model's device. Their margins ought to be
            empty, or else pictures are cut off.
        reach: the longest shift, in pixels.
        batch_size: images at a time.

    Returns:
        From 0 to 1, where 1 means that no shift ever changes the class.

    Example:
        >>> brightest = lambda U: U.flatten(1)  # a class for each pixel
        >>> shift_consistency(brightest, torch.eye(3)[None, None], reach=0)
        1.0
    """
    check_picture(images, "images")
    reach = check_count("reach", reach, 0)
    if isinstance(model, nn.Module):
        model.eval()
    moves = range(-reach, reach + 1)
    views = (shift(images, right, down) for down in moves for right in moves)
    classes = [
        torch.cat([model(part).argmax(dim=1) for part in view.split(batch_size)]) for view in views
    ]
    return agreement(torch.stack(classes))
