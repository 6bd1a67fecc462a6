"""What each performance step wins: one training step of ST-CNN affine on R, measured in turn.

Run it with `python -m benchmarks.training_steps`; it prints a table and writes
`book/results/steps.json`, which chapter 10 shows. Each way adds one thing to the way before it:
torchvision's per-image transform in a DataLoader; the digits on the device, distorted a batch at a
time; channels last; mixed precision; a compiled model. All ways take turns, so that a busy moment
hits all alike. The DataLoader has a worker for each core and, for a GPU, pinned memory from which
batches are copied while the GPU computes. As in the engine, float32 is never rounded to TF32, and
cuDNN tries its ways to convolve. A run on another kind of device is kept beside this one's.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torchvision
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.distortion import OneByOne
from benchmarks.sampling import ROOT, commit, device_name, load, measure
from stn_tutorial.data import Batches, load_digits
from stn_tutorial.experiments import RECIPES
from stn_tutorial.models import build
from stn_tutorial.training import exact_float32

RESULT = ROOT / "book" / "results" / "steps.json"
MODEL, DISTORTION, SEED = "st-cnn-affine", "R", 0
PLAN = RECIPES["modern"]
BATCH = PLAN.recipe.batch_size
WAYS = (
    "DataLoader, one by one",
    "data on the device",
    "+ channels last",
    "+ mixed precision",
    "+ compile",
)


def half(device):
    """The dtype that mixed precision takes: as the engine's on a GPU; bfloat16 on a CPU."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def endless(loader):
    while True:
        yield from loader


def make(way, digits, device, workers):
    """Return the call that draws a batch and learns from it, as the engine does."""
    place = WAYS.index(way)
    torch.manual_seed(SEED)
    model = build(MODEL, batch_norm=PLAN.batch_norm, dropout=PLAN.dropout).to(device)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=device.type == "cuda")
    form = torch.channels_last if place >= 2 else torch.contiguous_format
    model.to(memory_format=form)
    dtype = half(device) if place >= 3 else torch.float32
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    forward = torch.compile(model) if place >= 4 else model
    if place == 0:
        given = endless(
            DataLoader(
                OneByOne(digits),
                BATCH,
                shuffle=True,
                drop_last=True,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=device.type == "cuda",
            )
        )
    else:
        batches = Batches(digits, DISTORTION, batch_size=BATCH, seed=SEED, device=device)
        given = map(batches, range(10**9))

    def run():
        U, target = (x.to(device, non_blocking=True) for x in next(given))
        U = U.to(memory_format=form)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(forward(U), target)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()

    return run


def compare(digits, device, rounds, workers):
    """Return a row for each way; one that does not run here says why."""
    runs, failed, warm = {}, {}, {}
    for way in WAYS:
        run = make(way, digits, device, workers)
        try:
            warm[way] = measure(run, device)
            for _ in range(2):
                measure(run, device)
        except Exception as error:  # compiling needs a C++ compiler, and more
            failed[way] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        runs[way] = run
    times = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            times[way].append(measure(run, device))
    rows, before = [], None
    for way in WAYS:
        if way in failed:
            rows.append({"way": way, "failed": failed[way]})
            continue
        values = times[way]
        row = {
            "way": way,
            "median_ms": round(1e3 * statistics.median(values), 3),
            "images_per_second": round(BATCH / statistics.median(values)),
            "first_call_seconds": round(warm[way], 2),
        }
        if before is not None:
            # Each round's ratio to the way before, and the middle half of them.
            ratios = [a / b for a, b in zip(times[before], values, strict=True)]
            low, factor, high = statistics.quantiles(ratios, n=4)
            row |= {"factor": round(factor, 3), "quartiles": [round(low, 3), round(high, 3)]}
            all_in_all = [a / b for a, b in zip(times[WAYS[0]], values, strict=True)]
            row["all_in_all"] = round(statistics.median(all_in_all), 3)
        rows.append(row)
        before = way
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=36, help="steps of each way")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--workers", type=int, default=cores, help="of the DataLoader")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    digits = load_digits("train")
    busy = load()
    started = time.perf_counter()
    torch.backends.cudnn.benchmark = True
    with exact_float32():
        rows = compare(digits, device, arguments.rounds, arguments.workers)
    result = {
        "command": " ".join(["python -m benchmarks.training_steps", *sys.argv[1:]]),
        "commit": commit(),
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "model": MODEL,
        "distortion": DISTORTION,
        "batch": BATCH,
        "digits": len(digits.labels),
        "seed": SEED,
        "workers": arguments.workers,
        "mixed_precision": str(half(device)).removeprefix("torch."),
        "rounds": arguments.rounds,
        "load_before": busy,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    print(f"{result['device']}, {result['threads']} threads, batches of {BATCH}, {MODEL}")
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"\n{'way':<24} {'ms':>8} {'images/s':>9} {'factor':>7}   quartiles")
    for row in rows:
        if "failed" in row:
            print(f"{row['way']:<24} {row['failed']}")
            continue
        line = f"{row['way']:<24} {row['median_ms']:>8.1f} {row['images_per_second']:>9}"
        if "factor" in row:
            low, high = row["quartiles"]
            line += f" {row['factor']:>7.2f}   {low:.2f} to {high:.2f}"
        print(line)
    if busy and busy > 1:
        print(f"\nThe machine was shared (load {busy} before): times are long, ratios noisy.")
    path = arguments.output
    kept = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    # One run for each kind of device: a GPU's goes beside a CPU's.
    runs = [r for r in kept if r["device"].partition(":")[0] != device.type] + [result]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"runs": runs}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
