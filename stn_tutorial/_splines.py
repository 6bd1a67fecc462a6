"""Thin-plate splines through any control points, the smoothest in pixels of any shape.

Control points are handed about as bytes (of float64, (x, y) after (x, y)), or, where they are a
lattice, as its name: constants that can be a cache's key, and that a compiler's trace takes as they
are. (A lattice it computes, so that its sizes are known; a constant's it takes for variable.)
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from stn_tutorial._checks import at_least_float32

__all__ = [
    "bends",
    "is_traced",
    "kept_weights",
    "lattice",
    "packed",
    "positions",
    "system",
    "unpacked",
    "weights",
]

STEPS = 24
"""Of the iteration that inverts a matrix within a trace; see `_traced_system`."""


Control = bytes | str


def packed(control: np.ndarray) -> bytes:
    """Control points of shape (K, 2) as bytes."""
    return np.ascontiguousarray(control, dtype=np.float64).tobytes()


def lattice(rows: int, columns: int) -> str:
    """The name of points that span the picture, edges included, row by row."""
    return f"{rows}x{columns}"


def _sides(name: str) -> list[int]:
    return [int(part) for part in name.split("x")]


def unpacked(control: Control) -> np.ndarray:
    """Control points of shape (K, 2), float64."""
    if isinstance(control, bytes):
        return np.frombuffer(control).reshape(-1, 2)
    y, x = ((2 * np.arange(n) - (n - 1)) / (n - 1) for n in _sides(control))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def is_traced(own: Tensor) -> bool:
    """Whether nothing may be kept: inside a trace, or of tensors that only stand for others."""
    return torch.compiler.is_compiling() or type(own) is not Tensor


@lru_cache(maxsize=32)
def _parts(control: Control) -> tuple[np.ndarray, np.ndarray]:
    """What a spline's system is made of, whatever the aspect: (K, K − 3) and (3, K).

    The bends' coefficients are orthogonal to all affine functions of the points, so they lie in the
    space that the first array's columns span; the second array fits an affine function to values.
    """
    points = unpacked(control)
    flat = np.concatenate([np.ones((len(points), 1)), points], axis=1)
    complete, _ = np.linalg.qr(flat, mode="complete")
    return complete[:, 3:], np.linalg.pinv(flat)


@lru_cache(maxsize=64)
def _solved(control: Control, aspect: float) -> np.ndarray:
    """From the movements of K points to the spline's K + 3 coefficients: (K + 3, K), float64."""
    points = unpacked(control)
    count = len(points)
    squares = (((points[:, None] - points) * [1, aspect]) ** 2).sum(-1)
    kernel = 0.5 * squares * np.log(np.where(squares > 0, squares, 1))
    flat = np.concatenate([np.ones((count, 1)), points], axis=1)
    matrix = np.block([[kernel, flat], [flat.T, np.zeros((3, 3))]])
    return np.linalg.solve(matrix, np.eye(count + 3, count))


def _constant(
    name: str, control: Control, aspect: bytes, dtype: torch.dtype, device: str
) -> Tensor:
    if name == "control":
        array = unpacked(control)
    elif name == "solved":
        array = _solved(control, float(np.frombuffer(aspect)[0]))
    else:
        array = _parts(control)[0 if name == "space" else 1]
    return torch.tensor(array, dtype=dtype, device=device)


# All that `torch.compiler.assume_constant_result` does, but for importing the compiler, which would
# take as long as importing everything else.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=32)
def _kept(
    name: str, control: Control, aspect: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(mode=False), torch.no_grad():
        return _constant(name, control, np.float64(aspect).tobytes(), dtype, str(device))


def positions(control: Control, like: Tensor) -> Tensor:
    """The points, (K, 2), where `like` is, in its dtype, float32 at least."""
    dtype = at_least_float32(like.dtype)
    if is_traced(like):
        if isinstance(control, bytes):
            return _constant("control", control, b"", dtype, str(like.device))
        y, x = (
            (2 * torch.arange(n, dtype=dtype, device=like.device) - (n - 1)) / (n - 1)
            for n in _sides(control)
        )
        return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=-1)
    return _kept("control", control, 1.0, dtype, like.device)


def bends(at: Tensor, control: Tensor, aspect: float) -> Tensor:
    """r² log r from each position (…, P, 2) to each point (K, 2), y in units of x: (…, P, K)."""
    x, y = (at[..., :, None, :] - control).unbind(-1)
    squares = x.square() + (aspect * y).square()
    return 0.5 * squares * torch.where(squares > 0, squares, 1).log()


def _traced_system(control: Control, aspect: float, like: Tensor) -> Tensor:
    """`_solved` where the aspect is a number of the graph, by matrix products alone.

    ONNX has no solver. On its space the kernel's matrix is positive definite, and Newton's and
    Schulz's X ← X (2 − M X), from M's inverse trace on, squares the error at each step.
    """
    dtype, device = like.dtype, str(like.device)
    space = _constant("space", control, b"", dtype, device)
    fit = _constant("fit", control, b"", dtype, device)
    points = positions(control, like)
    kernel = bends(points, points, aspect)
    matrix = space.T @ kernel @ space
    inverse = torch.eye(matrix.shape[0], dtype=dtype, device=device) / matrix.square().sum().sqrt()
    for _ in range(STEPS):
        inverse = 2 * inverse - inverse @ (matrix @ inverse)
    bent = space @ inverse @ space.T
    return torch.cat([bent, fit - fit @ kernel @ bent], dim=0)


def system(control: Control, aspect: float, pinned: bytes, like: Tensor) -> Tensor:
    """The map from movements to coefficients, (K + 3, K), in `like`'s dtype and place.

    Args:
        control: the points, packed.
        aspect: H/W of the pictures, which in a trace may be a number of the graph.
        pinned: the same as bytes, where it is known beforehand; else empty.
        like: a tensor of the dtype that is computed in.
    """
    if not is_traced(like):
        return _kept("solved", control, aspect, like.dtype, like.device)
    if torch.compiler.is_compiling() and not pinned:
        return _traced_system(control, aspect, like)
    pinned = pinned or np.float64(aspect).tobytes()
    return _constant("solved", control, pinned, like.dtype, str(like.device))


def weights(own: Tensor, control: Control, aspect: float, pinned: bytes) -> Tensor:
    """How much each of the positions (P, 2) follows each control point: (P, K), in their dtype."""
    flat = torch.cat([torch.ones_like(own[:, :1]), own], dim=1)
    bent = bends(own, positions(control, own), aspect)
    return torch.cat([bent, flat], dim=1) @ system(control, aspect, pinned, own)


@lru_cache(maxsize=16)
def kept_weights(
    control: Control,
    aspect: float,
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """`weights` of the regular grid, computed in float64 on the CPU and kept."""
    # What is kept must serve training too, also when it was first asked for in inference mode.
    with torch.inference_mode(mode=False), torch.no_grad():
        x, y = ((2 * torch.arange(n, dtype=torch.float64) + 1 - n) / n for n in size[::-1])
        own = torch.stack([x.repeat(y.shape[0]), y.repeat_interleave(x.shape[0])], dim=-1)
        return weights(own, control, aspect, b"").to(device, dtype)
