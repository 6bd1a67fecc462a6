"""Checkpoints: a run that was killed goes on where it was (chapter 10)."""

import io
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from stn_tutorial.training.devices import processes
from stn_tutorial.training.loop import device_of
from stn_tutorial.training.recipe import Recipe, Record

FORMAT = "stn-tutorial checkpoint 1"


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


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
    history: list[Record],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write a checkpoint beside the old one, and then put it in its place, whole or not at all."""
    state = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "history": history,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
        "random": _random_state(device_of(model)),  # of all processes, so all must come here
    }
    if processes()[0] > 0:
        return
    with _aside(path).open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(_aside(path), path)


def _load(path: Path, recipe: Recipe) -> dict[str, Any]:
    advice = "Delete it to begin anew, or name another file."
    data = io.BytesIO(path.read_bytes())  # so that a file which cannot be read says so itself
    try:
        saved = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in many ways on what it did not write
        raise ValueError(f"{path} is damaged, or is no checkpoint. {advice}") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this engine. {advice}")
    ours, theirs = asdict(recipe), saved["recipe"]
    differ = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if differ:
        what = "; ".join(f"{key} {theirs.get(key)!r} and not {ours.get(key)!r}" for key in differ)
        raise ValueError(f"{path} is of another recipe: {what}. {advice}")
    return saved


def resume(
    path: Path,
    recipe: Recipe,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> list[Record]:
    """Put everything into the state of the checkpoint, where there is one; return its history."""
    rank, _ = processes()
    if rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        _aside(path).unlink(missing_ok=True)  # from a run that was killed while saving
    if not path.exists():
        return []
    saved = _load(path, recipe)
    try:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is of another model: {error}") from error
    if saved["scaler"]:  # empty when it was written in another precision
        scaler.load_state_dict(saved["scaler"])
    if rank < len(saved["random"]):
        state = saved["random"][rank]
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and device_of(model).type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], device_of(model))
    if rank == 0:
        print(f"going on from step {saved['history'][-1]['step']}, which {path} holds")
    return saved["history"]
