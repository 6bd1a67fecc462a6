"""What can go wrong in a long run, noticed: numbers not finite, a collapse (chapter 10)."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from stn_tutorial.training.loop import device_of
from stn_tutorial.transformer import (
    ParallelTransformer,
    SeriesTransformer,
    SpatialTransformer,
)

__all__ = ["CollapsedTransformerWarning"]


class CollapsedTransformerWarning(UserWarning):
    """A transformer looks past its input, or at next to nothing of it."""


def check_finite(
    loss: float,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    before: int,
    kept: str,
) -> None:
    """Raise `FloatingPointError` unless the loss, the weights and the optimiser's are finite.

    The loss is that since step `before`; `kept` ends the message with what a checkpoint holds.
    """
    broken = f"the loss between step {before} and {step} is {loss}"
    if math.isfinite(loss):
        state = {f"the model's {key}": value for key, value in model.state_dict().items()}
        for number, values in enumerate(optimiser.state.values()):
            state |= {f"the optimiser's {key} {number}": x for key, x in values.items()}
        state = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}
        # All in one tensor, so that a GPU is asked once.
        finite = torch.stack([x.isfinite().all().to(device_of(model)) for x in state.values()])
        bad = [key for key, good in zip(state, finite.tolist(), strict=True) if not good]
        if not bad:
            return
        broken = f"after step {step}, {bad[0]} is not finite"
    raise FloatingPointError(f"{broken}; try a lower learning_rate{kept}")


def _areas(grid: Tensor) -> Tensor:
    """Return the size of each cell of a grid in units of the regular grid's: |det| of the map."""
    axes = grid.shape[-1]
    edges = []
    for axis in range(1, axes + 1):
        edge = grid.diff(dim=axis) * (grid.shape[axis] / 2)
        for other in range(1, axes + 1):
            if other != axis:
                edge = edge.narrow(other, 0, grid.shape[other] - 1)
        edges.append(edge)
    return torch.linalg.det(torch.stack(edges, dim=-1)).abs().flatten(1)


@torch.no_grad()
def _collapsed(model: nn.Module, U: Tensor) -> dict[str, str]:
    """Return what is wrong with each transformer that has collapsed on most of these inputs."""
    found = {}

    def look(name: str, module: nn.Module, U: Tensor, **_: Any) -> None:
        if isinstance(module, SpatialTransformer):
            size = U.shape[2:] if module.size is None else module.size
            judge(name, module.grid(module.theta(U), size))
            return
        for number, grid in enumerate(module.grids(U)):  # type: ignore[operator]
            judge(f"{name}.{number}", grid)

    def judge(name: str, grid: Tensor) -> None:
        size = grid.shape[1:-1]
        # Not `> 1`, which is false of NaN.
        outside = (~(grid.abs() <= 1).all(dim=-1)).flatten(1).float().mean(dim=1)
        lost = (outside > 0.9).float().mean().item()
        if lost > 0.5:
            found[name] = f"of {lost:.0%} of the inputs it reads almost only what lies outside"
        if min(size) > 1:
            # A tenth along each axis: of a 28×28 digit, three pixels by three; of a line, nothing.
            least = 0.1 ** len(size)
            tiny = (_areas(grid).median(dim=1).values < least).float().mean().item()
            if tiny > 0.5:
                found[name] = f"of {tiny:.0%} of the inputs it reads less than {least:.1%}"

    hooks = [
        module.register_forward_hook(
            lambda module, given, named, V, name=name: look(name, module, *given[:1], **named),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if isinstance(module, SpatialTransformer | ParallelTransformer | SeriesTransformer)
    ]
    try:
        if hooks:
            model(U)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def warn_of_collapse(model: nn.Module, U: Tensor, step: int, rate: float, warned: set[str]) -> None:
    """Warn of each transformer that has collapsed, once."""
    for name, what in _collapsed(model, U[:64]).items():
        if name not in warned:
            warned.add(name)
            warnings.warn(
                f"the transformer {name!r} has collapsed by step {step}: {what}. Try a "
                f"localisation_rate lower than {rate:g}, or padding='border', and see that it "
                "starts at the identity.",
                CollapsedTransformerWarning,
                stacklevel=3,
            )
