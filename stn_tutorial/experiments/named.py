"""The tables that `stn-tutorial reproduce` knows, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stn_tutorial.data import DISTORTIONS
from stn_tutorial.experiments.cells import cells
from stn_tutorial.experiments.table import merge, render
from stn_tutorial.experiments.work import Task
from stn_tutorial.models import MODELS

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True)
class Experiment:
    """A table: which cells it has, and how they are put together.

    Args:
        title: what it is, in a line.
        rows: the names of its rows.
        columns: the names of its columns.
        cells: from `columns`, `rows`, `seeds`, `recipe` and `steps`, by these names, to the cells
            in the order in which they are to be trained.
        merge: from the folder of the results to the table, ready for JSON.
        render: from the table to its text.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Callable[..., Sequence[Task]]
    merge: Callable[[Path], dict[str, Any]]
    render: Callable[[dict[str, Any]], str]


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        title="the paper's Table 1, distorted MNIST",
        rows=MODELS,
        columns=tuple(DISTORTIONS),
        cells=cells,
        merge=merge,
        render=render,
    ),
}
"""By name; each table's results have their own file names, so that one folder may hold several."""
