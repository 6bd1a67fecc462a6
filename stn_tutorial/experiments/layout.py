"""How a table of the paper's is laid out, whatever its rows and columns are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stn_tutorial._facts import Fact
from stn_tutorial.experiments.recipes import RECIPES, Plan

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """A table's rows, its columns, and the figures that the paper prints in it.

    A result belongs to the table when its settings name one of the columns under `key`. So no two
    tables share a key and a column's name, and one folder may hold the results of all.

    Args:
        key: under which a cell's settings name its column: `"distortion"`.
        columns: their names, in order.
        rows: the models' names, in order; a cell's settings name them under `"model"`.
        paper: the paper's figures, by row and column; a figure that it does not print is left out.
        source: where the paper prints them.
        paper_data: the data sets beside whose results the paper's figures may stand.
        recipes: the recipes that its cells may name.
        facts: what the table rests on, by what it is about, for `_facts.assumptions`. The recipes'
            facts are added to them.
        measure: what its figures are, `"test error in %"`.
        kept: keys of a cell's result that the table keeps for each seed, besides the errors.
    """

    key: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    paper: Mapping[str, Mapping[str, float]]
    source: str
    paper_data: tuple[str, ...] = ("mnist",)
    recipes: Mapping[str, Plan] = field(default_factory=lambda: RECIPES)
    facts: Mapping[str, tuple[Fact, ...]] = field(default_factory=dict)
    measure: str = "test error in %"
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        strangers = set(self.paper) - set(self.rows)
        strangers |= {name for row in self.paper.values() for name in row} - set(self.columns)
        if strangers:
            raise ValueError(
                f"paper must name the table's rows and columns, but {sorted(strangers)} are none"
            )

    def printed(self, row: str, column: str, dataset: str) -> float | None:
        """Return the figure that the paper prints there, None where it has none for such data."""
        return self.paper.get(row, {}).get(column) if dataset in self.paper_data else None
