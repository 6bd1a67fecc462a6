"""The tables that `stn-tutorial reproduce` knows, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stn_tutorial.experiments.addition import ADDITION, addition_cells
from stn_tutorial.experiments.cells import cells
from stn_tutorial.experiments.house_numbers import TABLE2, number_cells
from stn_tutorial.experiments.layout import Layout
from stn_tutorial.experiments.paper import TABLE1
from stn_tutorial.experiments.table import merge, render
from stn_tutorial.experiments.work import Task

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True)
class Experiment:
    """A table: which cells it has, and how they are laid out.

    Args:
        title: what it is, in a line.
        layout: its rows, its columns, and the paper's figures.
        cells: from `columns`, `rows`, `seeds`, `recipe` and `steps`, by these names, to the cells
            in the order in which they are to be trained.
    """

    title: str
    layout: Layout
    cells: Callable[..., Sequence[Task]]

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of its rows."""
        return self.layout.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return self.layout.columns

    def merge(self, folder: Path) -> dict[str, Any]:
        """Return the table of the results in a folder, ready for JSON; see `merge`."""
        return merge(folder, layout=self.layout)

    def render(self, table: dict[str, Any]) -> str:
        """Return the table's text; see `render`."""
        return render(table, self.layout)


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment(
        title="the paper's Table 1, distorted MNIST",
        layout=TABLE1,
        cells=cells,
    ),
    "addition": Experiment(
        title="the paper's table of sums, MNIST addition",
        layout=ADDITION,
        cells=addition_cells,
    ),
    "svhn": Experiment(
        title="the paper's Table 2, house numbers",
        layout=TABLE2,
        cells=number_cells,
    ),
}
"""By name; each table's results have their own file names, so that one folder may hold several."""
