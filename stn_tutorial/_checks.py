"""Guards for shapes, dtypes and devices: each message says what was given and what is expected.

They look at metadata only, never at values: reading a value in a forward pass would stall a GPU
and break `torch.compile`. Sizes may be symbols (`torch.compile` and `torch.export` with dynamic
shapes), so they are compared and never hashed. While `torch.jit.trace` runs, and with it the older
ONNX exporter, sizes are tensors, which may not be looked at: the example that is traced is taken as
it is.
"""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import TypeGuard

import torch
from torch import Tensor, nn

Size = Sequence[int]
"""Height and width of a picture in pixels, in PyTorch's order."""


def check_floating(name: str, value: object) -> None:
    """Raise `TypeError` unless `value` is a tensor of a real floating dtype."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, but a {type(value).__name__} was given")
    if not value.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, but {value.dtype} was given")


def check_shape(name: str, value: object, expected: str, *tail: int, ndim: int) -> None:
    """Raise unless `value` is a floating tensor with `ndim` axes of which the last are `tail`."""
    check_floating(name, value)
    assert isinstance(value, Tensor)
    if value.ndim != ndim or (
        tail and not torch.jit.is_tracing() and tuple(value.shape[-len(tail) :]) != tail
    ):
        raise ValueError(
            f"{name} must have shape {expected}, but shape {tuple(value.shape)} was given"
        )


def check_theta(theta: object, name: str = "theta") -> None:
    """Raise unless `theta` is a floating tensor of shape (N, 2, 3)."""
    check_shape(name, theta, "(N, 2, 3)", 2, 3, ndim=3)


def check_picture(U: object, name: str = "U") -> None:
    """Raise unless `U` is a floating tensor of shape (N, C, H, W) with at least one pixel."""
    check_shape(name, U, "(N, C, H, W)", ndim=4)
    assert isinstance(U, Tensor)
    if not torch.jit.is_tracing() and (U.shape[2] == 0 or U.shape[3] == 0):
        raise ValueError(
            f"{name} must have at least one pixel, but shape {tuple(U.shape)} was given"
        )


def check_volume(U: object, name: str = "U") -> None:
    """Raise unless `U` is a floating tensor of shape (N, C, D, H, W) with at least one voxel."""
    check_shape(name, U, "(N, C, D, H, W)", ndim=5)
    assert isinstance(U, Tensor)
    if not torch.jit.is_tracing() and any(side == 0 for side in U.shape[2:]):
        raise ValueError(
            f"{name} must have at least one voxel, but shape {tuple(U.shape)} was given"
        )


def check_grid(grid: object, name: str = "grid") -> None:
    """Raise unless `grid` is a floating tensor of shape (N, H, W, 2)."""
    check_shape(name, grid, "(N, H, W, 2) with (x, y) last", 2, ndim=4)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number: Python's, NumPy's, or a symbol for one; True and False not."""
    # A tuple of types: with `int | torch.SymInt` torch 2.6 cannot compile it.
    return isinstance(value, (Integral, torch.SymInt)) and not isinstance(value, bool)


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return `value`; raise `ValueError` unless it is a whole number, `least` or more."""
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, but {value!r} was given")
    return _plain(value)


def _plain(whole: int) -> int:
    """Return NumPy's whole numbers as Python's, and leave symbols as they are."""
    return whole if isinstance(whole, (int, torch.SymInt, Tensor)) else int(whole)


def _check_sides(size: object, name: str, sides: str, count: str) -> tuple[int, ...]:
    """Return `size` as a tuple; raise unless it is as many positive whole numbers as `sides`."""
    if (
        not isinstance(size, Sequence)
        or isinstance(size, str)
        or len(size) != sides.count(",") + 1
        or not (torch.jit.is_tracing() or all(is_whole(s) and s > 0 for s in size))
    ):
        raise ValueError(
            f"{name} must be ({sides}), {count} positive whole numbers, but {size!r} was given"
        )
    return tuple(_plain(s) for s in size)


def check_size(size: object, name: str = "size") -> tuple[int, int]:
    """Return `size` as (height, width); raise unless it is two positive whole numbers."""
    height, width = _check_sides(size, name, "height, width", "two")
    return height, width


def check_volume_size(size: object, name: str = "size") -> tuple[int, int, int]:
    """Return `size` as (depth, height, width); raise unless it is three positive whole numbers."""
    depth, height, width = _check_sides(size, name, "depth, height, width", "three")
    return depth, height, width


def check_input_shape(shape: object, name: str = "shape") -> tuple[int, ...]:
    """Return the shape of one input, (C, H, W) or (C, D, H, W); raise unless it is such a one."""
    if isinstance(shape, Sequence) and len(shape) == 4:
        return _check_sides(shape, name, "channels, depth, height, width", "four")
    return _check_sides(shape, name, "channels, height, width", "three")


def check_same_device(**tensors: Tensor) -> None:
    """Raise `ValueError` unless all tensors lie on one device."""
    devices = [t.device for t in tensors.values()]
    if any(device != devices[0] for device in devices):
        given = ", ".join(f"{name} on {t.device}" for name, t in tensors.items())
        raise ValueError(f"all tensors must be on the same device, but {given} were given")


def check_same_batch(**tensors: Tensor) -> None:
    """Raise `ValueError` unless all tensors have the same first axis."""
    sizes = [t.shape[0] for t in tensors.values()]
    if not torch.jit.is_tracing() and any(size != sizes[0] for size in sizes):
        given = ", ".join(f"{name} with {t.shape[0]}" for name, t in tensors.items())
        raise ValueError(f"all tensors must have the same batch size, but {given} were given")


def same_or_one(sizes: Iterable[int]) -> bool:
    """Whether all sizes that are not 1 are the same, so that axes of them broadcast."""
    if torch.jit.is_tracing():
        return True
    others = [size for size in sizes if size != 1]
    return all(size == others[0] for size in others)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but {value!r} was given")


def layer_named(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of that name; raise `ValueError`, with the nearest, where there is none."""
    layers = dict(network.named_modules())
    layers.pop("")  # the network itself
    if name not in layers:
        nearest = difflib.get_close_matches(str(name), layers, n=1, cutoff=0.0)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{type(network).__name__} has no layer {name!r}{hint}")
    return layers[name]


def at_least_float32(*dtypes: torch.dtype) -> torch.dtype:
    """Return the dtype in which coordinates are computed: the widest given, never below float32.

    In bfloat16 the identity grid of a 224-pixel picture is already 0.6 pixels off.
    """
    result = torch.float32
    for dtype in dtypes:
        result = torch.promote_types(result, dtype)
    return result


def _has_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


# What `torch.compiler.assume_constant_result` does, but for importing the compiler. (torch 2.6
# cannot compile the question.)
_has_autocast._dynamo_marked_constant = True  # type: ignore[attr-defined]


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context in which nothing is cast; devices that have no autocast need none."""
    if _has_autocast(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
