"""What an experiment's cells have in common, so that one queue trains them all."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stn_tutorial.training import Recipe, error_rate

__all__ = ["Task", "Work", "check_run"]


def check_run(seed: int, steps: int) -> None:
    """Raise `ValueError` unless a cell can be trained from this seed for so many steps."""
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, but {seed} was given")
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, but {steps} was given")


@dataclass(frozen=True)
class Work:
    """All that is needed to train a cell once and to judge it."""

    model: nn.Module
    """On its device, with the initial weights of the cell's seed."""
    recipe: Recipe
    batches: Callable[[int], tuple[Tensor, Tensor]]
    """See `training.train`."""
    choose_by: Iterable[tuple[Tensor, Tensor]]
    """What is held out of the training, for `error`."""
    judge: Callable[[nn.Module], dict[str, Any]]
    """Looks at the test set, once, at the end; what it returns goes into the result: `"test_error"`
    and what the table's layout keeps."""
    facts: dict[str, Any]
    """More that goes into the result: sizes, counts; `"width"` and `"parameters"` at least."""
    error: Callable[[nn.Module, Iterable[tuple[Tensor, Tensor]]], float] = error_rate
    """From the model and `choose_by` to its error in %."""
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    """See `training.train`: cross-entropy when left out."""


class Task(Protocol):
    """A cell of whatever experiment."""

    @property
    def name(self) -> str:
        """What its files are called: of no two cells the same, with `_seed` and a number last."""

    @property
    def title(self) -> str:
        """What it is called in a line of a report."""

    @property
    def recipe(self) -> str:
        """A name from its experiment's recipes."""

    @property
    def steps(self) -> int:
        """Training steps."""

    def of_any_length(self) -> str:
        """Return a pattern for `glob` of the names of cells that differ in their steps alone."""

    def settings(self) -> dict[str, Any]:
        """Return all that its result depends on but the machine, ready for JSON."""

    def prepare(self, device: torch.device) -> Work:
        """Return what is to be done."""
