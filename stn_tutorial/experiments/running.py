"""Train cells, or go on with them.

Every choice is made by the digits that are held out, 10 000 of MNIST's; the test digits are looked
at once, when a cell's training has ended.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from stn_tutorial.data import DISTORTIONS, Batches, Digits, FixedSet, hold_out, load_digits
from stn_tutorial.experiments.cells import Cell, finished, write
from stn_tutorial.experiments.provenance import provenance
from stn_tutorial.experiments.recipes import RECIPES
from stn_tutorial.models import build, count_parameters, width
from stn_tutorial.training import Execution, error_rate, processes, train

__all__ = ["reproduce", "run"]


@lru_cache(maxsize=1)
def _digits(dataset: str) -> tuple[Digits, Digits, Digits]:
    """Return the digits to train on, to choose by and to be judged by; say once which they are."""
    train_on, held_out = hold_out(load_digits("train", dataset))
    return train_on, held_out, load_digits("test", dataset)


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
    machine = provenance(device)  # before hours in which the repository may move on
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
    write(out / f"{cell.name}.json", result)
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
