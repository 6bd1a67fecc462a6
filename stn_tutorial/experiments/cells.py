"""A cell of the table: a model on a distortion, trained by a recipe from one seed; its result."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stn_tutorial._checks import check_choice
from stn_tutorial.data import DISTORTIONS, dataset_name
from stn_tutorial.experiments.recipes import RECIPES
from stn_tutorial.models import MODELS

__all__ = ["Cell", "cells", "finished"]


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
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, but {self.seed} was given")
        if self.steps < 1:
            raise ValueError(f"steps must be 1 or more, but {self.steps} was given")

    @property
    def name(self) -> str:
        """What its files are called."""
        return (
            f"{self.dataset}_{self.distortion}_{self.model}_{self.recipe}"
            f"_{self.steps}_seed{self.seed}"
        )

    def settings(self) -> dict[str, Any]:
        """Return all that its result depends on but the machine: what makes it *this* cell."""
        return asdict(self) | {"recipe_settings": RECIPES[self.recipe].settings(self.steps)}


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


def write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not a result ({error}). Delete it, and its cell is run again."
        ) from error


def finished(cell: Cell, out: Path | str) -> dict[str, Any] | None:
    """Return a cell's result where there is one.

    Args:
        cell: which.
        out: the folder of the results.

    Raises:
        ValueError: the file is damaged, or was made with other settings of the recipe.
    """
    path = Path(out) / f"{cell.name}.json"
    if not path.exists():
        return None
    result = read(path)
    if result.get("settings") != cell.settings():
        raise ValueError(
            f"{path} was made with other settings of the recipe {cell.recipe!r}. Choose another "
            "folder, or delete that file to run its cell again."
        )
    return result
