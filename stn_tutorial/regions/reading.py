"""What detectors read of a box: R-CNN's warp, Fast R-CNN's RoIPool, Mask R-CNN's RoIAlign.

Positions are computed in the wider of the picture's and the boxes' dtypes, float32 at least, and
outside autocast. What boxes that are none give is said in the package's own words.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_count,
    check_floating,
    check_picture,
    check_same_device,
    check_shape,
    check_size,
    check_theta,
    without_autocast,
)
from stn_tutorial.grids import affine_grid
from stn_tutorial.regions.boxes import box_theta, check_boxes

__all__ = ["Boxes", "read_regions", "roi_align", "roi_pool", "roi_warp"]

Boxes = Tensor | Sequence[Tensor]
"""Boxes of a batch of N pictures, (left, top, right, bottom) in pixels: N tensors (Kₙ, 4), or one
tensor (K, 5) whose first column says which picture each lies in."""

AT_ONCE = 1 << 24
"""How many numbers `roi_pool` gathers at a time."""


def _boxes_and_pictures(boxes: Boxes, U: Tensor) -> tuple[Tensor, Tensor]:
    """Return all boxes, (K, 4), in the dtype of positions, and which picture each lies in, (K,)."""
    if isinstance(boxes, Tensor):
        check_shape("boxes", boxes, "(K, 5) with (picture, left, top, right, bottom)", 5, ndim=2)
        check_same_device(U=U, boxes=boxes)
        return boxes[:, 1:].to(at_least_float32(U.dtype, boxes.dtype)), boxes[:, 0].long()
    if not isinstance(boxes, Sequence) or len(boxes) != U.shape[0]:
        given = f"{len(boxes)}" if isinstance(boxes, Sequence) else f"a {type(boxes).__name__}"
        raise ValueError(
            f"boxes must be one tensor (K, 5), or a tensor (K, 4) for each of {U.shape[0]} "
            f"pictures, but {given} was given"
        )
    for number, one in enumerate(boxes):
        check_boxes(one, f"boxes[{number}]")
        check_same_device(**{"U": U, f"boxes[{number}]": one})
    dtype = at_least_float32(U.dtype, *(one.dtype for one in boxes))
    empty = torch.zeros(0, 4, dtype=dtype, device=U.device)
    every = torch.cat([empty, *(one.to(dtype) for one in boxes)])
    counts = torch.tensor([len(one) for one in boxes], device=U.device)
    return every, torch.repeat_interleave(counts, output_size=len(every))


def _groups(keys: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """For each different row of whole numbers: the row, and the places where it stands."""
    rows, place = keys.unique(dim=0, return_inverse=True)
    for number, row in enumerate(rows.tolist()):
        yield row, (place == number).nonzero()[:, 0]


def _put_back(parts: list[Tensor], places: list[Tensor], empty: Tensor) -> Tensor:
    """Join parts along the first axis, each row in the place that it came from."""
    if not parts:
        return empty
    return torch.cat(parts)[torch.cat(places).argsort()]


def read_regions(
    U: Tensor,
    theta: Tensor,
    of: Tensor,
    size: Size,
    samples: int | Tensor = 1,
) -> Tensor:
    """Read what each θ shows of its picture: regular grid, θ, bilinear sampling, average.

    Every output pixel is the mean of samples × samples positions in its own area. Differentiable in
    U and θ.

    Args:
        U: pictures, shape (N, C, H, W).
        theta: output to input, shape (K, 2, 3), whatever it does: an upright box, a turned one.
        of: which picture each θ looks at, whole numbers, shape (K,). Its values are looked at,
            which on a GPU waits for it.
        size: (H', W') of the output.
        samples: along each side of an output pixel; or for each θ and side, (rows, columns), whole
            numbers, shape (K, 2).

    Raises:
        TypeError: U or theta is not floating, or `of` is.
        ValueError: a wrong shape or count, or devices that differ.
        IndexError: `of` names a picture that U does not hold.

    Returns:
        V of shape (K, C, H', W'), in U's dtype.

    Example:
        >>> U = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> theta = box_theta(torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (4, 4))
        >>> read_regions(U, theta, torch.tensor([0]), (2, 2))
        tensor([[[[ 5.,  6.],
                  [ 9., 10.]]]])
    """
    check_picture(U)
    check_theta(theta)
    N, C, H, W = U.shape
    rows, columns = check_size(size)
    count = theta.shape[0]
    if not isinstance(of, Tensor) or of.dtype.is_floating_point or tuple(of.shape) != (count,):
        given = tuple(of.shape) if isinstance(of, Tensor) else type(of).__name__
        raise ValueError(f"of must be whole numbers of shape ({count},), but {given} was given")
    check_same_device(U=U, theta=theta, of=of)
    if isinstance(samples, Tensor):
        if tuple(samples.shape) != (count, 2):
            raise ValueError(
                f"samples must be a whole number or have shape ({count}, 2), "
                f"but shape {tuple(samples.shape)} was given"
            )
        keys = torch.cat([of[:, None], samples.to(of.dtype)], dim=1)
    else:
        each = check_count("samples", samples)
        keys = torch.stack([of, *2 * [torch.full_like(of, each)]], dim=1)

    dtype = at_least_float32(U.dtype, theta.dtype)
    parts, places = [], []
    with without_autocast(U.device):
        for (picture, down, across), place in _groups(keys):
            if not 0 <= picture < N:
                raise IndexError(f"of must be 0 to {N - 1}, but {picture} was given")
            grid = affine_grid(theta[place].to(dtype), (rows * down, columns * across))
            # All boxes of a picture, one below the other: U itself is never copied.
            V = _sample(U[picture, None].to(dtype), grid.flatten(0, 1)[None])
            V = F.avg_pool2d(V, (down, across)).reshape(C, len(place), rows, columns)
            parts.append(V.transpose(0, 1))
            places.append(place)
        return _put_back(parts, places, U.new_zeros(0, C, rows, columns, dtype=dtype)).to(U.dtype)


def _sample(U: Tensor, grid: Tensor) -> Tensor:
    """Read U, the edge going on for one pixel beyond the outer centres and 0 further out."""
    sides = grid.new_tensor([U.shape[3], U.shape[2]])
    pixels = ((grid.detach() + 1) * sides - 1) / 2
    # A position that is −1 or the side but for its rounding counts as inside.
    slack = 16 * torch.finfo(grid.dtype).eps * sides
    inside = ((pixels >= -1 - slack) & (pixels <= sides + slack)).all(dim=-1)
    # What is outside, or no number, reads the middle, and is thrown away.
    safe = torch.where(inside[..., None], grid, 0.0)
    V = F.grid_sample(U, safe, padding_mode="border", align_corners=False)
    return torch.where(inside[:, None], V, 0.0)


def roi_warp(
    U: Tensor, boxes: Boxes, size: Size, *, context: float = 0.0, samples: int = 1
) -> Tensor:
    """Stretch each box to one size, whatever its shape: R-CNN's warp (Girshick et al. 2014).

    Args:
        U: pictures, shape (N, C, H, W).
        boxes: see `Boxes`.
        size: (H', W') of the output.
        context: how many output pixels on each side show what lies around the box; R-CNN has 16 of
            227.
        samples: along each side of an output pixel, whose mean it is; 1 skips pixels of a box that
            is larger than the output.

    Raises:
        TypeError: U or the boxes are not floating.
        ValueError: a wrong shape or size, or context that leaves no room for the box.

    Returns:
        V of shape (K, C, H', W'), in U's dtype; differentiable in U and the boxes.

    Example:
        >>> U = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> roi_warp(U, [torch.tensor([[0.0, 0.0, 4.0, 2.0]])], (2, 2))
        tensor([[[[0.5000, 2.5000],
                  [4.5000, 6.5000]]]])
    """
    check_picture(U)
    rows, columns = check_size(size)
    if not 0 <= 2 * context < min(rows, columns):
        raise ValueError(
            f"context must be 0 or more and less than half of {(rows, columns)}, "
            f"but {context!r} was given"
        )
    edges, of = _boxes_and_pictures(boxes, U)
    low, high = edges[:, :2], edges[:, 2:]
    shown = edges.new_tensor([columns, rows])
    around = (high - low) * context / (shown - 2 * context)
    wider = torch.cat([low - around, high + around], dim=1)
    return read_regions(U, box_theta(wider, U.shape[2:]), of, (rows, columns), samples)


def roi_align(
    U: Tensor,
    boxes: Boxes,
    size: Size,
    scale: float = 1.0,
    *,
    sampling_ratio: int = -1,
    aligned: bool = True,
) -> Tensor:
    r"""Read each box without rounding: RoIAlign (He et al. 2017), a transformer whose θ is a box.

    The result of `torchvision.ops.roi_align`, and a gradient towards the box, which that does not
    give. Box times scale is a θ; each output pixel is the mean of s × s samples.

    With `aligned=False`, torchvision's default and that of the first detectors, everything is read
    half a pixel too far right and down, and a side is 1 at least.

    Args:
        U: feature maps, shape (N, C, H, W).
        boxes: see `Boxes`; in the picture's pixels.
        size: (H', W') of the output.
        scale: pixels of U for one of the picture: 1/16 for features of stride 16.
        sampling_ratio: s; 0 or less takes s = ⌈side / output's side⌉ for each box and axis, whose
            values are looked at. (An empty box then reads one point, and a reversed one is
            mirrored, where torchvision gives 0 or fails.)
        aligned: whether an edge at 0 is U's edge, or the centre of its first pixel.

    Raises:
        TypeError: U or the boxes are not floating.
        ValueError: a wrong shape, size or number of box tensors, or devices that differ.
        IndexError: a box lies in a picture that U does not hold.

    Returns:
        V of shape (K, C, H', W'), in U's dtype; differentiable in U and the boxes.

    Example:
        >>> U = torch.arange(25.0).reshape(1, 1, 5, 5)
        >>> box = torch.tensor([[1.0, 1.0, 3.0, 3.0]], requires_grad=True)
        >>> V = roi_align(U, [box], (2, 2))
        >>> V
        tensor([[[[ 6.,  7.],
                  [11., 12.]]]], grad_fn=<IndexBackward0>)
        >>> V.sum().backward()
        >>> box.grad  # an edge moved right by 1 adds 1 to two of four, half of it
        tensor([[ 2., 10.,  2., 10.]])
    """
    check_picture(U)
    rows, columns = check_size(size)
    edges, of = _boxes_and_pictures(boxes, U)
    edges = edges * scale - (0.5 if aligned else 0.0)
    low, high = edges[:, :2], edges[:, 2:]
    if not aligned:
        high = low + (high - low).clamp(min=1)
    samples: int | Tensor = sampling_ratio
    if sampling_ratio <= 0:
        each = ((high - low).detach().abs() / edges.new_tensor([columns, rows])).ceil()
        samples = each.nan_to_num(1, 1, 1).clamp(min=1).flip(1).long()
    # Back from the centres of pixels, where torchvision counts from, to their edges.
    theta = box_theta(torch.cat([low, high], dim=1) + 0.5, U.shape[2:])
    return read_regions(U, theta, of, (rows, columns), samples)


def roi_pool(U: Tensor, boxes: Boxes, size: Size, scale: float = 1.0) -> Tensor:
    """Round each box to whole pixels and take maxima over its bins: RoIPool (Girshick 2015).

    The result of `torchvision.ops.roi_pool`. The edges are rounded, halves away from zero, and name
    the first and the last pixel, both inside; then the bins' edges are rounded outwards. A bin
    without a pixel gives 0. The step through the rounding is flat: **the box gets no gradient.**

    Args:
        U: feature maps, shape (N, C, H, W).
        boxes: see `Boxes`; in the picture's pixels. Their values are looked at.
        size: (H', W') of the output.
        scale: pixels of U for one of the picture.

    Raises:
        TypeError: U or the boxes are not floating.
        ValueError: a wrong shape, size or number of box tensors, or devices that differ.
        IndexError: a box lies in a picture that U does not hold.

    Returns:
        V of shape (K, C, H', W'), in U's dtype; differentiable in U.

    Example:
        >>> U = torch.arange(25.0).reshape(1, 1, 5, 5)
        >>> roi_pool(U, [torch.tensor([[0.4, 0.4, 2.6, 2.6]])], (2, 2))  # pixels 0 to 3
        tensor([[[[ 6.,  8.],
                  [16., 18.]]]])
    """
    check_picture(U)
    rows, columns = check_size(size)
    check_floating("U", U)
    N, C, H, W = U.shape
    edges, of = _boxes_and_pictures(boxes, U)
    edges = edges.detach() * scale
    usable = edges.isfinite().all(dim=1)
    edges = torch.where(usable[:, None], edges, 0.0)
    edges = rounded(edges)
    parts, places = [], []
    for (picture,), place in _groups(of[:, None]):
        if not 0 <= picture < N:
            raise IndexError(f"boxes must lie in pictures 0 to {N - 1}, but {picture} was given")
        left, top, right, bottom = edges[place].unbind(1)
        y, in_y = _bins(top, bottom, rows, H)
        x, in_x = _bins(left, right, columns, W)
        # (K', rows, columns, taps down, taps across), in the order in which torchvision looks.
        index = y[:, :, None, :, None] * W + x[:, None, :, None, :]
        there = in_y[:, :, None, :, None] & in_x[:, None, :, None, :]
        there = there & usable[place, None, None, None, None]
        flat = U[picture].flatten(1)
        step = max(1, AT_ONCE // max(1, C * index[:1].numel()))
        for some, inside in zip(index.split(step), there.split(step), strict=True):
            values = flat[:, some.flatten()].reshape(C, *some.shape)
            values = torch.where(inside, values, -torch.inf).flatten(-2).max(dim=-1).values
            filled = inside.flatten(-2).any(dim=-1)
            parts.append(torch.where(filled, values, 0.0).transpose(0, 1))
        places.append(place)
    return _put_back(parts, places, U.new_zeros(0, C, rows, columns))


def rounded(edges: Tensor) -> Tensor:
    """Round as RoIPool does: halves away from zero."""
    return edges.sign() * (edges.abs() + 0.5).floor()


def pooled_spans(first: Tensor, last: Tensor, bins: int, side: int) -> tuple[Tensor, Tensor]:
    """Return RoIPool's bins along one axis of `side` pixels.

    Args:
        first: each box's first pixel, (K,), rounded.
        last: its last one, inside the box.
        bins: how many.
        side: of the feature map.

    Returns:
        The first pixel of each bin and the one after its last, (K, bins) each.
    """
    length = (last - first + 1).clamp(min=1)[:, None] / bins
    number = torch.arange(bins, dtype=first.dtype, device=first.device)
    start = ((number * length).floor() + first[:, None]).clamp(0, side)
    return start, (((number + 1) * length).ceil() + first[:, None]).clamp(0, side)


def _bins(first: Tensor, last: Tensor, bins: int, side: int) -> tuple[Tensor, Tensor]:
    """Return the pixels of each bin along one axis, int64 (K, bins, most), and which are real."""
    start, end = pooled_spans(first, last, bins, side)
    most = max(1, int((end - start).max()))
    pixels = start.long()[..., None] + torch.arange(most, device=first.device)
    return pixels.clamp(max=side - 1), pixels < end.long()[..., None]
