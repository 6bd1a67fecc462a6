"""The recipes by name, each for all models alike."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stn_tutorial._checks import check_choice
from stn_tutorial._facts import Fact
from stn_tutorial.training import Recipe

__all__ = ["RECIPES", "Plan", "default_steps"]


@dataclass(frozen=True)
class Plan:
    """A recipe by name: the engine's settings, and what is added to the models' layers.

    Args:
        recipe: the engine's; its steps are those meant for a GPU.
        cpu_steps: the length on a CPU, when nothing else is asked for.
        batch_norm: see `models.build`.
        dropout: see `models.build`.
        easy_first: the share of the steps in which the distortion grows from a fifth of itself to
            all of it, where an experiment can do so; 0 for the whole distortion from the start.
        facts: what it rests on, and how sure we are of each.
    """

    recipe: Recipe
    cpu_steps: int
    batch_norm: bool = False
    dropout: float = 0.0
    easy_first: float = 0.0
    facts: tuple[Fact, ...] = ()

    def settings(self, steps: int) -> dict[str, Any]:
        """Return all that training for so many steps depends on, by name."""
        added: dict[str, Any] = {"batch_norm": self.batch_norm, "dropout": self.dropout}
        if self.easy_first:  # of which results that do without it say nothing
            added["easy_first"] = self.easy_first
        return asdict(self.recipe.scaled(steps)) | added

    def reach(self, steps: int) -> Callable[[int], float] | None:
        """Return the share of the distortion at each of so many steps; None where it is all."""
        grown = self.easy_first * steps
        return (lambda step: min(1.0, 0.2 + 0.8 * step / grown)) if grown else None


RECIPES: dict[str, Plan] = {
    "paper": Plan(
        Recipe(
            steps=150_000,
            batch_size=256,
            optimiser="sgd",
            learning_rate=0.01,
            momentum=0.9,
            schedule="steps",
            drop_every=50_000,
        ),
        cpu_steps=150_000,
        facts=(
            Fact("SGD, 150 000 iterations of 256 digits", "b"),
            Fact("learning rate 0.01, a tenth after every 50 000", "b"),
            Fact("no weight decay, no dropout", "b"),
            Fact(
                "a momentum of 0.9, without which the paper's errors are not reached on R "
                "(benchmarks/momentum.py)",
                "c",
            ),
            Fact("the same rate for the localisation net as for the rest", "c"),
            Fact("PyTorch's initial weights, but for the transformer's last layer", "c"),
            Fact("trained on 50 000 of MNIST's digits, 10 000 held out", "c"),
        ),
    ),
    "modern": Plan(
        Recipe(
            steps=120_000,  # 307 passes through 50 000 digits
            batch_size=128,
            optimiser="adamw",
            learning_rate=0.01,  # by benchmarks/tuning.py, on digits held out
            localisation_rate=0.3,
            weight_decay=0.01,
            label_smoothing=0.1,
            schedule="one-cycle",
            warmup=0.2,
        ),
        cpu_steps=10_000,  # 26 passes
        batch_norm=True,
        dropout=0.2,
        facts=(Fact("nothing of this recipe is the paper's but the layers", "c"),),
    ),
}
"""The paper's recipe, and one of ten years later for the same layers; each for all models alike."""


def default_steps(
    recipe: str, device: torch.device | str, recipes: Mapping[str, Plan] | None = None
) -> int:
    """Return a recipe's length on such a device: the full one on a GPU, perhaps a shorter on a CPU.

    Args:
        recipe: a name from `recipes`.
        device: where it is to run.
        recipes: those of an experiment, `RECIPES` when left out.
    """
    recipes = RECIPES if recipes is None else recipes
    check_choice("recipe", recipe, tuple(recipes))
    chosen = recipes[recipe]
    return chosen.cpu_steps if torch.device(device).type == "cpu" else chosen.recipe.steps
