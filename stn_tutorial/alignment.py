r"""Pictures that are brought to agree, and laid over one another, without labels (chapter 17).

*Convention.* Boxes are (left, top, right, bottom), shape (N, 4), normalised: x to the right, y
**down**, −1 and 1 the outer edges of the picture. θ maps **output to input**, so that the box of a
θ is the part of the *input* that the output shows. Everything is differentiable, keeps dtype and
device, and looks at no value: NaN and infinities go through as arithmetic takes them.
"""

import math

import torch
from torch import Tensor

from stn_tutorial._checks import (
    check_picture,
    check_same_batch,
    check_same_device,
    check_shape,
    check_theta,
    same_or_one,
)

__all__ = ["box_of", "composite", "overlap", "stack_entropy", "triplet_hinge"]


def triplet_hinge(own: Tensor, other: Tensor, margin: float = 1.0) -> Tensor:
    r"""Return the paper's loss of co-localisation: of all ordered pairs n ≠ m, the mean of this.

    .. math:: \max(0,\ \|e_n - e_m\|^2 - \|e_n - r_n\|^2 + \text{margin})

    What picture n's window shows shall be nearer to what every other picture's window shows than to
    a window at random in picture n itself, and by a margin. (Jaderberg et al. 2015, appendix. The
    paper has the sum; the mean differs by the factor N(N − 1) and does not grow with N.)

    Args:
        own: e, the features of what the N windows show, (N, D).
        other: r, the features of one random window of each of the same pictures, (N, D).
        margin: the paper's is 1. Its meaning depends on the features' scale.

    Raises:
        TypeError: no floating tensors.
        ValueError: shapes that are not (N, D) and the same, or fewer than two pictures.

    Returns:
        A number, 0 or more; its gradient is 0 for each pair that keeps the margin.

    Example:
        >>> own = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> triplet_hinge(own, torch.tensor([[0.0, 0.0], [0.0, 3.0]]))  # 1 and 4 away from them
        tensor(0.)
        >>> triplet_hinge(own, own)  # no nearer to each other than to what is anywhere
        tensor(1.)
    """
    check_shape("own", own, "(N, D)", ndim=2)
    check_shape("other", other, "(N, D)", ndim=2)
    if own.shape != other.shape or own.shape[0] < 2:
        raise ValueError(
            "own and other must have the same shape (N, D), N from 2 on, "
            f"but {tuple(own.shape)} and {tuple(other.shape)} were given"
        )
    check_same_device(own=own, other=other)
    count = own.shape[0]
    # Differences, not squares and products: those cancel where features are near each other.
    between = (own[:, None] - own[None]).square().sum(dim=-1)
    away = (own - other).square().sum(dim=-1, keepdim=True)
    hinge = (between - away + margin).clamp(min=0)
    pairs = ~torch.eye(count, dtype=torch.bool, device=own.device)
    return hinge[pairs].mean()


def box_of(theta: Tensor) -> Tensor:
    """Return the box of the input that a window shows: the inverse of `affine.crop`.

    Of a θ that turns or shears, it is the upright box about the four corners.

    Args:
        theta: shape (N, 2, 3), output to input.

    Raises:
        TypeError: no floating tensor.
        ValueError: another shape.

    Returns:
        (left, top, right, bottom), normalised, shape (N, 4). They may lie outside the picture.

    Example:
        >>> box_of(torch.tensor([[[0.5, 0.0, 0.25], [0.0, 0.5, 0.0]]]))
        tensor([[-0.2500, -0.5000,  0.7500,  0.5000]])
    """
    check_theta(theta)
    # Over the square −1 … 1, ax + by is largest where both terms are positive.
    reach = theta[:, :, :2].abs().sum(dim=-1)
    middle = theta[:, :, 2]
    return torch.cat([middle - reach, middle + reach], dim=1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes, each with its partner: 0 apart, 1 the same.

    Any one unit will do, normalised or pixels, as long as both have it.

    Args:
        a: boxes (left, top, right, bottom), shape (N, 4).
        b: as many, or one for all, (1, 4).

    Raises:
        TypeError: no floating tensors.
        ValueError: another shape, or numbers of boxes that do not go together.

    Returns:
        Shape (N,). A box with right < left or bottom < top is empty; of two empty ones it is 0.

    Example:
        >>> overlap(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([0.3333])
    """
    check_shape("a", a, "(N, 4)", 4, ndim=2)
    check_shape("b", b, "(N, 4)", 4, ndim=2)
    if not same_or_one((a.shape[0], b.shape[0])):
        raise ValueError(
            "a and b must hold the same number of boxes, or one for all, "
            f"but {a.shape[0]} and {b.shape[0]} were given"
        )
    check_same_device(a=a, b=b)

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(dim=-1)

    both = area(torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:]))
    either = area(a[:, :2], a[:, 2:]) + area(b[:, :2], b[:, 2:]) - both
    return both / either.clamp(min=torch.finfo(either.dtype).tiny)


def composite(background: Tensor, foreground: Tensor, alpha: Tensor) -> Tensor:
    r"""Return a foreground laid over a background: :math:`\alpha F + (1 - \alpha) B`.

    Warp the foreground and its alpha by the same θ and lay them over a background that stays: the
    gradient then reaches θ by both. Where the sampler finds zeros outside the foreground, alpha is
    0 there and the background is seen. (Porter and Duff 1984, *over*, of an opaque background.)

    Args:
        background: B, shape (N, C, H, W).
        foreground: F, of the same shape.
        alpha: shape (N, 1, H, W) or (N, C, H, W), 0 where B is seen and 1 where F is.

    Raises:
        TypeError: no floating tensors.
        ValueError: shapes that do not go together.

    Returns:
        Shape (N, C, H, W): the background's own where alpha is 0, the foreground's where it is 1.

    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> composite(0 * one, one, 0.25 * one).item()
        0.25
    """
    for name, value in (("background", background), ("foreground", foreground), ("alpha", alpha)):
        check_picture(value, name)
    check_same_batch(background=background, foreground=foreground, alpha=alpha)
    check_same_device(background=background, foreground=foreground, alpha=alpha)
    if background.shape != foreground.shape or (
        alpha.shape[2:] != background.shape[2:] or alpha.shape[1] not in (1, background.shape[1])
    ):
        raise ValueError(
            "background and foreground must have one shape (N, C, H, W), and alpha (N, 1, H, W) or "
            f"the same, but {tuple(background.shape)}, {tuple(foreground.shape)} and "
            f"{tuple(alpha.shape)} were given"
        )
    # Not B + α(F − B), which need not give F back where α is 1.
    return alpha * foreground + (1 - alpha) * background


def stack_entropy(stack: Tensor) -> Tensor:
    r"""Return how little a stack of pictures agrees: the mean entropy of its pixels, in bits.

    Each pixel of the mean picture is read as the probability p that there is ink:

    .. math:: -p \log_2 p - (1 - p) \log_2 (1 - p)

    A pixel that is ink in all pictures, or in none, has 0; one that is ink in half of them has 1.
    (Congealing: Miller, Matsakis and Viola 2000.) Pictures that were warped until nothing is left
    of them agree, too: something else must keep them from that.

    Args:
        stack: shape (N, C, H, W), values from 0 to 1; what lies outside is clipped.

    Raises:
        TypeError: no floating tensor.
        ValueError: another shape, or no picture.

    Returns:
        A number, 0 to 1. Grey pixels add to it even where all pictures agree.

    Example:
        >>> ink = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
        >>> stack_entropy(ink), stack_entropy(ink[:1])
        (tensor(1.), tensor(0.))
    """
    check_picture(stack, "stack")
    if stack.shape[0] == 0:
        raise ValueError("stack must hold at least one picture, but none was given")
    p = stack.clamp(0, 1).mean(dim=0)
    # At 0 and 1 the entropy's slope is infinite; this far inside, it is finite, and the value 0.
    inside = torch.finfo(p.dtype).eps
    q = p.clamp(inside, 1 - inside)
    bits = -(q * q.log() + (1 - q) * (1 - q).log()) / math.log(2)
    return torch.where(p == q, bits, 0.0).mean()
