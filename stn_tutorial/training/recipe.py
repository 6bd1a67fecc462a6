"""What a long run is made of: a `Recipe` changes its result, an `Execution` its speed (10)."""

import math
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from stn_tutorial._checks import check_choice
from stn_tutorial.training.loop import device_of
from stn_tutorial.transformer import (
    ParallelTransformer,
    SeriesTransformer,
    SpatialTransformer,
)

__all__ = ["Execution", "Recipe", "Record"]

TRANSFORMERS = (SpatialTransformer, ParallelTransformer, SeriesTransformer)
"""Whose weights `localisation_rate` is for."""


def check_number(name: str, value: object, expected: str, *, whole: bool = False) -> None:
    """Raise `ValueError` unless a number is in the range that `expected` says, as "0 to 1" does."""
    low, _, high = expected.partition(" to ")
    right = isinstance(value, int | float) and not isinstance(value, bool)
    number = float(value) if isinstance(value, int | float) else math.nan
    right &= isinstance(value, int) or not whole
    if not right or not float(low) <= number <= float(high or "inf") or not math.isfinite(number):
        kind = "a whole number" if whole else "a number"
        span = f"from {low} to {high}" if high else f"{low} or more"
        raise ValueError(f"{name} must be {kind}, {span}, but {value!r} was given")


@dataclass(frozen=True)
class Recipe:
    """All that a run's result depends on, but for the model and the batches.

    The defaults are those of the paper's digits, where it has them. `dataclasses.asdict` makes it
    ready for JSON, and `Recipe(**settings)` reads it back.

    Args:
        steps: how many batches are learned from.
        batch_size: pictures a step, those of all processes together.
        optimiser: `"sgd"` or `"adamw"`.
        learning_rate: the highest that the schedule reaches.
        momentum: of SGD.
        weight_decay: SGD's is added to the gradient, AdamW's is taken from the weights.
        localisation_rate: the learning rate of the transformers' own weights, as a factor of the
            others'. A layer that a localisation net shares with the classifier counts as the
            classifier's.
        label_smoothing: the share of a target's weight that is spread over all classes.
        schedule: `"steps"`, a tenth of the learning rate after every `drop_every` steps, or
            `"one-cycle"`: from a 25th of it up, along half a cosine, and down to nothing, along
            another.
        drop_every: see `schedule`.
        warmup: the share of a cycle's steps that lead up.
    """

    steps: int
    batch_size: int = 256
    optimiser: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    localisation_rate: float = 1.0
    label_smoothing: float = 0.0
    schedule: str = "steps"
    drop_every: int = 50_000
    warmup: float = 0.3

    def __post_init__(self) -> None:
        check_choice("optimiser", self.optimiser, ("sgd", "adamw"))
        check_choice("schedule", self.schedule, ("steps", "one-cycle"))
        for name in ("steps", "batch_size", "drop_every"):
            check_number(name, getattr(self, name), "1", whole=True)
        for name in ("learning_rate", "weight_decay", "localisation_rate"):
            check_number(name, getattr(self, name), "0")
        for name in ("momentum", "label_smoothing", "warmup"):
            check_number(name, getattr(self, name), "0 to 1")
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(
                f"momentum is SGD's; with {self.optimiser} it must be 0, "
                f"but {self.momentum:g} was given"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, 0 the first: of nothing else, so resuming is easy."""
        if self.schedule == "steps":
            return self.learning_rate * 0.1 ** (step // self.drop_every)
        done = step / self.steps
        if done < self.warmup:
            risen = (1 - math.cos(math.pi * done / self.warmup)) / 2
            return self.learning_rate * (1 + 24 * risen) / 25
        fallen = (done - self.warmup) / (1 - self.warmup)
        return self.learning_rate * (1 + math.cos(math.pi * fallen)) / 2

    def scaled(self, steps: int) -> "Recipe":
        """Return the recipe with its schedule squeezed, or stretched, to that many steps."""
        drop_every = max(1, round(self.drop_every * steps / self.steps))
        return replace(self, steps=steps, drop_every=drop_every)


@dataclass(frozen=True)
class Execution:
    """How a run is carried out: a matter of speed, and of the last digits of a result.

    Args:
        precision: `"float32"`; `"auto"`: on a GPU the network's layers run in bfloat16 where the
            chip has it, else in float16 with a loss that is scaled up, so that small gradients are
            not lost, and on a CPU in float32; `"bfloat16"`, also on a CPU, which pays off on the
            few that are made for it, and not on a GPU that would only imitate it; or `"float16"`.
            Weights, grids and evaluation stay in float32, which is never rounded to TF32.
        channels_last: keep each pixel's channels side by side in memory; for pictures only.
        compile: `torch.compile`'s mode, `"default"` or `"reduce-overhead"`; None for none.
    """

    precision: str = "float32"
    channels_last: bool = False
    compile: str | None = None

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("float32", "auto", "bfloat16", "float16"))
        if self.compile is not None:
            check_choice("compile", self.compile, ("default", "reduce-overhead"))


class Record(TypedDict):
    """What `train` writes down every so many steps."""

    step: int
    """Steps done."""
    loss: float
    """The mean over the steps since the record before."""
    seconds: float
    """Of training since step 0; evaluation and saving are left out, and so is what was lost."""
    error: NotRequired[float]
    """What `evaluate` returned."""


def autocast_dtype(execution: Execution, device: torch.device) -> torch.dtype:
    """Return the dtype that the layers run in; `ValueError` for one that a GPU only imitates."""
    if execution.precision == "float16":
        return torch.float16
    if execution.precision == "float32":
        return torch.float32
    if device.type != "cuda":
        return torch.bfloat16 if execution.precision == "bfloat16" else torch.float32
    # A T4 imitates bfloat16, more slowly than it computes in float32; float16 it has.
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if execution.precision == "bfloat16":
        raise ValueError(
            f"{torch.cuda.get_device_name(device)} does not compute in bfloat16, it only imitates "
            "it, slowly: precision must be float16, float32, or auto, which takes float16 here"
        )
    return torch.float16


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimiser: a group of weights for the classifier, another for the transformers."""
    inside = tuple(
        f"{name}." if name else ""
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, TRANSFORMERS)
    )
    # Under all of its names: a shared layer has one outside as well.
    classifiers = {
        parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not name.startswith(inside)
    }
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter in classifiers].append(parameter)
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        settings["momentum"] = recipe.momentum
    if device_of(model).type == "cuda":
        # One kernel for all weights; and with it the scaler skips a step without asking the GPU.
        settings["fused"] = True
    factors = {True: 1.0, False: recipe.localisation_rate}
    return {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[recipe.optimiser](
        [{"params": group, "factor": factors[key]} for key, group in groups.items() if group],
        **settings,
    )
