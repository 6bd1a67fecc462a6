"""All at once or in stages: what a transformer that may turn, scale and move comes to do.

Run it with `python -m benchmarks.stages`; it writes `book/results/stages.json`, which chapter 7
shows. The networks, the digits in their frames, and the stages are those of `tools.train_network`,
which trained the networks in the page; here with fewer digits, for less long, and three times over.
Each way has as many steps. The share of a turn and of a shift that θ takes back is measured on
digits held out: of a turn, digit by digit, from −60° to 60°; of a shift, from a quarter of the
frame's half width to the left to as much to the right.

A row that is in the file is not run again.
"""

import argparse
import contextlib
import io
import json
import platform
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial.affine import compose, scaling, translation
from stn_tutorial.explorables.digit_nets import FRAME, networks
from stn_tutorial.training import accuracy, fit
from tools.train_network import BATCH, HeldFast, growing, jittered, place, placed, split, undone

RESULT = ROOT / "book" / "results" / "stages.json"
DIGITS, JUDGED, RATE, SEEDS = 10_000, 1000, 1e-2, (0, 1, 2)
EPOCHS, GROWTH = (2, 7, 3), 0.6
"""Of the stages: reading net, transformer, reading net. The other ways have their sum."""
WAYS = ("all at once", "all at once, turns growing", "in stages")


@torch.no_grad()
def followed(look, images):
    """Which share of a digit's shift θ follows, along x: (N,)."""
    shifts = torch.linspace(-0.25, 0.25, 5)
    read = []
    for shift in shifts:
        theta = compose(scaling(images.shape[-1] / FRAME), translation(shift.item(), 0.0))
        grid = F.affine_grid(
            theta.expand(len(images), -1, -1), (len(images), 1, FRAME, FRAME), align_corners=False
        )
        U = F.grid_sample(images.float() / 255, grid, align_corners=False)
        read.append(look.theta(U)[:, 0, 2])
    return (shifts @ torch.stack(read)) / shifts.square().sum()


def learn(way, seed, digits, held):
    """Train the network with the transformer in one of the ways, and judge it."""
    torch.manual_seed(seed)
    net = networks(norm=True)["look"].to(memory_format=torch.channels_last)
    options = {"seed": seed, "batch_size": BATCH, "learning_rate": RATE}
    steps = len(digits[0]) // BATCH
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        if way == "in stages":
            look, read = net
            fit(read, *digits, epochs=EPOCHS[0], augment=jittered, **options)
            growth = growing(round(GROWTH * EPOCHS[1] * steps))
            looking = nn.Sequential(look, HeldFast(read))
            fit(looking, *digits, epochs=EPOCHS[1], augment=growth, **options)
            read.requires_grad_(True)
            reading = nn.Sequential(HeldFast(look), read)
            fit(reading, *digits, epochs=EPOCHS[2], augment=place, **options)
        else:
            total = sum(EPOCHS)
            augment = growing(round(GROWTH * total * steps)) if "growing" in way else place
            fit(net, *digits, epochs=total, augment=augment, **options)
    row = {"way": way, "seed": seed, "seconds": round(time.perf_counter() - start)}
    net.eval()
    images, labels = held
    row["accuracy"] = round(100 * accuracy(net, placed(images, 1), labels), 2)
    tenths = torch.tensor([0.1, 0.5, 0.9])
    for name, measure in (("turn_undone", undone), ("shift_followed", followed)):
        shares = measure(net[0], images[:JUDGED]).quantile(tenths)
        row[name] = [round(share, 2) for share in shares.tolist()]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=RESULT)
    path = parser.parse_args().output
    (images, labels), _ = split()
    digits = images[:DIGITS], labels[:DIGITS]
    held = images[-10_000:], labels[-10_000:]  # of those that `split` keeps, the last ones
    result = {
        "command": "python -m benchmarks.stages",
        "commit": commit(),
        "device": f"cpu: {device_name(torch.device('cpu'))}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": f"MNIST, {DIGITS} training digits, {len(held[1])} of the others to judge by",
        "epochs": list(EPOCHS),
        "learning_rate": RATE,
        "seeds": list(SEEDS),
        "rows": json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else [],
    }
    done = {(row["way"], row["seed"]) for row in result["rows"]}
    for seed in SEEDS:
        for way in WAYS:
            if (way, seed) not in done:
                result["rows"].append(learn(way, seed, digits, held))
                print(result["rows"][-1], flush=True)
                path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
