"""The paper's table of distorted digits, cell by cell (chapters 10 and 11).

A *cell* is a model on a distortion, trained by a recipe from one seed. `run` trains it and writes
one JSON file when it is done; a cell whose file is there is not run again, and one that was
interrupted goes on from its checkpoint. `merge` makes one table of the files, and `render` shows it
beside the paper's figures, which stand in `PAPER`.

Every choice is made by the digits that are held out, 10 000 of MNIST's; the test digits are looked
at once, when a cell's training has ended.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torchvision

from stn_tutorial import __version__
from stn_tutorial._checks import check_choice
from stn_tutorial._facts import Fact, assumptions
from stn_tutorial.data import (
    DISTORTIONS,
    Batches,
    Digits,
    FixedSet,
    dataset_name,
    hold_out,
    load_digits,
)
from stn_tutorial.models import FACTS as MODEL_FACTS
from stn_tutorial.models import MODELS, build, count_parameters, width
from stn_tutorial.training import Execution, Recipe, error_rate, processes, train

__all__ = [
    "PAPER",
    "PAPER_SOURCE",
    "RECIPES",
    "Cell",
    "Plan",
    "cells",
    "default_steps",
    "finished",
    "merge",
    "render",
    "reproduce",
    "run",
]

PAPER_SOURCE = (
    "Jaderberg, Simonyan, Zisserman and Kavukcuoglu 2015, Spatial Transformer Networks, Table 1 "
    "and, for TC, its text; https://arxiv.org/abs/1506.02025"
)

PAPER: dict[str, dict[str, float]] = {
    "fcn": {"R": 2.1, "RTS": 5.2, "P": 3.1, "E": 3.2, "TC": 13.2},
    "cnn": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 1.4, "TC": 3.5},
    "st-fcn-affine": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 2.7, "TC": 2.0},
    "st-fcn-projective": {"R": 1.3, "RTS": 0.9, "P": 1.4, "E": 2.6},
    "st-fcn-tps": {"R": 1.1, "RTS": 0.8, "P": 1.4, "E": 2.4},
    "st-cnn-affine": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.2, "TC": 1.7},
    "st-cnn-projective": {"R": 0.8, "RTS": 0.6, "P": 0.8, "E": 1.3},
    "st-cnn-tps": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.1},
}
"""The paper's test errors in %, the mean of three seeds, by model and distortion."""

TC_FACT = Fact("the paper's TC figures for ST-FCN and ST-CNN are those of the affine map", "c")


# --- Recipes ---


@dataclass(frozen=True)
class Plan:
    """A recipe by name: the engine's settings, and what is added to the models' layers.

    Args:
        recipe: the engine's; its steps are those meant for a GPU.
        cpu_steps: the length on a CPU, when nothing else is asked for.
        batch_norm: see `models.build`.
        dropout: see `models.build`.
        facts: what it rests on, and how sure we are of each.
    """

    recipe: Recipe
    cpu_steps: int
    batch_norm: bool = False
    dropout: float = 0.0
    facts: tuple[Fact, ...] = ()

    def settings(self, steps: int) -> dict[str, Any]:
        """Return all that training for so many steps depends on, by name."""
        added = {"batch_norm": self.batch_norm, "dropout": self.dropout}
        return asdict(self.recipe.scaled(steps)) | added


RECIPES: dict[str, Plan] = {
    "paper": Plan(
        Recipe(
            steps=150_000,
            batch_size=256,
            optimiser="sgd",
            learning_rate=0.01,
            schedule="steps",
            drop_every=50_000,
        ),
        cpu_steps=150_000,
        facts=(
            Fact("SGD, 150 000 iterations of 256 digits", "b"),
            Fact("learning rate 0.01, a tenth after every 50 000", "b"),
            Fact("no weight decay, no dropout", "b"),
            Fact("no momentum", "c"),
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
            learning_rate=0.04,  # the best of six, for CNN and for ST-CNN: benchmarks/tuning.py
            localisation_rate=0.3,
            weight_decay=0.01,
            label_smoothing=0.1,
            schedule="one-cycle",
            warmup=0.2,
        ),
        cpu_steps=15_000,  # 38 passes
        batch_norm=True,
        dropout=0.2,
        facts=(Fact("nothing of this recipe is the paper's but the layers", "c"),),
    ),
}
"""The paper's recipe, and one of ten years later for the same layers; each for all models alike."""


# --- Cells ---


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


def default_steps(recipe: str, device: torch.device | str) -> int:
    """Return a recipe's length on such a device: the full one on a GPU, perhaps a shorter on a CPU.

    Args:
        recipe: a name from `RECIPES`.
        device: where it is to run.
    """
    check_choice("recipe", recipe, tuple(RECIPES))
    chosen = RECIPES[recipe]
    return chosen.cpu_steps if torch.device(device).type == "cpu" else chosen.recipe.steps


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


def _write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
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
    result = _read(path)
    if result.get("settings") != cell.settings():
        raise ValueError(
            f"{path} was made with other settings of the recipe {cell.recipe!r}. Choose another "
            "folder, or delete that file to run its cell again."
        )
    return result


@lru_cache(maxsize=1)
def _digits(dataset: str) -> tuple[Digits, Digits, Digits]:
    """Return the digits to train on, to choose by and to be judged by; say once which they are."""
    train_on, held_out = hold_out(load_digits("train", dataset))
    return train_on, held_out, load_digits("test", dataset)


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> str | None:
    """Return the commit of the repository that the package lies in, marked when it was changed."""
    # An installed package may lie inside somebody else's repository.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    name = _git("rev-parse", "HEAD")
    return f"{name}, changed" if _git("status", "--porcelain", "--", ".") else name


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{device.type}: {models[0] if models else platform.processor() or platform.machine()}"


def _machine(device: torch.device) -> dict[str, Any]:
    program = Path(sys.argv[0]).name
    return {
        "command": " ".join(["stn-tutorial" if program == "cli.py" else program, *sys.argv[1:]]),
        "commit": _commit(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "stn-tutorial": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }


# --- Training them ---


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write weights, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save({name: value.cpu() for name, value in weights.items()}, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@torch.no_grad()
def _misread(model: torch.nn.Module, judge_by: FixedSet) -> list[int]:
    """Return the places of the digits whose highest score is not their label's, in order."""
    model.eval()
    wrong = [model(U).argmax(dim=1) != target for U, target in judge_by]
    return torch.cat(wrong).nonzero().flatten().tolist()


def run(
    cell: Cell,
    out: Path | str,
    *,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
    every: int | None = None,
) -> dict[str, Any] | None:
    """Train a cell, or go on with it, or only return its result when it is finished.

    Args:
        cell: what to train.
        out: the folder for its result, `NAME.json`, its weights, `NAME.pt`, and its checkpoint.
        device: where to train.
        execution: how; see `training.Execution`. Channels last in float32 when left out.
        every: steps between two looks at the held-out digits, each followed by a checkpoint; a
            fortieth of the steps when left out.

    Returns:
        The result, as it stands in the file. Under `torchrun`, None to all processes but the first.
    """
    out, device = Path(out), torch.device(device)
    execution = Execution(channels_last=True) if execution is None else execution
    done = finished(cell, out)
    if done is not None:
        return done
    machine = _machine(device)  # before hours in which the repository may move on
    plan, distortion = RECIPES[cell.recipe], DISTORTIONS[cell.distortion]
    recipe = plan.recipe.scaled(cell.steps)
    train_on, held_out, test = _digits(cell.dataset)
    torch.manual_seed(cell.seed)
    model = build(cell.model, distortion.size, batch_norm=plan.batch_norm, dropout=plan.dropout)
    model.to(device)
    batches = Batches(
        train_on, cell.distortion, batch_size=recipe.batch_size, seed=cell.seed, device=device
    )
    choose_by = FixedSet(held_out, cell.distortion, "held-out", device=device)
    checkpoint = out / f"{cell.name}.checkpoint.pt"
    records = train(
        model,
        batches,
        recipe,
        evaluate=lambda model: error_rate(model, choose_by),
        every=every or max(cell.steps // 40, 1),
        checkpoint=checkpoint,
        execution=execution,
    )
    if processes()[0] > 0:
        return None
    # Here and nowhere else.
    misread = _misread(model, FixedSet(test, cell.distortion, "test", device=device))
    seconds = records[-1]["seconds"]
    parts = {"train": train_on, "held-out": held_out, "test": test}
    result = {
        "settings": cell.settings(),
        "width": width(cell.model, distortion.size),
        "parameters": count_parameters(model),
        "digits": {name: len(part.labels) for name, part in parts.items()},
        "held_out_error": round(records[-1]["error"], 4),
        "test_error": round(100 * len(misread) / len(test.labels), 4),
        "misread": misread,
        "seconds": round(seconds, 3),
        "images_per_second": round(cell.steps * recipe.batch_size / seconds),
        "history": [
            {
                "step": record["step"],
                "seconds": round(record["seconds"], 3),
                "loss": round(record["loss"], 5),
                "held_out_error": round(record["error"], 4),
            }
            for record in records
        ],
        "precision": execution.precision,
        "execution": asdict(execution),
        **machine,
    }
    _save(model.state_dict(), out / f"{cell.name}.pt")
    _write(out / f"{cell.name}.json", result)
    checkpoint.unlink(missing_ok=True)
    return result


def reproduce(
    todo: Sequence[Cell],
    out: Path | str,
    *,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
) -> None:
    """Run all cells that are not finished, and say so; `merge` then makes their table.

    Args:
        todo: the cells, in order; see `cells`.
        out: the folder of the results.
        device: where to train.
        execution: as in `run`.
    """
    for number, cell in enumerate(todo, 1):
        head = f"[{number}/{len(todo)}] {cell.distortion} {cell.model} seed {cell.seed}"
        before = finished(cell, out) is not None
        if not before and processes()[0] == 0:
            print(f"{head}: {cell.steps} steps", flush=True)
        result = run(cell, out, device=device, execution=execution)
        if result is not None and processes()[0] == 0:
            spent = ", finished before" if before else f" in {result['seconds'] / 60:.1f} min"
            print(f"{head}: test error {result['test_error']:.2f} %{spent}", flush=True)


# --- The table ---


def _results(folder: Path) -> list[dict[str, Any]]:
    found = [_read(path) for path in sorted(folder.glob("*_seed*.json"))]
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
        _write(Path(target), table)
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
