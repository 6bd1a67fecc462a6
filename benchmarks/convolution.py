"""One training step on a CPU, with the package's convolutions and with PyTorch's own.

Run it with `python -m benchmarks.convolution`; it prints a table and writes
`book/results/bench_convolution.json`. Each model on each distortion learns by the recipe "modern",
channels last, in bfloat16 and in float32. What is measured is the process's time on the CPU, on one
thread, so that other work on the machine counts as little as it can; all steps take turns. Needs
bfloat16 in the CPU to be of use there (AVX512-BF16, AMX); elsewhere give `--precisions float32`.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from benchmarks.sampling import ROOT, commit, device_name, load
from stn_tutorial.data import DISTORTIONS, Batches, load_digits
from stn_tutorial.experiments import RECIPES
from stn_tutorial.models import build
from stn_tutorial.models.convolution import Conv2d

RESULT = ROOT / "book" / "results" / "bench_convolution.json"
MODELS = ("fcn", "cnn", "st-fcn-affine", "st-cnn-affine", "st-cnn-tps")
WAYS = {"PyTorch's": nn.Conv2d.forward, "ours": Conv2d.forward}
PLAN, SEED = RECIPES["modern"], 0


def make(name, distortion, precision, digits):
    """Return the call that draws a batch and learns from it, as the engine does."""
    torch.manual_seed(SEED)
    size = DISTORTIONS[distortion].size
    model = build(name, size, batch_norm=PLAN.batch_norm, dropout=PLAN.dropout).train()
    model.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=PLAN.recipe.weight_decay)
    batches = Batches(digits, distortion, batch_size=PLAN.recipe.batch_size, seed=SEED)
    given = map(batches, range(10**9))
    dtype = getattr(torch, precision)

    def run():
        U, target = next(given)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            scores = model(U)
            loss = F.cross_entropy(scores, target, label_smoothing=PLAN.recipe.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return run


def compare(distortion, precision, digits, rounds):
    """Return a row for each model: the median step of each way, and how many steps a second."""
    runs = {name: make(name, distortion, precision, digits) for name in MODELS}
    times = {(name, way): [] for name in MODELS for way in WAYS}
    for turn in range(rounds + 2):
        for name, way in times:
            with mock.patch.object(Conv2d, "forward", WAYS[way]):
                start = time.process_time()
                runs[name]()
                seconds = time.process_time() - start
            if turn >= 2:  # the first ones make what the later ones find
                times[name, way].append(seconds)
    median = {key: statistics.median(values) for key, values in times.items()}
    return [
        {
            "distortion": distortion,
            "model": name,
            "precision": precision,
            "ms": {way: round(1e3 * median[name, way], 2) for way in WAYS},
            "steps_per_second": {way: round(1 / median[name, way], 1) for way in WAYS},
            "cnns": {way: round(median[name, way] / median["cnn", way], 3) for way in WAYS},
        }
        for name in MODELS
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="steps of each kind")
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits, busy, rows = load_digits("train"), load(), []
    print(f"{device_name(torch.device('cpu'))}, one thread, batches of {PLAN.recipe.batch_size}")
    print("steps a second; in brackets, how many of CNN's steps one takes\n")
    print(f"{'':<4} {'':<14} {'':<9}" + "".join(f"{way:>16}" for way in WAYS))
    for distortion in DISTORTIONS:
        for precision in arguments.precisions:
            for row in compare(distortion, precision, digits, arguments.rounds):
                rows.append(row)
                line = f"{row['distortion']:<4} {row['model']:<14} {row['precision']:<9}"
                for way in WAYS:
                    line += f"{row['steps_per_second'][way]:>9.1f} ({row['cnns'][way]:.2f})"
                print(line, flush=True)
    result = {
        "command": " ".join(["python -m benchmarks.convolution", *sys.argv[1:]]),
        "commit": commit(),
        "device": f"cpu: {device_name(torch.device('cpu'))}",
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "batch": PLAN.recipe.batch_size,
        "seed": SEED,
        "rounds": arguments.rounds,
        "load_before": busy,
        "rows": rows,
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
