"""The package's samplers beside `torch.nn.functional.grid_sample`, as ratios in one run.

Run it with `python -m benchmarks.sampling`; it prints a table and writes
`book/results/bench_sampling.json`, which chapter 5 shows.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from stn_tutorial import affine
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample, sample_bilinear

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "bench_sampling.json"
SEED = 0
SHAPES = [(256, 1, 28, 28), (16, 3, 224, 224)]
SAMPLERS = {
    "F.grid_sample": lambda U, grid: F.grid_sample(U, grid, align_corners=False),
    "sample": sample,
    "sample_bilinear": sample_bilinear,
}
PASSES = ("forward", "forward + backward")


def measure(run, device):
    """Seconds that one call takes, the device's own work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def runners(shape, device):
    """The calls to compare, by sampler and pass, on the same picture, grid and gradient."""
    U = torch.rand(shape, device=device, requires_grad=True)
    degrees = torch.rand(shape[0], device=device) * 60 - 30
    theta = affine.compose(affine.scaling(0.9 + 0.2 * degrees.abs() / 30), affine.rotation(degrees))
    grid = affine_grid(theta, shape[2:]).requires_grad_()
    dV = torch.rand(shape, device=device)

    def forward(read):
        with torch.no_grad():
            return read(U, grid)

    def both(read):
        return torch.autograd.grad(read(U, grid), (U, grid), dV)

    expected = forward(SAMPLERS["F.grid_sample"])
    for name, read in SAMPLERS.items():
        # Of no use unless they do the same work.
        torch.testing.assert_close(forward(read), expected, rtol=0, atol=1e-3)
        yield name, PASSES[0], lambda read=read: forward(read)
        yield name, PASSES[1], lambda read=read: both(read)


def compare(shape, device, seconds):
    """Medians over rounds in which all calls take turns, so that a busy moment hits all alike."""
    calls = {(name, kind): run for name, kind, run in runners(shape, device)}
    times = {key: [] for key in calls}
    for run in calls.values():
        for _ in range(3):
            measure(run, device)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 7:
        for key, run in calls.items():
            times[key].append(measure(run, device))
    rows = []
    for (name, kind), values in times.items():
        base = times["F.grid_sample", kind]
        # Each round's ratio, and the middle half of them: what is left of the noise.
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "shape": list(shape),
                "pass": kind,
                "sampler": name,
                "median_ms": round(1e3 * statistics.median(values), 4),
                "ratio": round(ratio, 3),
                "ratio_quartiles": [round(low, 3), round(high, 3)],
                "rounds": len(values),
            }
        )
    return rows


def commit():
    """The repository's commit, marked when a file that is measured differs from it."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    name = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", "stn_tutorial", "benchmarks")
    return f"{name}, changed" if name and changed else name


def load():
    """How many processes wanted a processor in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def device_name(device):
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=15, help="for each shape")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(SEED)
    busy = load()
    started = time.perf_counter()
    rows = [row for shape in SHAPES for row in compare(shape, device, arguments.seconds)]
    result = {
        "command": " ".join(["python -m benchmarks.sampling", *sys.argv[1:]]),
        "commit": commit(),
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "dtype": "float32",
        "seed": SEED,
        "load_before": busy,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    print(f"{result['device']}, {result['threads']} threads, float32")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, seed {SEED}")
    print("Medians after warm-up; each ratio is to F.grid_sample, with its quartiles.\n")
    print(f"{'shape':<18} {'pass':<19} {'sampler':<16} {'ms':>9} {'ratio':>7}   quartiles")
    for row in rows:
        shape = "×".join(map(str, row["shape"]))
        low, high = row["ratio_quartiles"]
        print(
            f"{shape:<18} {row['pass']:<19} {row['sampler']:<16} {row['median_ms']:>9.3f} "
            f"{row['ratio']:>7.2f}   {low:.2f} to {high:.2f}"
        )
    if busy and busy > 1:
        print(f"\nThe machine was busy before (load {busy}): not a fair measurement.")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
