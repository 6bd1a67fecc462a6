"""RoIAlign and RoIPool of the book beside torchvision's: time and memory of 1000 boxes.

    python -m benchmarks.regions

writes `book/results/regions.json`, which chapter 16 shows. Each reader runs in a process of its
own, on the same features and boxes, with one thread: the seconds are the processor's (so that
another process beside it counts less), the memory is what the process's peak grows by in one pass.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
import torchvision
from torchvision import ops

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial.regions import roi_align, roi_pool

RESULT = ROOT / "book" / "results" / "regions.json"
BOXES, CHANNELS, SIDE, OUT, STRIDE = 1000, 64, 50, 7, 16
REPEATS = 7

READERS = {
    "RoIAlign, ours": lambda U, b: roi_align(U, b, (OUT, OUT), 1 / STRIDE, sampling_ratio=2),
    "RoIAlign, ours, boxes fixed": lambda U, b: roi_align(
        U, b.detach(), (OUT, OUT), 1 / STRIDE, sampling_ratio=2
    ),
    "RoIAlign, torchvision": lambda U, b: ops.roi_align(U, b, (OUT, OUT), 1 / STRIDE, 2, True),
    "RoIPool, ours": lambda U, b: roi_pool(U, b, (OUT, OUT), 1 / STRIDE),
    "RoIPool, torchvision": lambda U, b: ops.roi_pool(U, b, (OUT, OUT), 1 / STRIDE),
}


def inputs():
    torch.manual_seed(0)
    U = torch.rand(1, CHANNELS, SIDE, SIDE, requires_grad=True)
    side = 32 + 400 * torch.rand(BOXES, 2)
    low = (SIDE * STRIDE - side) * torch.rand(BOXES, 2)
    boxes = torch.cat([torch.zeros(BOXES, 1), low, low + side], dim=1).requires_grad_()
    return U, boxes, torch.rand(BOXES, CHANNELS, OUT, OUT)


def measure(name):
    """In a process of its own: seconds of each pass, and how far the peak of memory grows."""
    torch.set_num_threads(1)
    U, boxes, dV = inputs()
    read = READERS[name]

    def forward():
        with torch.no_grad():
            read(U, boxes)

    def both():
        U.grad = boxes.grad = None
        read(U, boxes).backward(dV)

    # A small pass first, so that what a library sets up once is not counted.
    read(U, boxes[:2]).backward(dV[:2])
    U.grad = boxes.grad = None
    found = {"what": name}
    for key, run in (("forward", forward), ("both", both)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        seconds = []
        for _ in range(REPEATS):
            start = time.process_time()
            run()
            seconds.append(round(time.process_time() - start, 4))
        found[key] = {
            "seconds": seconds,
            "median": round(statistics.median(seconds), 4),
            # The peak only grows: of both passes it counts from the forward pass's own peak on.
            "megabytes": round(grown / 1024, 1) + found.get("forward", {}).get("megabytes", 0),
        }
    found["box_gradient"] = boxes.grad is not None
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", choices=tuple(READERS), help=argparse.SUPPRESS)
    if one := parser.parse_args().one:
        print(json.dumps(measure(one)))
        return
    rows = []
    for name in READERS:
        call = [sys.executable, "-m", "benchmarks.regions", "--one", name]
        done = subprocess.run(call, check=True, capture_output=True, text=True, cwd=ROOT)
        rows.append(json.loads(done.stdout))
        print(f"{name:30s}", {k: rows[-1][k]["median"] for k in ("forward", "both")}, flush=True)
    found = {
        "rows": rows,
        "boxes": BOXES,
        "features": [CHANNELS, SIDE, SIDE],
        "output": [OUT, OUT],
        "sampling_ratio": 2,
        "clock": "processor seconds, the machine not idle",
        "command": "python -m benchmarks.regions",
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
    RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
