"""The package's spline and projective grids beside kornia's, as ratios in one run.

Run it with `python -m benchmarks.transforms`; it prints a table and writes
`book/results/bench_transforms.json`.

The work is the same on both sides: from θ to a batch's sampling grid, and back to θ's gradient.
Kornia gives its grids apart from the sampling (`warp_grid`; `get_tps_transform` and then
`warp_points_tps`), so that neither side samples. Its spline has its centres at the other set of
points: another map between the control points, from a system and a product of the same size. Ours
keeps what only depends on the size, and is timed when it has it, as from the second batch on.

Peak memory is the most that the tensors of one call take, on top of what was there before it: as
CUDA's allocator tells, and on a CPU as PyTorch's profiler does, which sees each allocation.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.sampling import PASSES, ROOT, commit, device_name, load, measure
from stn_tutorial.grids import control_points, projective_grid, thin_plate_spline_grid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kornia
    from kornia.geometry import transform as theirs
    from kornia.geometry.grid import create_meshgrid

RESULT = ROOT / "book" / "results" / "bench_transforms.json"
SEED = 0
SHAPES = [(256, 28, 28), (16, 224, 224)]
K = 4


def kornia_projective(theta, size):
    mesh = create_meshgrid(*size, device=theta.device, align_corners=False)
    return theirs.warp_grid(mesh, theta)


def kornia_spline(theta, size):
    points = control_points(K, device=theta.device).expand_as(theta)
    weights = theirs.get_tps_transform(points, theta)
    mesh = create_meshgrid(*size, device=theta.device, align_corners=False).reshape(1, -1, 2)
    grid = theirs.warp_points_tps(mesh.expand(len(theta), -1, -1), theta, *weights)
    return grid.view(-1, *size, 2)


GRIDS = {
    "projective": {"kornia": kornia_projective, "stn_tutorial": projective_grid},
    "thin-plate spline": {"kornia": kornia_spline, "stn_tutorial": thin_plate_spline_grid},
}


def inputs(name, shape, device):
    """θ, not far from the identity, and a gradient for the grid."""
    torch.manual_seed(SEED)
    n, height, width = shape
    if name == "projective":
        theta = torch.eye(3) + 0.1 * (2 * torch.rand(n, 3, 3) - 1)
    else:
        theta = control_points(K) + 0.1 * (2 * torch.rand(n, K * K, 2) - 1)
    return theta.to(device).requires_grad_(), torch.rand(n, height, width, 2).to(device)


def runner(make, theta, dG, kind):
    """One call of what is measured."""
    size = tuple(dG.shape[1:3])
    if kind == PASSES[0]:

        def run():
            with torch.no_grad():
                return make(theta, size)
    else:

        def run():
            return torch.autograd.grad(make(theta, size), theta, dG)

    return run


def check(name, shape, device):
    """Raise unless both sides do the same work."""
    theta, _ = inputs(name, shape, device)
    if name == "thin-plate spline":  # alike where the points move affinely
        turn = torch.tensor([[0.9, 0.2], [-0.3, 1.1]], device=device)
        theta = (control_points(K, device=device) @ turn).expand_as(theta)
    ours, other = (make(theta, shape[1:]) for make in reversed(GRIDS[name].values()))
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-3)


def compare(name, shape, device, seconds):
    """Medians over rounds in which all calls take turns, so that a busy moment hits all alike."""
    check(name, shape, device)
    theta, dG = inputs(name, shape, device)
    calls = {
        (side, kind): runner(make, theta, dG, kind)
        for side, make in GRIDS[name].items()
        for kind in PASSES
    }
    times = {key: [] for key in calls}
    for run in calls.values():
        for _ in range(2):
            measure(run, device)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 7:
        for key, run in calls.items():
            times[key].append(measure(run, device))
    peaks = {key: peak(run, device) for key, run in calls.items()}
    rows = []
    for (side, kind), values in times.items():
        # Each round's ratio, and the middle half of them: what is left of the noise.
        base = times["kornia", kind]
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "grid": name,
                "shape": list(shape),
                "pass": kind,
                "side": side,
                "median_ms": round(1e3 * statistics.median(values), 4),
                "ratio": round(ratio, 4),
                "ratio_quartiles": [round(low, 4), round(high, 4)],
                "peak_mb": round(peaks[side, kind] / 1e6, 2),
                "peak_ratio": round(peaks[side, kind] / peaks["kornia", kind], 4),
                "rounds": len(values),
            }
        )
    return rows


def peak(run, device):
    """Bytes that one call takes at most; see the module."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    allocations = [event for event in events if event.get("name") == "[memory]"]
    allocations.sort(key=lambda event: event["ts"])
    return max(itertools.accumulate(event["args"]["Bytes"] for event in allocations))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=15, help="for each grid and shape")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    busy = load()
    started = time.perf_counter()
    rows = [
        row
        for name in GRIDS
        for shape in SHAPES
        for row in compare(name, shape, device, arguments.seconds)
    ]
    result = {
        "command": " ".join(["python -m benchmarks.transforms", *sys.argv[1:]]),
        "commit": commit(),
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "kornia": kornia.__version__,
        },
        "dtype": "float32",
        "control_points": K * K,
        "peak": "CUDA's allocator" if device.type == "cuda" else "PyTorch's profiler",
        "seed": SEED,
        "load_before": busy,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "rows": rows,
    }
    print(f"{result['device']}, {result['threads']} threads, float32")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    print(f"{versions}, seed {SEED}")
    print("Medians after warm-up; each ratio is to kornia, with its quartiles.\n")
    print(
        f"{'grid':<18} {'shape':<11} {'pass':<19} {'side':<13} {'ms':>9} {'ratio':>7}   "
        f"{'quartiles':<16} {'peak MB':>8} {'ratio':>6}"
    )
    for row in rows:
        shape = "×".join(map(str, row["shape"]))
        quartiles = "{:.3f} to {:.3f}".format(*row["ratio_quartiles"])
        print(
            f"{row['grid']:<18} {shape:<11} {row['pass']:<19} {row['side']:<13} "
            f"{row['median_ms']:>9.3f} {row['ratio']:>7.3f}   {quartiles:<16} "
            f"{row['peak_mb']:>8.1f} {row['peak_ratio']:>6.2f}"
        )
    if busy and busy > 1:
        print(f"\nThe machine was busy before (load {busy}): not a fair measurement.")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
