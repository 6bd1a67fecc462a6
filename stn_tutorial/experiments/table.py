"""One table of all finished cells, beside the paper's figures.

Which table it is, a `Layout` says: `TABLE1`, when nothing else is given.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stn_tutorial._facts import assumptions
from stn_tutorial.experiments.layout import Layout
from stn_tutorial.experiments.paper import TABLE1
from stn_tutorial.experiments.results import read, write
from stn_tutorial.experiments.running import locked
from stn_tutorial.training import UnusableFileError, clear_partial

__all__ = ["merge", "render", "write_table"]


def _results(folder: Path, layout: Layout) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the results of this table in a folder, and what is to be said of other files."""
    found, left_out = [], []
    for path in sorted(folder.glob("*_seed*.json")):
        try:
            result = read(path)
        except UnusableFileError as error:
            left_out.append(str(error))
            continue
        if result["settings"].get(layout.key) in layout.columns:  # no other experiment's
            found.append(result)
    for path in sorted(folder.glob("*_seed*.failed")):
        left_out.append(f"{path.stem} failed: {path} says why")
    return found, left_out


def _joined(results: list[dict[str, Any]], key: str) -> list[Any]:
    """Return the different values of a key of all results' runs, in order."""
    runs = [run for result in results for run in result["runs"]]
    return list(dict.fromkeys(run[key] for run in runs))


def _same_but_seed(settings: dict[str, Any]) -> str:
    return json.dumps({**settings, "seed": 0}, sort_keys=True)


def merge(
    folder: Path | str, target: Path | str | None = None, layout: Layout = TABLE1
) -> dict[str, Any]:
    """Make one table of all finished cells in a folder, whatever else lies there.

    Args:
        folder: where `run` wrote its files.
        target: a JSON file to write the table to; not written when left out.
        layout: which table.

    Returns:
        The table: `rows`, one for each model, column, recipe (with all its settings), length and
        data set, with its seeds' errors, their mean and spread, what the layout keeps of each (in
        Table 1, which test digits it misread), the runs that made them, and the paper's figure;
        `source` of that figure; `assumptions`, by what they are about; and `left_out`, a line for
        each file that is damaged or no result, and for each cell that failed.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    found, left_out = _results(Path(folder), layout)
    for result in found:
        groups.setdefault(_same_but_seed(result["settings"]), []).append(result)
    rows = []
    for results in groups.values():
        results.sort(key=lambda result: result["settings"]["seed"])
        s = results[0]["settings"]
        dataset, recipe, steps = s["dataset"], s["recipe"], s["steps"]
        column, model = s[layout.key], s["model"]
        tests = [result["test_error"] for result in results]
        rows.append(
            {
                "dataset": dataset,
                "recipe": recipe,
                "steps": steps,
                layout.key: column,
                "model": model,
                "width": results[0]["width"],
                "parameters": results[0]["parameters"],
                "seeds": [result["settings"]["seed"] for result in results],
                "test_errors": tests,
                "mean": round(statistics.mean(tests), 4),
                "spread": round(statistics.stdev(tests), 4) if len(tests) > 1 else None,
                **{key: [result[key] for result in results] for key in layout.kept},
                "held_out_errors": [result["held_out_error"] for result in results],
                "seconds": [result["seconds"] for result in results],
                "histories": [result["history"] for result in results],
                "commands": _joined(results, "command"),
                "commits": _joined(results, "commit"),
                "devices": _joined(results, "device"),
                "threads": _joined(results, "threads"),
                "precisions": _joined(results, "precision"),
                "versions": results[0]["runs"][-1]["versions"],
                "runs": [result["runs"] for result in results],
                "recipe_settings": results[0]["settings"]["recipe_settings"],
                "paper": layout.printed(model, column, dataset),
            }
        )
    columns, models = (list(names).index for names in (layout.columns, layout.rows))
    rows.sort(
        key=lambda r: (
            *(r["dataset"], r["recipe"], r["steps"], json.dumps(r["recipe_settings"])),
            *(columns(r[layout.key]), models(r["model"])),
        )
    )
    table = {
        "rows": rows,
        "paper": {row: dict(figures) for row, figures in layout.paper.items()},
        "source": layout.source,
        "assumptions": {
            **{name: assumptions(facts) for name, facts in layout.facts.items()},
            **{f"recipe {name}": assumptions(r.facts) for name, r in layout.recipes.items()},
        },
        "left_out": left_out,
    }
    if target is not None:
        write(Path(target), table)
    return table


def write_table(table: Callable[[], dict[str, Any]], target: Path) -> dict[str, Any]:
    """Make a table and write it, unless that very table is there; return it.

    Under a lock, so that of several commands the last one has seen the results of all.

    Args:
        table: makes it.
        target: a JSON file in the folder of the results.
    """
    with locked(target.parent, target.stem, wait=True):
        clear_partial(target)
        made = table()
        try:
            known = json.loads(target.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            known = None
        if known != made:
            write(target, made)
    return made


def render(table: dict[str, Any], layout: Layout = TABLE1) -> str:
    """Show a table of `merge` as text: ours, and beside each figure the paper's.

    Args:
        table: as `merge` returns it.
        layout: which table it is.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in table["rows"]:
        settings = json.dumps(row["recipe_settings"], sort_keys=True)
        key = (row["dataset"], row["recipe"], row["steps"], settings)
        groups.setdefault(key, []).append(row)
    lines = []
    for (dataset, recipe, steps, settings), rows in groups.items():
        namesakes = [json.loads(key[3]) for key in groups if key[:3] == (dataset, recipe, steps)]
        apart = ", ".join(
            f"{name} {value}"
            for name, value in json.loads(settings).items()
            if any(other.get(name) != value for other in namesakes)
        )
        columns = [c for c in layout.columns if any(r[layout.key] == c for r in rows)]
        wide = [max(17, len(name) + 1) for name in columns]
        first = max(19, *(len(model) + 1 for model in layout.rows))
        by_place = {(row["model"], row[layout.key]): row for row in rows}
        # A table of our own, beside a column of theirs each: never a mean of the two.
        title = f"{dataset}, {recipe} recipe, {steps} steps" + (f", {apart}" if apart else "")
        lines += [f"{title}: {layout.measure}, mean ± spread (n)"]
        heads = (f"{name:>{w}} {'paper':>6}" for name, w in zip(columns, wide, strict=True))
        lines += [f"{'':<{first}}" + "".join(heads)]
        for model in layout.rows:
            if not any((model, name) in by_place for name in columns):
                continue
            line = f"{model:<{first}}"
            for name, w in zip(columns, wide, strict=True):
                row = by_place.get((model, name))
                ours = "–"
                if row is not None:
                    spread = "" if row["spread"] is None else f" ± {row['spread']:.2f}"
                    ours = f"{row['mean']:.2f}{spread} ({len(row['seeds'])})"
                theirs = layout.printed(model, name, dataset)
                line += f"{ours:>{w}} {'–' if theirs is None else f'{theirs:.1f}':>6}"
            lines.append(line)
        lines.append("")
    if not lines:
        lines = ["No cell is finished yet."]
    if any(row["paper"] is not None for row in table["rows"]):
        lines.append(f"paper: {layout.source}")
    if table.get("left_out"):  # which tables of an earlier format lack
        lines += ["", *table["left_out"]]
    return "\n".join(lines).rstrip()
