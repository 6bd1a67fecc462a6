"""What trials of the modern recipe share: how one begins, and what its row says of the run."""

import argparse
import json
import platform
from pathlib import Path

import torch

from benchmarks.sampling import commit, device_name
from stn_tutorial.data import Batches, FixedSet, hold_out, load_digits
from stn_tutorial.experiments import RECIPES
from stn_tutorial.models import build
from stn_tutorial.training import Execution

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


def asked(doc, result, steps=PLAN.cpu_steps):
    """Return what the command line asks for: steps, where to write, how to carry it out.

    Args:
        doc: of the benchmark; its first line is the help.
        result: where it writes when nothing else is asked for.
        steps: how many, likewise.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--precision", default="float32", help="see training.Execution")
    parser.add_argument("--output", type=Path, default=result)
    chosen = parser.parse_args()
    execution = Execution(chosen.precision, channels_last=True)
    return chosen.steps, chosen.output, execution


def digits_apart():
    """Return the digits to learn, and those held out."""
    return hold_out(load_digits("train"))


def fill(output, about, key, wanted, trial, load=digits_apart):
    """Run each trial that a result file lacks, and write the file after each.

    Args:
        output: the file, JSON with `rows`.
        about: what the file says beside them.
        key: the names of what tells one row from another.
        wanted: those values, of each row.
        trial: from them and what `load` returns, one after the other, to a row.
        load: returns what all trials share.
    """
    shared = load()
    rows = []
    if output.exists():
        rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    done = [tuple(row[name] for name in key) for row in rows]
    for one in wanted:
        if one in done:
            continue
        rows.append(trial(*one, *shared))
        print(*one, {name: rows[-1][name] for name in rows[-1] if "error" in name}, flush=True)
        text = json.dumps(about | {"rows": rows}, indent=1) + "\n"
        output.write_text(text, encoding="utf-8")
