"""The cells of the paper's table of sums: a model on MNIST addition, by a recipe, from one seed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from stn_tutorial._checks import check_choice
from stn_tutorial._facts import Fact
from stn_tutorial.data import ADDITIONS, FixedSums, Sums, dataset_name
from stn_tutorial.experiments.cells import digits_of
from stn_tutorial.experiments.layout import Layout
from stn_tutorial.experiments.recipes import RECIPES, Plan
from stn_tutorial.experiments.work import Work, check_run
from stn_tutorial.models import (
    ADDITION_FACTS,
    ADDITION_MODELS,
    addition_width,
    build_addition,
    count_parameters,
)
from stn_tutorial.training import Recipe, error_rate

__all__ = ["ADDITION", "ADDITION_RECIPES", "AdditionCell", "addition_cells"]

_OURS = Fact("nothing of this recipe is the paper's but the layers", "c")
_MODERN = Plan(
    Recipe(
        steps=120_000,
        batch_size=128,
        optimiser="adamw",
        learning_rate=0.003,
        localisation_rate=0.3,
        weight_decay=0.01,
        schedule="one-cycle",
        warmup=0.1,
    ),
    cpu_steps=8_000,  # 20 passes
    batch_norm=True,
    easy_first=0.6,
    facts=(
        _OURS,
        Fact("easy pictures first: over the first 60 % of the steps the digits' turns, scales and "
             "positions grow from a fifth of RTS's to all of it", "c"),
    ),
)  # fmt: skip

ADDITION_RECIPES: dict[str, Plan] = {
    "paper": RECIPES["paper"],
    "modern": _MODERN,
    "plain": replace(_MODERN, easy_first=0.0, facts=(_OURS,)),
}
"""The paper's recipe as for Table 1, one of ours, and that without easy pictures first; for all."""

ADDITION = Layout(
    key="addition",
    columns=tuple(ADDITIONS),
    rows=ADDITION_MODELS,
    paper={
        "fcn": {"channels": 47.7},
        "cnn": {"channels": 14.7},
        "st-fcn-affine": {"channels": 22.6},
        "st-fcn-projective": {"channels": 18.5},
        "2xst-fcn-affine": {"channels": 9.0},
        "2xst-fcn-projective": {"channels": 5.9},
        "2xst-fcn-tps": {"channels": 5.8},
    },
    source=(
        "Jaderberg, Simonyan, Zisserman and Kavukcuoglu 2015, Spatial Transformer Networks, "
        "appendix, MNIST addition; https://arxiv.org/abs/1506.02025"
    ),
    recipes=ADDITION_RECIPES,
    facts={
        **{name: addition.facts for name, addition in ADDITIONS.items()},
        "models": ADDITION_FACTS,
        "table": (Fact("the mean of how many seeds the paper's figures are", "c"),),
    },
)
"""The paper's table of sums (its figure for one spline is not certain, and left out), and ours."""


@dataclass(frozen=True)
class AdditionCell:
    """A model on a kind of addition, trained by a recipe from one seed.

    Args:
        addition: a name from `data.ADDITIONS`: a column of the table.
        model: a name from `models.ADDITION_MODELS`: a row of it.
        recipe: a name from `ADDITION_RECIPES`.
        seed: of the initial weights, of who meets whom, and of the distortions.
        steps: training steps, to which the recipe's schedule is squeezed or stretched.
        dataset: `"mnist"` or `"digits"`, so that results on one never pass for the other's.
    """

    addition: str
    model: str
    recipe: str
    seed: int
    steps: int
    dataset: str

    def __post_init__(self) -> None:
        check_choice("addition", self.addition, tuple(ADDITIONS))
        check_choice("model", self.model, ADDITION_MODELS)
        check_choice("recipe", self.recipe, tuple(ADDITION_RECIPES))
        check_choice("dataset", self.dataset, ("mnist", "digits"))
        check_run(self.seed, self.steps)

    @property
    def name(self) -> str:
        """What its files are called."""
        return (
            f"{self.dataset}_addition_{self.addition}_{self.model}_{self.recipe}"
            f"_{self.steps}_seed{self.seed}"
        )

    @property
    def title(self) -> str:
        """What it is called in a line of a report."""
        return f"addition, {self.addition}, {self.model} seed {self.seed}"

    def of_any_length(self) -> str:
        """Return the name with a star in the place of the steps, as a pattern for `glob`."""
        return self.name.replace(f"_{self.steps}_seed", "_*_seed")

    def settings(self) -> dict[str, Any]:
        """Return all that its result depends on but the machine: what makes it *this* cell."""
        plan = ADDITION_RECIPES[self.recipe]
        return asdict(self) | {"recipe_settings": plan.settings(self.steps)}

    def prepare(self, device: torch.device) -> Work:
        """Return what is to be done: the sums, the model of that seed, and how it is judged."""
        plan, addition = ADDITION_RECIPES[self.recipe], ADDITIONS[self.addition]
        recipe = plan.recipe.scaled(self.steps)
        train_on, held_out, test = digits_of(self.dataset)
        shape = addition.channels, addition.classes
        torch.manual_seed(self.seed)
        model = build_addition(self.model, *shape, batch_norm=plan.batch_norm, dropout=plan.dropout)

        def judge(model: torch.nn.Module) -> dict[str, Any]:
            error = error_rate(model, FixedSums(test, self.addition, "test", device=device))
            return {"test_error": round(error, 4)}

        parts = {"train": train_on, "held-out": held_out, "test": test}
        return Work(
            model=model.to(device),
            recipe=recipe,
            batches=Sums(
                train_on,
                self.addition,
                batch_size=recipe.batch_size,
                seed=self.seed,
                device=device,
                reach=plan.reach(self.steps),
            ),
            choose_by=FixedSums(held_out, self.addition, "held-out", device=device),
            judge=judge,
            facts={
                "width": addition_width(self.model, *shape),
                "parameters": count_parameters(model),
                "digits": {name: len(part.labels) for name, part in parts.items()},
            },
        )


def addition_cells(
    *,
    columns: Sequence[str] = ("channels",),
    rows: Sequence[str] = ADDITION_MODELS,
    seeds: Sequence[int] = (0, 1, 2),
    recipe: str = "modern",
    steps: int,
) -> list[AdditionCell]:
    """Return the cells of a table of sums, one seed of them all before the next seed."""
    return [
        AdditionCell(column, row, recipe, seed, steps, dataset_name())
        for seed in seeds
        for column in columns
        for row in rows
    ]
