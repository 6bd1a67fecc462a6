"""The cells of the paper's Table 1: a model on a distortion, by a recipe, from one seed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch

from stn_tutorial._checks import check_choice
from stn_tutorial.data import (
    DISTORTIONS,
    Batches,
    Digits,
    FixedSet,
    dataset_name,
    hold_out,
    load_digits,
)
from stn_tutorial.experiments.recipes import RECIPES
from stn_tutorial.experiments.work import Work, check_run
from stn_tutorial.models import MODELS, build, count_parameters, width
from stn_tutorial.training import exact_float32

__all__ = ["Cell", "cells"]


@lru_cache(maxsize=1)
def digits_of(dataset: str) -> tuple[Digits, Digits, Digits]:
    """Return the digits to train on, to choose by and to be judged by; say once which they are."""
    train_on, held_out = hold_out(load_digits("train", dataset))
    return train_on, held_out, load_digits("test", dataset)


@torch.no_grad()
@exact_float32()
def _misread(model: torch.nn.Module, judge_by: FixedSet) -> list[int]:
    """Return the places of the digits whose highest score is not their label's, in order."""
    model.eval()
    wrong = [model(U).argmax(dim=1) != target for U, target in judge_by]
    return torch.cat(wrong).nonzero().flatten().tolist()


@dataclass(frozen=True)
class Cell:
    """A model on a distortion, trained by a recipe from one seed.

    Args:
        distortion: a name from `data.DISTORTIONS`: a column of the table.
        model: a name from `models.MODELS`: a row of it.
        recipe: a name from `RECIPES`.
        seed: of the initial weights, the order of the digits and their distortions.
        steps: training steps, to which the recipe's schedule is squeezed or stretched.
        dataset: `"mnist"` or `"digits"`, so that results on one never pass for the other's.
    """

    distortion: str
    model: str
    recipe: str
    seed: int
    steps: int
    dataset: str

    def __post_init__(self) -> None:
        check_choice("distortion", self.distortion, tuple(DISTORTIONS))
        check_choice("model", self.model, MODELS)
        check_choice("recipe", self.recipe, tuple(RECIPES))
        check_choice("dataset", self.dataset, ("mnist", "digits"))
        check_run(self.seed, self.steps)

    @property
    def name(self) -> str:
        """What its files are called."""
        return (
            f"{self.dataset}_{self.distortion}_{self.model}_{self.recipe}"
            f"_{self.steps}_seed{self.seed}"
        )

    @property
    def title(self) -> str:
        """What it is called in a line of a report."""
        return f"{self.distortion} {self.model} seed {self.seed}"

    def of_any_length(self) -> str:
        """Return the name with a star in the place of the steps, as a pattern for `glob`."""
        return self.name.replace(f"_{self.steps}_seed", "_*_seed")

    def settings(self) -> dict[str, Any]:
        """Return all that its result depends on but the machine: what makes it *this* cell."""
        return asdict(self) | {"recipe_settings": RECIPES[self.recipe].settings(self.steps)}

    def prepare(self, device: torch.device) -> Work:
        """Return what is to be done: the digits, the model of that seed, and how it is judged."""
        plan, distortion = RECIPES[self.recipe], DISTORTIONS[self.distortion]
        recipe = plan.recipe.scaled(self.steps)
        train_on, held_out, test = digits_of(self.dataset)
        torch.manual_seed(self.seed)
        model = build(self.model, distortion.size, batch_norm=plan.batch_norm, dropout=plan.dropout)

        def judge(model: torch.nn.Module) -> dict[str, Any]:
            misread = _misread(model, FixedSet(test, self.distortion, "test", device=device))
            error = round(100 * len(misread) / len(test.labels), 4)
            return {"test_error": error, "misread": misread}

        parts = {"train": train_on, "held-out": held_out, "test": test}
        return Work(
            model=model.to(device),
            recipe=recipe,
            batches=Batches(
                train_on,
                self.distortion,
                batch_size=recipe.batch_size,
                seed=self.seed,
                device=device,
            ),
            choose_by=FixedSet(held_out, self.distortion, "held-out", device=device),
            judge=judge,
            facts={
                "width": width(self.model, distortion.size),
                "parameters": count_parameters(model),
                "digits": {name: len(part.labels) for name, part in parts.items()},
            },
        )


def cells(
    *,
    columns: Sequence[str] = tuple(DISTORTIONS),
    rows: Sequence[str] = MODELS,
    seeds: Sequence[int] = (0, 1, 2),
    recipe: str = "modern",
    steps: int,
) -> list[Cell]:
    """Return the cells of a table, one seed of them all before the next seed.

    So that a table that was stopped early is whole, if from fewer seeds.
    """
    return [
        Cell(column, row, recipe, seed, steps, dataset_name())
        for seed in seeds
        for column in columns
        for row in rows
    ]
