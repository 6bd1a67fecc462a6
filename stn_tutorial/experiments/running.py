"""Train one cell, or go on with it, while nobody else does.

Every choice is made by the digits that are held out, 10 000 of MNIST's; the test digits are looked
at once, when a cell's training has ended.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from stn_tutorial.experiments.results import failure, finished, precisions, write, write_failure
from stn_tutorial.experiments.work import Task
from stn_tutorial.training import (
    Execution,
    UnusableFileError,
    autocast_dtype,
    processes,
    read_runs,
    train,
    write_whole,
)

__all__ = ["BusyError", "FailedCellError", "run"]


class BusyError(RuntimeError):
    """Another process holds the lock."""


class FailedCellError(RuntimeError):
    """A cell's training failed, now or before; a file beside the results says so."""


@contextmanager
def locked(out: Path, name: str, *, wait: bool) -> Iterator[None]:
    """Hold the lock of that name in a folder of results.

    The operating system lets go of it when its process dies, however it dies. (The files stay: to
    unlink one that another process waits for would make two locks of it.)
    """
    path = out / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise BusyError(f"another process trains {name}: it holds {path}") from None
    try:
        yield
    finally:
        lock.release()


def other_precision(
    result: dict[str, Any], execution: Execution, device: torch.device
) -> str | None:
    """Return the precision of a result when it is not the one that is asked for."""
    asked = str(autocast_dtype(execution, device)).removeprefix("torch.")
    found = precisions(result)
    return None if found == [asked] else f"{' and '.join(found)}, not {asked}"


def _of_other_length(cell: Task, out: Path) -> None:
    """Say so where a checkpoint lies that this cell would have gone on from, but for its length."""
    mine = out / f"{cell.name}.checkpoint.pt"
    others = sorted(set(out.glob(f"{cell.of_any_length()}.checkpoint.pt")) - {mine})
    if others and not mine.exists():
        print(
            f"{cell.title} begins anew, with {cell.steps} steps. {others[0]} is of another "
            "length and stays as it is; --steps with its number goes on with it.",
            flush=True,
        )


def run(
    cell: Task,
    out: Path | str,
    *,
    device: torch.device | str = "cpu",
    execution: Execution | None = None,
    every: int | None = None,
    wait: bool = False,
    on_start: Callable[[], object] | None = None,
) -> dict[str, Any] | None:
    """Train a cell, or go on with it, or only return its result when it is finished.

    A result in another precision is returned as well, and a line says so.

    Args:
        cell: what to train.
        out: the folder for its result, `NAME.json`, its weights, `NAME.pt`, and its checkpoint.
        device: where to train.
        execution: how; see `training.Execution`. Channels last in float32 when left out.
        every: steps between two looks at the held-out digits, each followed by a checkpoint; a
            fortieth of the steps when left out.
        wait: whether to wait while another process trains this very cell.
        on_start: called when training begins: not for a result that is there.

    Raises:
        BusyError: another process trains it, and `wait` is False.
        FailedCellError: its training failed, now or in an earlier call, and is not tried again
            while `NAME.failed` is there. The message says why, and what it would take.
        UnusableFileError: a file of this cell is damaged, or of other settings.
        OSError: the folder cannot be written to, or is full. What was saved before is whole.

    Returns:
        The result, as it stands in the file. Under `torchrun`, None to all processes but the first.
    """
    out, device = Path(out), torch.device(device)
    execution = Execution(channels_last=True) if execution is None else execution
    rank, world = processes()
    result = finished(cell, out)
    if result is None:
        with locked(out, cell.name, wait=wait) if rank == 0 else nullcontext():
            meanwhile = finished(cell, out) if world == 1 else None
            result = meanwhile or _train(cell, out, device, execution, every, on_start)
            if meanwhile is None:
                return result
    if result and rank == 0 and (other := other_precision(result, execution, device)):
        print(
            f"{cell.title} was trained in {other}, and is left as it is. To train it anew, choose "
            f"another folder, or delete {out / cell.name}.json.",
            flush=True,
        )
    return result


def _train(
    cell: Task,
    out: Path,
    device: torch.device,
    execution: Execution,
    every: int | None,
    on_start: Callable[[], object] | None,
) -> dict[str, Any] | None:
    """Train a cell whose lock is held."""
    if reason := failure(cell, out):
        raise FailedCellError(reason)
    if on_start is not None:
        on_start()
    _of_other_length(cell, out)
    work = cell.prepare(device)
    checkpoint = out / f"{cell.name}.checkpoint.pt"
    rank, _ = processes()
    try:
        records = train(
            work.model,
            work.batches,
            work.recipe,
            evaluate=lambda model: work.error(model, work.choose_by),
            loss=work.loss,
            every=every or max(cell.steps // 40, 1),
            checkpoint=checkpoint,
            execution=execution,
        )
        if rank > 0:
            return None
        judged = work.judge(work.model)  # here and nowhere else
    except (OSError, UnusableFileError):
        raise  # no fault of the cell's
    except Exception as error:
        if rank > 0:
            raise
        raise FailedCellError(f"failed ({write_failure(cell, out, error, execution)})") from error
    seconds = records[-1]["seconds"]
    result = {
        "settings": cell.settings(),
        **work.facts,
        "held_out_error": round(records[-1]["error"], 4),
        **judged,
        "seconds": round(seconds, 3),
        "images_per_second": round(cell.steps * work.recipe.batch_size / seconds),
        "history": [
            {
                "step": record["step"],
                "seconds": round(record["seconds"], 3),
                "loss": round(record["loss"], 5),
                "held_out_error": round(record["error"], 4),
            }
            for record in records
        ],
        "runs": read_runs(checkpoint),
    }
    weights = io.BytesIO()
    torch.save({name: value.cpu() for name, value in work.model.state_dict().items()}, weights)
    write_whole(out / f"{cell.name}.pt", weights.getvalue())
    write(out / f"{cell.name}.json", result)
    checkpoint.unlink(missing_ok=True)
    return result
