"""All cells of a table, one after the other; several commands on one folder share them."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from stn_tutorial.experiments.results import finished, precisions
from stn_tutorial.experiments.running import BusyError, FailedCellError, run
from stn_tutorial.experiments.work import Task
from stn_tutorial.training import Execution, UnusableFileError

__all__ = ["reproduce"]

LOOK_AGAIN = 1.0
"""Seconds after which a command that has nothing left to do looks again at what others do."""


def line(result: dict, *, before: bool) -> str:
    """Return what is said of a finished cell."""
    spent = f", in {result['seconds'] / 60:.1f} min, {' and '.join(precisions(result))}"
    return f"test error {result['test_error']:.2f} %" + (", finished before" if before else spent)


def reproduce(
    todo: Sequence[Task],
    out: Path | str,
    *,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
) -> dict[str, str]:
    """Run all cells that are not finished, and say so; a table is then made of what there is.

    A cell that fails does not keep the others from being run. A cell that another process trains
    is left to it: this call takes the next one, and at the end waits for those of the others, so
    that it takes over what a process leaves that is killed.

    Args:
        todo: the cells, in order; see `cells`.
        out: the folder of the results.
        device: where to train.
        execution: as in `run`.

    Raises:
        OSError: the folder cannot be written to, or is full.

    Returns:
        What kept a cell from being finished, by the cell's title; nothing when all are.
    """
    out, problems, told = Path(out), {}, False
    left = dict(enumerate(todo, 1))
    while left:
        busy = {}
        for number, cell in left.items():
            head = f"[{number}/{len(todo)}] {cell.title}"
            started: list[bool] = []

            def start(head: str = head, cell: Task = cell, started: list = started) -> None:
                started.append(True)
                print(f"{head}: {cell.steps} steps", flush=True)

            try:
                result = run(cell, out, device=device, execution=execution, on_start=start)
            except BusyError:
                busy[number] = cell
                continue
            except (FailedCellError, UnusableFileError) as error:
                problems[cell.title] = str(error)
                print(f"{head}: {error}", flush=True)
                continue
            if result is not None:  # under `torchrun` the first process alone has it
                print(f"{head}: {line(result, before=not started)}", flush=True)
        if len(busy) == len(left):
            if not told:
                print(f"waiting for {len(busy)} cells that other commands train", flush=True)
                told = True
            time.sleep(LOOK_AGAIN)
        left = busy
    return problems


def count_finished(todo: Sequence[Task], out: Path) -> int:
    """Return how many cells have a result; a damaged one is none."""
    count = 0
    for cell in todo:
        try:
            count += finished(cell, out) is not None
        except UnusableFileError:
            continue
    return count
