"""What trials of the modern recipe share: how one begins, and what its row says of the run."""

import platform

import torch

from benchmarks.sampling import commit, device_name
from stn_tutorial.data import Batches, FixedSet
from stn_tutorial.experiments import RECIPES
from stn_tutorial.models import build

PLAN = RECIPES["modern"]


def begin(model_name, distortion, seed, digits, held_out, device, units=None):
    """Return a model as its cell of the table begins, its batches, and what it is judged by."""
    torch.manual_seed(seed)
    added = {"batch_norm": PLAN.batch_norm, "dropout": PLAN.dropout, "units": units}
    model = build(model_name, **added).to(device)
    size = PLAN.recipe.batch_size
    batches = Batches(digits, distortion, batch_size=size, seed=seed, device=device)
    return model, batches, FixedSet(held_out, distortion, "held-out", device=device)


def said_of(records, execution, device):
    """Return what a row says of its run: how it ended, how long it took, and on what."""
    return {
        "loss": round(records[-1]["loss"], 4),
        "seconds": round(records[-1]["seconds"], 1),
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "precision": execution.precision,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
    }
