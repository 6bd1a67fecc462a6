"""Where a result comes from: the runs that made it, each with its command and its machine (10)."""

import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torchvision

from stn_tutorial import __version__
from stn_tutorial.training.devices import processes
from stn_tutorial.training.recipe import Execution

PACKAGE = Path(__file__).parents[1]


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> str | None:
    """Return the commit of the repository that the package lies in, marked when it was changed."""
    # An installed package may lie inside somebody else's repository.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
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


def describe_run(
    device: torch.device, execution: Execution, dtype: torch.dtype, step: int
) -> dict[str, Any]:
    """Return what a run from that step on is written down with, ready for JSON.

    Its keys are `command`, `commit`, `device`, `threads`, `processes`, `precision` (the dtype that
    the layers really have), `execution` (what was asked for), `versions`, and `from` and `to`, the
    steps done before and after it; `to` moves with each checkpoint.
    """
    program = Path(sys.argv[0]).name
    return {
        "command": " ".join(["stn-tutorial" if program == "cli.py" else program, *sys.argv[1:]]),
        "commit": _commit(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "processes": processes()[1],
        "precision": str(dtype).removeprefix("torch."),
        "execution": asdict(execution),
        "versions": {
            "stn-tutorial": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a class of its own, which no checkpoint may hold
            "torchvision": torchvision.__version__,
        },
        "from": step,
        "to": step,
    }
