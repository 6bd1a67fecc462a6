"""One table of all finished cells, beside the paper's figures."""

import json
import statistics
from pathlib import Path
from typing import Any

from stn_tutorial._facts import assumptions
from stn_tutorial.data import DISTORTIONS
from stn_tutorial.experiments.cells import read, write
from stn_tutorial.experiments.paper import PAPER, PAPER_SOURCE, TC_FACT
from stn_tutorial.experiments.recipes import RECIPES
from stn_tutorial.models import FACTS as MODEL_FACTS
from stn_tutorial.models import MODELS

__all__ = ["merge", "render"]


def _results(folder: Path) -> list[dict[str, Any]]:
    found = [read(path) for path in sorted(folder.glob("*_seed*.json"))]
    for result, path in zip(found, sorted(folder.glob("*_seed*.json")), strict=True):
        if "settings" not in result or "test_error" not in result:
            raise ValueError(f"{path} is not a result: it lacks its settings or its test error")
    return found


def _joined(results: list[dict[str, Any]], key: str) -> list[Any]:
    """Return the different values of a key, in order."""
    return list(dict.fromkeys(result[key] for result in results))


def merge(folder: Path | str, target: Path | str | None = None) -> dict[str, Any]:
    """Make one table of all finished cells in a folder.

    Args:
        folder: where `run` wrote its files.
        target: a JSON file to write the table to; not written when left out.

    Returns:
        The table: `rows`, one for each model, distortion, recipe, length and data set, with its
        seeds' errors, their mean and spread, which test digits each misread, and the paper's
        figure; `source` of that figure; and `assumptions`, by what they are about.

    Raises:
        ValueError: a file is damaged, or is no result.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in _results(Path(folder)):
        s = result["settings"]
        key = (s["dataset"], s["recipe"], s["steps"], s["distortion"], s["model"])
        groups.setdefault(key, []).append(result)
    rows = []
    for (dataset, recipe, steps, distortion, model), results in groups.items():
        results.sort(key=lambda result: result["settings"]["seed"])
        if len({json.dumps({**r["settings"], "seed": 0}) for r in results}) > 1:
            raise ValueError(
                f"the seeds of {distortion} {model} in {folder} differ in the settings of the "
                f"recipe {recipe!r}: they are not one cell"
            )
        tests = [result["test_error"] for result in results]
        rows.append(
            {
                "dataset": dataset,
                "recipe": recipe,
                "steps": steps,
                "distortion": distortion,
                "model": model,
                "width": results[0]["width"],
                "parameters": results[0]["parameters"],
                "seeds": [result["settings"]["seed"] for result in results],
                "test_errors": tests,
                "mean": round(statistics.mean(tests), 4),
                "spread": round(statistics.stdev(tests), 4) if len(tests) > 1 else None,
                "misread": [result["misread"] for result in results],
                "held_out_errors": [result["held_out_error"] for result in results],
                "seconds": [result["seconds"] for result in results],
                "histories": [result["history"] for result in results],
                "commands": _joined(results, "command"),
                "commits": _joined(results, "commit"),
                "devices": _joined(results, "device"),
                "threads": _joined(results, "threads"),
                "precisions": _joined(results, "precision"),
                "versions": results[0]["versions"],
                "recipe_settings": results[0]["settings"]["recipe_settings"],
                "paper": PAPER[model].get(distortion) if dataset == "mnist" else None,
            }
        )
    order = {name: place for place, name in enumerate((*DISTORTIONS, *MODELS))}
    rows.sort(
        key=lambda r: (
            *(r["dataset"], r["recipe"], r["steps"]),
            *(order[r["distortion"]], order[r["model"]]),
        )
    )
    table = {
        "rows": rows,
        "paper": PAPER,
        "source": PAPER_SOURCE,
        "assumptions": {
            **{name: assumptions(d.facts) for name, d in DISTORTIONS.items()},
            "models": assumptions(MODEL_FACTS),
            **{f"recipe {name}": assumptions(r.facts) for name, r in RECIPES.items()},
            "table": assumptions((TC_FACT,)),
        },
    }
    if target is not None:
        write(Path(target), table)
    return table


def render(table: dict[str, Any]) -> str:
    """Show a table of `merge` as text: ours, and the paper's in brackets.

    Args:
        table: as `merge` returns it.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in table["rows"]:
        groups.setdefault((row["dataset"], row["recipe"], row["steps"]), []).append(row)
    lines = []
    for (dataset, recipe, steps), rows in groups.items():
        columns = [name for name in DISTORTIONS if any(r["distortion"] == name for r in rows)]
        by_place = {(row["model"], row["distortion"]): row for row in rows}
        # A table of our own, beside a column of theirs each: never a mean of the two.
        lines += [f"{dataset}, {recipe} recipe, {steps} steps: test error in %, mean ± spread (n)"]
        lines += [f"{'':<19}" + "".join(f"{name:>17} {'paper':>6}" for name in columns)]
        for model in MODELS:
            if not any((model, name) in by_place for name in columns):
                continue
            line = f"{model:<19}"
            for name in columns:
                row = by_place.get((model, name))
                ours = "–"
                if row is not None:
                    spread = "" if row["spread"] is None else f" ± {row['spread']:.2f}"
                    ours = f"{row['mean']:.2f}{spread} ({len(row['seeds'])})"
                theirs = PAPER[model].get(name) if dataset == "mnist" else None
                line += f"{ours:>17} {'–' if theirs is None else f'{theirs:.1f}':>6}"
            lines.append(line)
        lines.append("")
    if not lines:
        return "No cell is finished yet."
    if any(row["paper"] is not None for row in table["rows"]):
        lines.append(f"paper: {PAPER_SOURCE}")
    return "\n".join(lines).rstrip()
