"""Thin-plate splines through any control points, the smoothest in pixels of any shape.

Control points are handed about as a `Control`, which can be a cache's key and which a compiler's
trace takes as it is. (Positions it computes from text, so that their number is known; a constant's
it takes for variable.)
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import count
from types import FunctionType

import numpy as np
import torch
from torch import Tensor

from stn_tutorial._checks import at_least_float32

__all__ = [
    "Control",
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


_numbers = count()


def _own(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A copy of a function whose results are constants of a trace, under a name that no other has.

    The compiler of torch 2.8 to 2.13 knows a graph's constants by that name alone, and fails on two
    of the same. The mark is all that `torch.compiler.assume_constant_result` sets, but for
    importing the compiler, which would take as long as importing everything else.
    """
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_numbers)}")
    own = FunctionType(code, globals(), code.co_name)
    own._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return own


class Control:
    """Control points, (K, 2), by their coordinates as text, equal when these are.

    Args:
        text: "x,y;x,y;…" with every bit of the float64s, or "ROWSxCOLUMNS" for points that span the
            picture, edges included, row by row.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.space, self.fit, self.solved = _own(_space), _own(_fit), _own(_solution)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Control) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[type["Control"], tuple[str]]:
        return Control, (self.text,)


def packed(control: np.ndarray) -> Control:
    """Control points of shape (K, 2)."""
    return Control(";".join(",".join(map(repr, point)) for point in control.tolist()))


def lattice(rows: int, columns: int) -> Control:
    """Points that span the picture, edges included, row by row."""
    return Control(f"{rows}x{columns}")


def _sides(text: str) -> list[int]:
    return [int(part) for part in text.split("x")]


def _listed(text: str) -> list[list[float]]:
    return [[float(part) for part in point.split(",")] for point in text.split(";")]


def unpacked(control: Control) -> np.ndarray:
    """Control points of shape (K, 2), float64."""
    if "x" not in control.text:
        return np.array(_listed(control.text))
    y, x = ((2 * np.arange(n) - (n - 1)) / (n - 1) for n in _sides(control.text))
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
    K = len(points)
    squares = (((points[:, None] - points) * [1, aspect]) ** 2).sum(-1)
    kernel = 0.5 * squares * np.log(np.where(squares > 0, squares, 1))
    flat = np.concatenate([np.ones((K, 1)), points], axis=1)
    matrix = np.block([[kernel, flat], [flat.T, np.zeros((3, 3))]])
    return np.linalg.solve(matrix, np.eye(K + 3, K))


def _space(text: str, dtype: torch.dtype, device: str) -> Tensor:
    return torch.tensor(_parts(Control(text))[0], dtype=dtype, device=device)


def _fit(text: str, dtype: torch.dtype, device: str) -> Tensor:
    return torch.tensor(_parts(Control(text))[1], dtype=dtype, device=device)


def _solution(text: str, aspect: bytes, dtype: torch.dtype, device: str) -> Tensor:
    array = _solved(Control(text), float(np.frombuffer(aspect)[0]))
    return torch.tensor(array, dtype=dtype, device=device)


@lru_cache(maxsize=32)
def _kept_positions(control: Control, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False), torch.no_grad():
        return torch.tensor(unpacked(control), dtype=dtype, device=device)


@lru_cache(maxsize=32)
def _kept_system(
    control: Control, aspect: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(mode=False), torch.no_grad():
        return _solution(control.text, np.float64(aspect).tobytes(), dtype, str(device))


def positions(control: Control, like: Tensor) -> Tensor:
    """The points, (K, 2), where `like` is, in its dtype, float32 at least."""
    dtype = at_least_float32(like.dtype)
    if not is_traced(like):
        return _kept_positions(control, dtype, like.device)
    if "x" not in control.text:
        return torch.tensor(_listed(control.text), dtype=dtype, device=like.device)
    rows, columns = _sides(control.text)
    y, x = (
        (2 * torch.arange(n, dtype=dtype, device=like.device) - (n - 1)) / (n - 1)
        for n in (rows, columns)
    )
    # By expanding, since the exporter of torch 2.8 to ONNX repeats no single elements.
    points = [x.expand(rows, columns), y[:, None].expand(rows, columns)]
    return torch.stack(points, dim=-1).view(-1, 2)


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
    space = control.space(control.text, dtype, device)
    fit = control.fit(control.text, dtype, device)
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
        control: the points.
        aspect: H/W of the pictures, which in a trace may be a number of the graph.
        pinned: the same as bytes, where it is known beforehand; else empty.
        like: a tensor of the dtype that is computed in.
    """
    if not is_traced(like):
        return _kept_system(control, aspect, like.dtype, like.device)
    if torch.compiler.is_compiling() and not pinned:
        return _traced_system(control, aspect, like)
    pinned = pinned or np.float64(aspect).tobytes()
    return control.solved(control.text, pinned, like.dtype, str(like.device))


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
