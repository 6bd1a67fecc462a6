"""The cells of the paper's Table 2: a reader of whole house numbers, by a recipe, from one seed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from stn_tutorial._checks import check_choice
from stn_tutorial._facts import Fact
from stn_tutorial.data import (
    FixedNumbers,
    HouseNumberBatches,
    HouseNumbers,
    hold_out_numbers,
    load_house_numbers,
    number_lengths,
)
from stn_tutorial.experiments.layout import Layout
from stn_tutorial.experiments.recipes import Plan
from stn_tutorial.experiments.work import Work, check_run
from stn_tutorial.models import NUMBER_FACTS, NUMBER_MODELS, build_number_reader, count_parameters
from stn_tutorial.training import Recipe, exact_float32

__all__ = ["NUMBER_PAPER", "NUMBER_PLANS", "TABLE2", "NumberCell", "NumberPlan", "number_cells"]

NUMBER_PAPER: dict[str, dict[str, float]] = {
    "cnn": {"whole-64": 4.0, "whole-128": 5.6},
    "st-cnn-single": {"whole-64": 3.7, "whole-128": 3.9},
    "st-cnn-multi": {"whole-64": 3.6, "whole-128": 3.9},
}
"""The paper's errors in whole numbers, %, by model and column: its Table 2."""


COLUMNS = {
    "part-64": ("svhn-part", 64),
    "whole-64": ("svhn", 64),
    "whole-128": ("svhn", 128),
    "drawn-64": ("drawn", 64),
}
"""By name: where the numbers come from, and the pixels along each side of a picture."""


@dataclass(frozen=True)
class NumberPlan(Plan):
    """A recipe for house numbers, by name.

    Args:
        widths: a name from `models.NUMBER_WIDTHS`.
        dense_dropout: see `models.build_number_reader`.
        jitter: see `data.HouseNumberBatches`.
    """

    widths: str = "paper"
    dense_dropout: float = 0.0
    jitter: bool = False

    def settings(self, steps: int) -> dict[str, Any]:
        """Return all that training for so many steps depends on, by name."""
        added = {name: getattr(self, name) for name in ("widths", "dense_dropout", "jitter")}
        return super().settings(steps) | added


NUMBER_PLANS: dict[str, NumberPlan] = {
    "paper": NumberPlan(
        Recipe(
            steps=400_000,
            batch_size=128,
            learning_rate=0.01,
            momentum=0.9,
            localisation_rate=0.1,
            weight_decay=5e-4,
            schedule="steps",
            drop_every=80_000,
        ),
        cpu_steps=400_000,
        widths="paper",
        dropout=0.5,
        dense_dropout=0.5,
        facts=(
            Fact("SGD, 400 000 iterations of 128 numbers, rate 0.01, a tenth of it after every "
                 "80 000, weight decay 0.0005, a tenth of the rate for the localisation nets", "b"),
            Fact("a momentum of 0.9, as for the distorted digits", "c"),
            Fact("the loss is the mean over the five positions, and not their sum", "c"),
            Fact("no jitter", "c"),
        ),
    ),
    "modern": NumberPlan(
        Recipe(
            steps=1200,
            batch_size=64,
            optimiser="adamw",
            learning_rate=0.004,
            localisation_rate=0.1,
            weight_decay=0.01,
            schedule="one-cycle",
            warmup=0.2,
        ),
        cpu_steps=1200,
        widths="small",
        batch_norm=True,
        dense_dropout=0.3,
        jitter=True,
        facts=(Fact("nothing of this recipe is the paper's but the order of the layers and the "
                    "localisation nets' tenth of the rate", "c"),),
    ),
}  # fmt: skip
"""The paper's recipe, and one that a CPU carries out in minutes; each for all models alike."""


def _at_rate(plan: NumberPlan, rate: float) -> NumberPlan:
    """Return the same recipe with another rate for the localisation nets."""
    return replace(plan, recipe=replace(plan.recipe, localisation_rate=rate))


NUMBER_PLANS |= {
    f"modern-rate-{rate:g}": _at_rate(NUMBER_PLANS["modern"], rate) for rate in (1.0, 0.01)
}


@lru_cache(maxsize=1)
def _numbers(source: str, side: int) -> tuple[HouseNumbers, HouseNumbers, HouseNumbers]:
    """Return the numbers to train on, to choose by and to be judged by; say once which they are."""
    train_on, held_out = hold_out_numbers(load_house_numbers("train", source, side))
    return train_on, held_out, load_house_numbers("test", source, side)


@torch.no_grad()
@exact_float32()
def judge_numbers(model: nn.Module, judge_by: FixedNumbers) -> dict[str, Any]:
    """Return a reader's errors on numbers, whole and digit by digit, and by length.

    Args:
        model: gives scores (N, 11, 5); it is put into evaluation mode.
        judge_by: what it reads.

    Returns:
        `test_error`, the share in % of numbers that are wrong anywhere; `digit_error`, that of
        digits wrong at their place, among the digits that are there; `by_length`, for each number
        of digits how many numbers there are and how many are wrong; `misread`, the places of the
        wrong numbers, and `answers`, what was read in those places.
    """
    model.eval()
    parts = [(model(U).argmax(dim=1).cpu(), target.cpu()) for U, target in judge_by]
    said, target = (torch.cat(one) for one in zip(*parts, strict=True))
    lengths = number_lengths(target)
    off = said != target
    wrong = off.any(dim=1)
    there = torch.arange(target.shape[1]) < lengths[:, None]
    misread = wrong.nonzero().flatten()
    return {
        "test_error": round(100 * wrong.float().mean().item(), 4),
        "digit_error": round(100 * off[there].float().mean().item(), 4),
        "by_length": {
            str(k): [int((lengths == k).sum()), int(wrong[lengths == k].sum())]
            for k in range(1, target.shape[1] + 1)
        },
        "misread": misread.tolist(),
        "answers": said[misread].tolist(),
    }


@dataclass(frozen=True)
class NumberCell:
    """A reader of numbers from one source, trained by a recipe from one seed.

    Args:
        numbers: a name from `COLUMNS`: a column of the table.
        model: a name from `models.NUMBER_MODELS`: a row of it.
        recipe: a name from `NUMBER_PLANS`.
        seed: of the initial weights, the order of the numbers and their jitter.
        steps: training steps, to which the recipe's schedule is squeezed or stretched.
    """

    numbers: str
    model: str
    recipe: str
    seed: int
    steps: int

    def __post_init__(self) -> None:
        check_choice("model", self.model, NUMBER_MODELS)
        check_choice("recipe", self.recipe, tuple(NUMBER_PLANS))
        check_choice("numbers", self.numbers, tuple(COLUMNS))
        check_run(self.seed, self.steps)

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"numbers-{self.numbers}_{self.model}_{self.recipe}_{self.steps}_seed{self.seed}"

    @property
    def title(self) -> str:
        """What it is called in a line of a report."""
        return f"{self.numbers} {self.model} seed {self.seed}"

    def of_any_length(self) -> str:
        """Return the name with a star in the place of the steps, as a pattern for `glob`."""
        return self.name.replace(f"_{self.steps}_seed", "_*_seed")

    def settings(self) -> dict[str, Any]:
        """Return all that its result depends on but the machine: what makes it *this* cell."""
        plan = NUMBER_PLANS[self.recipe]
        return {
            **asdict(self),
            "dataset": COLUMNS[self.numbers][0],
            "recipe_settings": plan.settings(self.steps),
        }

    def prepare(self, device: torch.device) -> Work:
        """Return what is to be done: the numbers, the model of that seed, and how it is judged."""
        plan = NUMBER_PLANS[self.recipe]
        recipe = plan.recipe.scaled(self.steps)
        source, side = COLUMNS[self.numbers]
        train_on, held_out, test = _numbers(source, side)
        torch.manual_seed(self.seed)
        model = build_number_reader(
            self.model,
            (side, side),
            plan.widths,
            batch_norm=plan.batch_norm,
            dropout=plan.dropout,
            dense_dropout=plan.dense_dropout,
        )
        parts = {"train": train_on, "held-out": held_out, "test": test}
        return Work(
            model=model.to(device),
            recipe=recipe,
            batches=HouseNumberBatches(
                train_on,
                batch_size=recipe.batch_size,
                seed=self.seed,
                jitter=plan.jitter,
                device=device,
            ),
            choose_by=FixedNumbers(held_out, device=device),
            judge=lambda model: judge_numbers(model, FixedNumbers(test, device=device)),
            facts={
                "width": plan.widths,
                "parameters": count_parameters(model),
                "numbers": {name: len(part.labels) for name, part in parts.items()},
            },
        )


def number_cells(
    *,
    columns: Sequence[str] = tuple(COLUMNS),
    rows: Sequence[str] = NUMBER_MODELS,
    seeds: Sequence[int] = (0, 1, 2),
    recipe: str = "modern",
    steps: int,
) -> list[NumberCell]:
    """Return the cells of a table, one seed of them all before the next seed."""
    return [
        NumberCell(column, row, recipe, seed, steps)
        for seed in seeds
        for column in columns
        for row in rows
    ]


TABLE2 = Layout(
    key="numbers",
    columns=tuple(COLUMNS),
    rows=NUMBER_MODELS,
    paper=NUMBER_PAPER,
    source=(
        "Jaderberg, Simonyan, Zisserman and Kavukcuoglu 2015, Spatial Transformer Networks, "
        "Table 2; https://arxiv.org/abs/1506.02025"
    ),
    paper_data=("svhn",),
    recipes=NUMBER_PLANS,
    facts={"readers": NUMBER_FACTS},
    measure="whole numbers wrong, %",
    kept=("digit_error", "by_length", "misread"),  # the answers stay in the cells' own files
)
"""The paper's Table 2: its readers of house numbers."""
