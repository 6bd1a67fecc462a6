"""Where a result comes from: command, commit, device, versions."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision

from stn_tutorial import __version__

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


def provenance(device: torch.device) -> dict[str, Any]:
    """Return what a result is written down with: command, commit, device, threads, versions."""
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
