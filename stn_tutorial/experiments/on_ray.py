"""The same queue on a Ray cluster: one cell a task, on whatever node has room for it.

Ray is an extra (`pip install "stn-tutorial[ray]"`) and is imported only here.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stn_tutorial.experiments.queue import line
from stn_tutorial.experiments.results import finished, write
from stn_tutorial.experiments.running import FailedCellError, run
from stn_tutorial.experiments.work import Task
from stn_tutorial.training import Execution, UnusableFileError, write_whole

__all__ = ["connect", "reproduce_on_ray"]

RETRIES = 10  # a node that is rented by the hour may be taken away more than once in a run


def connect(address: str | None = None) -> Any:
    """Return `ray`, connected: to RAY_ADDRESS, to a cluster on this machine, or to a new one here.

    Raises:
        RuntimeError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RuntimeError('Ray is not installed here: pip install "stn-tutorial[ray]"') from error
    if not ray.is_initialized():
        # What a worker needs to find the data; and its lines stay in its own log.
        names = [name for name in os.environ if name.startswith("STN_TUTORIAL_")]
        ray.init(
            address=address,
            runtime_env={"env_vars": {name: os.environ[name] for name in names}},
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    return ray


def _train_on_a_node(
    cell: Task, out: Path, device: str, execution: Execution, cores: int, command: list[str]
) -> tuple[str, Any]:
    """Run a cell where Ray has put this task; return what became of it, and where."""
    sys.argv[:] = command  # for the list of runs, in which Ray's own command says nothing
    torch.set_num_threads(max(cores, 1))
    try:
        # A node that is lost may live on a while, and hold the lock of what is tried again here.
        result = run(cell, out, device=device, execution=execution, wait=True)
    except (FailedCellError, UnusableFileError) as error:
        return "problem", str(error)
    except OSError as error:
        return "problem", f"{error.filename}: {error.strerror}, on {os.uname().nodename}"
    return "result", (result, (out / f"{cell.name}.pt").read_bytes())


def reproduce_on_ray(
    todo: Sequence[Task],
    out: Path | str,
    *,
    cores: int = 1,
    gpus: float = 0.0,
    execution: Execution | None = None,
    address: str | None = None,
) -> dict[str, str]:
    """Run all cells that are not finished as Ray's tasks; otherwise as `reproduce` does.

    When a node is lost, its cell is run again on another one. Where `out` is a folder that the
    nodes share, it goes on from its checkpoint; where it is not, it begins anew, and the results
    come back to this machine's `out` all the same.

    Args:
        todo: the cells, in order.
        out: the folder of the results, by a path that is the same on each node.
        cores: CPU cores that a cell asks for, and threads that it takes.
        gpus: GPUs that a cell asks for; 0.25 puts four cells on one. With 0 it runs on the CPU.
        execution: as in `run`.
        address: of the cluster, where Ray does not find it by itself.

    Raises:
        RuntimeError: Ray is not installed, or the cluster will never have room for a cell.

    Returns:
        What kept a cell from being finished, by the cell's title; nothing when all are.
    """
    out = Path(out).absolute()
    execution = Execution(channels_last=True) if execution is None else execution
    ray = connect(address)
    there = ray.cluster_resources()
    for kind, wanted in (("CPU", cores), ("GPU", gpus)):
        # Ray would wait for ever, for a node that somebody may yet add.
        if max((node["Resources"].get(kind, 0) for node in ray.nodes()), default=0) < wanted:
            raise RuntimeError(
                f"no node of the cluster has {wanted:g} {kind}; together they have "
                f"{there.get(kind, 0):g}"
            )
    problems, tasks = {}, {}
    remote = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=RETRIES)(_train_on_a_node)
    device = "cuda" if gpus else "cpu"

    def report(number: int, cell: Task, kind: str, content: Any, *, before: bool = False) -> None:
        text = content if kind == "problem" else line(content, before=before)
        if kind == "problem":
            problems[cell.title] = text
        print(f"[{number}/{len(todo)}] {cell.title}: {text}", flush=True)

    for number, cell in enumerate(todo, 1):
        try:
            result = finished(cell, out)
        except UnusableFileError as error:
            report(number, cell, "problem", str(error))
            continue
        if result is not None:
            report(number, cell, "result", result, before=True)
            continue
        task = remote.remote(cell, out, device, execution, cores, sys.argv)
        tasks[task] = (number, cell)
    if tasks:
        print(f"{len(tasks)} cells are on the cluster", flush=True)
    try:
        while tasks:
            (task,), _ = ray.wait(list(tasks), num_returns=1)
            number, cell = tasks.pop(task)
            try:
                kind, content = ray.get(task)
            except ray.exceptions.RayError as error:  # lost more often than it is tried again
                report(number, cell, "problem", " ".join(str(error).split())[:500])
                continue
            if kind == "result":
                content = _bring_home(cell, out, *content)
            report(number, cell, kind, content)
    finally:
        for task in tasks:  # stopped with Ctrl-C: each saves, and ends
            ray.cancel(task)
    return problems


def _bring_home(cell: Task, out: Path, result: dict[str, Any], weights: bytes) -> dict[str, Any]:
    """Write what a node has found where its folder is not this machine's; return the result."""
    if finished(cell, out) is None:
        write_whole(out / f"{cell.name}.pt", weights)
        write(out / f"{cell.name}.json", result)
    return result
