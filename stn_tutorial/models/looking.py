"""What a trained network looks at: Zeiler and Fergus's two instruments (chapter 15).

They take any classifier whose ReLUs are modules, with or without a transformer in it.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from stn_tutorial._checks import check_count, check_picture, is_whole, layer_named
from stn_tutorial.transformer import SpatialTransformer

__all__ = ["deconvnet", "occlusion_map"]


@torch.no_grad()
def occlusion_map(
    network: nn.Module,
    U: Tensor,
    classes: Tensor,
    side: int,
    stride: int = 1,
    *,
    fill: float = 0.0,
    batch_size: int = 256,
) -> Tensor:
    """Cover a square of each picture, everywhere in turn, and ask how sure the class still is.

    Zeiler and Fergus (2014): where the probability falls, the square hid what the network needs.
    Square (r, c) covers the pixels from (r · stride, c · stride) on; none hangs over the edge.

    Args:
        network: takes (N, C, H, W), returns a score for each class, (N, classes). It is judged in
            evaluation mode, and left in its own.
        U: the pictures, shape (N, C, H, W), floating, on the network's device.
        classes: whose probability to ask for, int64, shape (N,).
        side: of the square, in pixels.
        stride: pixels from one square to the next.
        fill: what the square holds; 0 is grey where a picture's mean was taken off.
        batch_size: pictures at a time.

    Raises:
        TypeError: U is not floating, or classes is not int64.
        ValueError: a wrong shape, a square larger than the picture, or a number below 1.

    Returns:
        The class's probability, float32, shape (N, rows, columns), where there are
        ⌊(H − side) / stride⌋ + 1 rows, and columns likewise.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(81, 2))
        >>> U = torch.rand(4, 1, 9, 9)
        >>> occlusion_map(network, U, torch.zeros(4, dtype=torch.int64), side=3, stride=2).shape
        torch.Size([4, 4, 4])
    """
    check_picture(U)
    side, stride = check_count("side", side), check_count("stride", stride)
    if not isinstance(classes, Tensor) or classes.dtype != torch.int64:
        given = classes.dtype if isinstance(classes, Tensor) else type(classes).__name__
        raise TypeError(f"classes must be an int64 tensor, but {given} was given")
    if classes.shape != U.shape[:1]:
        raise ValueError(
            f"classes must have shape ({len(U)},), one for each picture, "
            f"but shape {tuple(classes.shape)} was given"
        )
    H, W = U.shape[2:]
    if side > min(H, W):
        raise ValueError(f"side must be at most {min(H, W)}, the picture's, but {side} was given")
    tops, lefts = range(0, H - side + 1, stride), range(0, W - side + 1, stride)
    places = [(k, top, left) for k in range(len(U)) for top in tops for left in lefts]
    training = network.training
    network.eval()
    found = []
    for start in range(0, len(places), check_count("batch_size", batch_size)):
        some = places[start : start + batch_size]
        which = torch.tensor([k for k, _, _ in some], device=U.device)
        covered = U[which]
        for picture, (_, top, left) in zip(covered, some, strict=True):
            picture[:, top : top + side, left : left + side] = fill
        sure = network(covered).float().softmax(dim=1)
        found.append(sure.gather(1, classes[which, None])[:, 0])
    network.train(training)
    return torch.cat(found).view(len(U), len(tops), len(lefts))


class _Rectify(torch.autograd.Function):
    """ReLU on the way up; on the way down it rectifies what comes down, whatever went up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, down: Tensor) -> Tensor:
        return down.clamp(min=0)


class _DeconvnetReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Rectify.apply(x)


def deconvnet(network: nn.Module, U: Tensor, layer: str, channel: int) -> Tensor:
    """Show in the pixels what made a channel of a layer answer as strongly as it did.

    Zeiler and Fergus (2014): of the layer's output only the channel's strongest answer is kept, all
    else is set to 0, and the way back is gone to the picture. A max-pool puts each number where its
    maximum came from (the *switches*); a ReLU passes what is positive **on the way down**; a
    convolution is transposed. This is how it differs from the gradient, whose ReLU passes what was
    positive on the way up: all else is the same, and so it is computed as a gradient with another
    rule at the ReLUs, through any network. Batch norm, in evaluation mode, is a factor for each
    channel. A transformer is gone through as well, back to the picture as it came in, its θ held.

    Args:
        network: any whose ReLUs are `nn.ReLU` modules, as most of torchvision's (GoogLeNet and
            DenseNet call the function instead). It is not changed: the work is done on a copy.
        U: the pictures, shape (N, C, H, W), floating, on the network's device.
        layer: its name, as `network.named_modules()` has it; of output (N, channels, H', W').
        channel: which of the layer's channels.

    Raises:
        TypeError: U is not floating.
        ValueError: U has another shape; there is no such layer (the nearest is suggested) or
            channel; the layer did not run, or its output is no feature map; the network has no
            ReLU module.

    Returns:
        Of U's shape and dtype: the strongest answer, projected down; 0 where the picture had no
        part in it, and everywhere where the channel did not answer.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2))
        >>> deconvnet(network, torch.rand(4, 3, 16, 16), "2", channel=0).shape
        torch.Size([4, 3, 16, 16])
    """
    check_picture(U)
    layer_named(network, layer)
    network = copy.deepcopy(network).eval().requires_grad_(False)
    replaced = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, _DeconvnetReLU())
                replaced += 1
        if isinstance(parent, SpatialTransformer):  # θ is held
            parent.regression.register_forward_hook(lambda _m, _args, out: out.detach())
    if not replaced:
        raise ValueError(
            "network must have its ReLUs as nn.ReLU modules, but none was found: as functions "
            "their way back cannot be changed"
        )
    seen: list[Any] = []

    def keep(_module: nn.Module, _args: Any, out: Any) -> Any:
        # What follows may write into its input, so it is given a copy.
        seen.append(out)
        return out.clone() if isinstance(out, Tensor) else out

    layer_named(network, layer).register_forward_hook(keep)
    with torch.enable_grad():
        U = U.detach().requires_grad_()
        network(U)
        if not seen:
            raise ValueError(f"layer {layer!r} did not run")
        answers = seen[-1]
        if not isinstance(answers, Tensor) or answers.ndim != 4:
            shape = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
            raise ValueError(
                f"layer {layer!r} must give a feature map (N, C, H, W), but it gives {shape}"
            )
        if not is_whole(channel) or not 0 <= channel < answers.shape[1]:
            raise ValueError(
                f"channel must be from 0 to {answers.shape[1] - 1}, but {channel!r} was given"
            )
        strongest = answers[:, channel].flatten(1).max(dim=1).values
        # d(½a²) = a: the answer itself goes down, not a 1.
        half_square = (strongest.clamp(min=0).square() / 2).sum()
        return torch.autograd.grad(half_square, U)[0].detach()
