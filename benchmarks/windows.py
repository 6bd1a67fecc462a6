"""How many windows for how many digits, and how they share them: small networks, many of them.

Run it with `python -m benchmarks.windows`; it writes `book/results/windows.json`, which chapter 12
shows. The task is chapter 12's small one: MNIST addition with the digits 0 to 2 alone, on pictures
of half their size, and its networks are chapter 12's, all of one task with about as many
parameters. Easy pictures come first, unless a row says otherwise. Of each row: the error on sums of
digits held out, along the training; and how far each window *stills* each digit: 1 when the middle
of the window always reads the same spot of the digit, 0 when the digit moves in the window as much
as it does in the picture.

- *channels*: two digits, two channels, before 0, 1 and 2 windows; also without easy pictures first;
- *three-channels*: three digits before 0, 1, 2 and 3 windows; and the same with windows *by hand*,
  which stand about the true middles of the first so many digits, so that nothing but the classifier
  has to learn;
- *canvas*: two digits on one canvas, before 1 and 2 windows, which start alike or side by side;
  the digits are told apart by which lies further left.

A row that is in the file is not run again.
"""

import argparse
import contextlib
import io
import itertools
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial import data
from stn_tutorial.affine import identity, invert
from stn_tutorial.data import ADDITIONS, Digits, FixedSums, Sums
from stn_tutorial.grids import affine_grid
from stn_tutorial.models import count_parameters
from stn_tutorial.training import Recipe, error_rate, train
from stn_tutorial.transformer import Attention, ParallelTransformer, tiling

RESULT = ROOT / "book" / "results" / "windows.json"
TOP, STEPS, BATCH, SEEDS = 3, 1200, 64, (0, 1, 2)
PARAMETERS = {"channels": 150_000, "three-channels": 400_000, "canvas": 90_000}
"""What the networks of a task hold, to within the width of one layer."""
RECIPE = Recipe(
    steps=STEPS, batch_size=BATCH, optimiser="adamw", learning_rate=5e-3,
    localisation_rate=0.5, schedule="one-cycle", warmup=0.1,
)  # fmt: skip
EASY = 0.6
"""The share of the steps in which the distortion grows, from a fifth of it to all."""

ROWS: list[dict[str, Any]] = [
    *({"task": "three-channels", "windows": k, "by_hand": True} for k in range(4)),
    *({"task": "three-channels", "windows": k} for k in (1, 2, 3, 0)),
    *({"task": "canvas", "windows": 2, "start": start} for start in ("alike", "side by side")),
    {"task": "canvas", "windows": 1},
    *({"task": "channels", "windows": k} for k in (2, 1, 0)),
    {"task": "channels", "windows": 2, "easy_first": False},
]


def finder(channels: int) -> nn.Sequential:
    """A localisation net of pictures at half their size, 21×21."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * 441, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(),
    )  # fmt: skip


def network(task: str, windows: int, start: Tensor | None, seed: int) -> nn.Sequential:
    """Halve, look, classify; a classifier as wide as its share of the parameters."""
    torch.manual_seed(seed)
    channels, classes = ADDITIONS[task].channels, ADDITIONS[task].digits * (TOP - 1) + 1
    inputs, look = channels * 441, nn.Identity()
    if windows:
        inputs = windows * channels * 14 * 14
        look = ParallelTransformer(
            [finder(channels) for _ in range(windows)], windows, Attention(),
            features=32, size=(14, 14), start=start,
        )  # fmt: skip
    left = PARAMETERS[task] - count_parameters(look)
    width = round(left / (inputs + classes + 3))
    hidden = nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()
    return nn.Sequential(nn.AvgPool2d(2), look, nn.Flatten(), *hidden, nn.Linear(width, classes))


def reader(task: str, windows: int, seed: int) -> nn.Sequential:
    """The classifier alone, as wide as the task's parameters allow."""
    torch.manual_seed(seed)
    channels, classes = ADDITIONS[task].channels, ADDITIONS[task].digits * (TOP - 1) + 1
    inputs = windows * channels * 14 * 14 if windows else channels * 441
    width = round(PARAMETERS[task] / (inputs + classes + 3))
    hidden = nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, classes))


def few(digits: Digits, count: int | None = None) -> Digits:
    """The digits below `TOP` alone."""
    kept = digits.labels < TOP
    return Digits(digits.images[kept][:count], digits.labels[kept][:count])


@torch.no_grad()
def stilled(look: Callable[[Tensor], Sequence[Tensor]], sums: FixedSums) -> list[list[float]]:
    """How far each window stills each digit: 1 − what is left of the variance of its place.

    Args:
        look: from U to θ of each window.
        sums: the pictures.
    """
    thetas = [look(U) for U, _ in sums]
    truth = sums.theta()
    if not sums.addition.apart:  # where digits have no names but their places: the left one first
        centres = invert(truth.flatten(0, 1))[:, 0, 2].view(truth.shape[:2])
        truth = truth[torch.arange(len(truth))[:, None], centres.argsort(dim=1)]
    rows = []
    for own in zip(*thetas, strict=True):
        middle = torch.cat(own)[:, :, 2:]  # where the middle of the window reads
        row = []
        for digit in truth.unbind(1):
            linear, shift = digit[:, :, :2], digit[:, :, 2:]
            spread = [(linear @ at + shift).var(dim=0).sum() for at in (middle, 0 * middle)]
            row.append(round((1 - spread[0] / spread[1]).item(), 4))
        rows.append(row)
    return rows


def by_hand(U: Tensor, theta: Tensor, windows: int) -> Tensor:
    """What windows about the true middles of the first digits show of U: (N, windows·C, 14, 14)."""
    half = F.avg_pool2d(U, 2)
    if not windows:
        return half
    views = []
    for digit in range(windows):
        look = identity().repeat(len(U), 1, 1)
        look[:, :, 2] = invert(theta[:, digit])[:, :, 2]
        views.append(F.grid_sample(half, affine_grid(look, (14, 14)), align_corners=False))
    return torch.cat(views, dim=1)


def measure(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """Train one network and return what is written of it."""
    task = row["task"]
    start = tiling(row["windows"], 0.6) if row.get("start") == "side by side" else None
    model = network(task, 0 if row.get("by_hand") else row["windows"], start, seed)
    if row.get("by_hand"):
        model = reader(task, row["windows"], seed)
    grown = EASY * STEPS if row.get("easy_first", True) else 0
    reach = (lambda step: min(1.0, 0.2 + 0.8 * step / grown)) if grown else None
    sums = Sums(few(digits[0]), task, batch_size=BATCH, seed=seed, reach=reach)
    judged = FixedSums(few(digits[1], 2000), task, "held-out")
    batches: Callable[[int], tuple[Tensor, Tensor]] = sums
    asked: Any = judged
    if row.get("by_hand"):

        def batches(step: int) -> tuple[Tensor, Tensor]:
            U, target = sums(step)
            return by_hand(U, sums.theta(step), row["windows"]), target

        places = judged.theta().split(judged.batch_size)
        asked = [
            (by_hand(U, theta, row["windows"]), target)
            for (U, target), theta in zip(judged, places, strict=True)
        ]
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        records = train(
            model, batches, RECIPE, every=STEPS // 20,
            evaluate=lambda model: error_rate(model, asked),
        )  # fmt: skip
    looks = isinstance(model[1], ParallelTransformer)
    return {
        **row,
        "seed": seed,
        "commit": commit(),
        "parameters": count_parameters(model),
        "error": round(records[-1]["error"], 3),
        "stilled": stilled(lambda U: model[1].thetas(model[0](U)), judged) if looks else [],
        "history": [[r["step"], round(r["error"], 3)] for r in records],
        "process_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Run what is missing, and write the file after each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    digits = data.hold_out(data.load_digits("train", "mnist"))
    found = json.loads(out.read_text())["rows"] if out.exists() else []
    known = {json.dumps({k: r[k] for k in r if k in KEYS}, sort_keys=True) for r in found}
    for batch in (ROWS[:4], ROWS[4:]):
        for seed, row in itertools.product(SEEDS, batch):
            key = json.dumps({**row, "seed": seed}, sort_keys=True)
            if key in known:
                continue
            found.append(measure(row, seed, digits))
            print(key, found[-1]["error"], found[-1]["stilled"], flush=True)
            content = {
                "command": "python -m benchmarks.windows",
                "device": device_name(torch.device("cpu")),
                "threads": torch.get_num_threads(),
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
                "data": f"MNIST, the digits 0 to {TOP - 1}; judged by 2000 held out",
                "steps": STEPS,
                "batch_size": BATCH,
                "learning_rate": RECIPE.learning_rate,
                "easy_first": EASY,
                "seeds": list(SEEDS),
                "rows": found,
            }
            out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


KEYS = ("task", "windows", "by_hand", "start", "easy_first", "seed")

if __name__ == "__main__":
    main()
