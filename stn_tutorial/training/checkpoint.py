"""Checkpoints: a run that was killed goes on where it was (chapter 10)."""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from stn_tutorial.training.devices import processes
from stn_tutorial.training.files import UnusableFileError, clear_partial, write_whole
from stn_tutorial.training.loop import device_of
from stn_tutorial.training.recipe import Recipe, Record

__all__ = ["Progress", "read_runs"]

FORMAT = "stn-tutorial checkpoint 2"
EARLIER = "stn-tutorial checkpoint 1"  # saved at records only, and kept no runs
ADVICE = "Delete it to begin anew, or name another file."


@dataclass
class Progress:
    """How far a run has come, between two of its records too."""

    history: list[Record] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    """One for each call that trained, see `describe_run`; the last is under way."""
    step: int = 0
    """Steps done."""
    total: float = 0.0
    """The sum of the losses since the last record: float32, which a float holds exactly."""
    seconds: float = 0.0
    """Of training since step 0."""


def _random_state(device: torch.device) -> list[dict[str, Tensor]]:
    """Return the state of every process's generators, from which dropout draws."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    rank, world = processes()
    if world == 1:
        return [state]
    states: list[Any] = [None] * world
    distributed.all_gather_object(states, state)
    return states


def save(
    path: Path,
    recipe: Recipe,
    progress: Progress,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Put a checkpoint in the place of the old one, whole or not at all; `OSError` names it."""
    state = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        **asdict(progress),
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
        "random": _random_state(device_of(model)),  # of all processes, so all must come here
    }
    if processes()[0] > 0:
        return
    # By way of memory: of a full disk torch's own writer says nothing that one could read.
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(path, content.getvalue())


def _read(path: Path) -> dict[str, Any]:
    data = io.BytesIO(path.read_bytes())  # so that a file which cannot be read says so itself
    try:
        saved = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in many ways on what it did not write
        raise UnusableFileError(f"{path} is damaged, or is no checkpoint. {ADVICE}") from error
    if not isinstance(saved, dict) or saved.get("format") not in (FORMAT, EARLIER):
        raise UnusableFileError(f"{path} is no checkpoint of this engine. {ADVICE}")
    if saved["format"] == EARLIER:
        last = saved["history"][-1]
        saved |= {"runs": [], "step": last["step"], "total": 0.0, "seconds": last["seconds"]}
    return saved


def read_runs(path: Path | str) -> list[dict[str, Any]]:
    """Return the runs that made a checkpoint, first to last, those that took no step left out.

    Raises:
        UnusableFileError: the file is damaged, or is no checkpoint.
    """
    return [run for run in _read(Path(path))["runs"] if run["from"] < run["to"]]


def _load(path: Path, recipe: Recipe) -> dict[str, Any]:
    saved = _read(path)
    ours, theirs = asdict(recipe), saved["recipe"]
    differ = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if differ:
        what = "; ".join(f"{key} {theirs.get(key)!r} and not {ours.get(key)!r}" for key in differ)
        raise UnusableFileError(f"{path} is of another recipe: {what}. {ADVICE}")
    return saved


def resume(
    path: Path,
    recipe: Recipe,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Progress:
    """Put everything into the state of the checkpoint, where there is one; say how far it is."""
    rank, _ = processes()
    if rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_partial(path)  # from a run that was killed while saving
    if not path.exists():
        return Progress()
    saved = _load(path, recipe)
    # How the steps are carried out is this run's own affair. A checkpoint from a CPU would
    # otherwise take the fused kernels away from a GPU, on which the loss's scaler counts.
    for ours, theirs in zip(
        optimiser.param_groups, saved["optimiser"]["param_groups"], strict=False
    ):
        theirs |= {key: ours[key] for key in ("fused", "foreach", "capturable") if key in ours}
    try:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise UnusableFileError(f"{path} is of another model: {error}") from error
    if saved["scaler"]:  # empty when it was written in another precision
        scaler.load_state_dict(saved["scaler"])
    if rank < len(saved["random"]):
        state = saved["random"][rank]
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and device_of(model).type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], device_of(model))
    if rank == 0:
        print(f"going on from step {saved['step']}, which {path} holds")
    return Progress(**{key: saved[key] for key in Progress.__dataclass_fields__})
