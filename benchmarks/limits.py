"""Where a transformer stands, how far digits turn, and a volume: the runs of chapter 18.

Run it with `python -m benchmarks.limits`; it writes `book/results/limits.json`, which chapter 18
shows. Three tasks on MNIST, turned afresh whenever a digit is drawn, small networks, three seeds:

- *where*: digits turned by up to 90 degrees either way, one classifier, the same localisation net:
  a transformer at the input; on the features of the classifier's first layers; and at the input,
  with the classifier's first layers shared. All with about as many parameters. Controls: none, and
  the right turn *by hand*, at the input, on the features, and on the picture *halved* to the
  features' size. Of each: the error, and how well a straight line through the true turns predicts
  the turn in θ, over all digits;
- *turns*: a plain network, one with a transformer, and one whose filters come in four turns, all
  with about as many parameters, trained on digits turned by up to so many degrees; the error on
  digits turned as far, and at each angle;
- *volume*: a digit extruded into a cube, turned about all three axes, read through `Affine3d`,
  flattened and classified; beside it θ *frozen* at the identity before a classifier of as many
  parameters, and the volume put *upright* by hand.

A row that is in the file is not run again. `--task` runs one task alone, so that several processes
may share the work.
"""

import argparse
import itertools
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.learned_angle import Direction, draw, line, turned
from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial import data
from stn_tutorial.data import Digits
from stn_tutorial.grids import affine_grid_3d
from stn_tutorial.models import count_parameters
from stn_tutorial.transformer import Affine3d, Rotation3d, SpatialTransformer

RESULT = ROOT / "book" / "results" / "limits.json"
STEPS = {"where": 500, "turns": 400, "volume": 200}
BATCH, RATE, SEEDS, JUDGED, JUDGED_AT = 64, 5e-3, (0, 1, 2), 2000, 500
PARAMETERS = {"where": 28_000, "turns": 28_000, "volume": 60_000}
"""What the networks of a task hold at most, to within the width of one layer."""
REACH = 90.0
SIDE, TILT, SLAB = 24, 60.0, 1 / 3
"""Voxels a side; the largest turn about each axis, in degrees; half the digit's thickness."""
SIDES = (16, 24, 32, 60)

ROWS: list[dict[str, Any]] = [
    *({"task": "where", "kind": kind} for kind in (
        "none", "input", "features", "shared",
        "input by hand", "features by hand", "halved by hand")),
    *({"task": "turns", "kind": kind, "reach": reach}
      for reach in (180.0, 0.0, 90.0) for kind in ("plain", "transformer", "four turns")),
    *({"task": "volume", "kind": kind} for kind in ("learned", "frozen", "upright")),
]  # fmt: skip
ANGLES = tuple(range(0, 181, 15))


def fitted(make: Callable[[int], nn.Module], parameters: int, seed: int) -> nn.Module:
    """The widest network that `make` builds with at most so many parameters."""
    width = 2
    while count_parameters(make(width + 1)) <= parameters:
        width += 1
    torch.manual_seed(seed)
    return make(width)


# --- Where it stands ---


def first_layers(width: int) -> nn.Sequential:
    """From a picture of 28×28 to (width, 14, 14)."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
    )  # fmt: skip


def last_layers(width: int) -> nn.Sequential:
    """From (width, 14, 14) to ten scores; the 7×7 filter sees all places."""
    return nn.Sequential(
        nn.MaxPool2d(2),
        nn.Conv2d(width, 4 * width, 7, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * width, 10),
    )  # fmt: skip


def seeing(layers: nn.Module, width: int) -> nn.Sequential:
    """A localisation net on top of some layers."""
    return nn.Sequential(
        layers, nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(width * 49, 32), nn.BatchNorm1d(32), nn.ReLU(),
    )  # fmt: skip


class Reader(nn.Module):
    """First layers, last layers, and a transformer where `kind` says."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = first_layers(width), last_layers(width)
        seen = {
            "input": lambda: first_layers(width),
            "features": nn.Identity,
            "shared": lambda: self.first,
        }
        self.look: SpatialTransformer | None = None
        if kind in seen:
            self.look = SpatialTransformer(seeing(seen[kind](), width), 32, Direction())

    def forward(self, U: Tensor, degrees: Tensor | None = None) -> Tensor:
        """The scores of (N, 1, 28, 28); `degrees` are undone where `kind` says "by hand"."""
        if self.kind == "input by hand" and degrees is not None:
            U = turned(U, -degrees)
        if self.look is not None and self.kind != "features":
            U = self.look(U)
        if self.kind == "halved by hand" and degrees is not None:
            features = self.first[1:](turned(self.first[0](U), -degrees))
        else:
            features = self.first(U)
        if self.kind == "features by hand" and degrees is not None:
            features = turned(features, -degrees)
        if self.look is not None and self.kind == "features":
            features = self.look(features)
        return self.last(features)

    def angles(self, U: Tensor) -> Tensor:
        """The turn in θ, counter-clockwise, in degrees."""
        assert self.look is not None
        theta = self.look.theta(self.first(U) if self.kind == "features" else U)
        return torch.atan2(theta[:, 1, 0], theta[:, 0, 0]).rad2deg()


# --- How far digits turn ---


class FourTurns(nn.Module):
    """A convolution whose filters come in four turns (Cohen and Welling 2016, group p4).

    From (N, inputs·turns, H, W) to (N, outputs·4, …); `turns` is 1 for a picture and else 4.
    """

    def __init__(self, inputs: int, outputs: int, turns: int, side: int = 3) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs * turns * side**2)
        weight = torch.empty(outputs, inputs, turns, side, side).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.padding = 1 if side == 3 else 0

    def forward(self, U: Tensor) -> Tensor:
        """Each filter in its four turns; what it reads turns along."""
        four = [torch.rot90(self.weight, k, (3, 4)).roll(k, 2) for k in range(4)]
        filters = torch.stack(four, 1).flatten(2, 3).flatten(0, 1)
        return F.conv2d(U, filters, padding=self.padding)


class EachTurn(nn.Module):
    """Batch norm and ReLU, with one scale and one offset for the four turns of a filter."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(filters)

    def forward(self, U: Tensor) -> Tensor:
        """The shape stays."""
        return self.norm(U.unflatten(1, (-1, 4))).relu().flatten(1, 2)


class OverTurns(nn.Module):
    """The mean over a filter's turns and over all places: (N, filters)."""

    def forward(self, U: Tensor) -> Tensor:
        """The mean."""
        return U.unflatten(1, (-1, 4)).mean((2, 3, 4))


def turning_network(kind: str, width: int) -> nn.Module:
    """The classifier of above, the same behind a transformer, or with filters in four turns."""
    if kind == "four turns":
        return nn.Sequential(
            nn.AvgPool2d(2), FourTurns(1, width, 1), EachTurn(width),
            FourTurns(width, width, 4), EachTurn(width), nn.MaxPool2d(2),
            FourTurns(width, 4 * width, 4, side=7), EachTurn(4 * width), OverTurns(),
            nn.Linear(4 * width, 10),
        )  # fmt: skip
    plain = nn.Sequential(*first_layers(width), *last_layers(width))
    if kind == "plain":
        return plain
    seen = nn.Sequential(
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 48), nn.BatchNorm1d(48), nn.ReLU(),
        nn.Linear(48, 32), nn.BatchNorm1d(32), nn.ReLU(),
    )  # fmt: skip
    return nn.Sequential(SpatialTransformer(seen, 32, Direction()), *plain)


# --- A volume ---


def extruded(U: Tensor, theta: Tensor, side: int = SIDE) -> Tensor:
    """Digits (N, 1, H, W) as slabs, read through θ (N, 3, 4): volumes (N, 1, side, side, side)."""
    x, y, z = affine_grid_3d(theta, (side, side, side)).unbind(-1)
    flat = torch.stack([x, y], dim=-1).flatten(1, 2)
    inked = F.grid_sample(U, flat, align_corners=False).unflatten(2, (side, side))
    return inked * (side / 2 * (SLAB - z.abs()) + 0.5).clamp(0, 1)[:, None]


def tilts(n: int, generator: torch.Generator) -> Tensor:
    """Turns about an axis in any direction, (N, 3, 4); each part up to `TILT` degrees."""
    about = TILT * (2 * torch.rand(n, 3, generator=generator) - 1)
    return Rotation3d().theta(about.deg2rad())


def volume_network(kind: str, width: int) -> nn.Module:
    """Straighten, flatten, classify."""
    look: nn.Module = nn.Identity()
    if kind == "learned":
        seen = nn.Sequential(
            nn.AvgPool3d(3), nn.Flatten(), nn.Linear((SIDE // 3) ** 3, 64), nn.BatchNorm1d(64),
            nn.ReLU(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(),
        )  # fmt: skip
        look = SpatialTransformer(seen, 32, Affine3d())
    return nn.Sequential(
        look, Flattened(),
        nn.Conv2d(1, width // 2, 3, padding=1), nn.BatchNorm2d(width // 2), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width // 2, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * (SIDE // 4) ** 2, 10),
    )  # fmt: skip


class Flattened(nn.Module):
    """The sum along the depth, as in an X-ray: (N, C, D, H, W) to (N, C, H, W)."""

    def forward(self, U: Tensor) -> Tensor:
        """Divided by a digit's thickness, so that one seen from the front is 0 to 1."""
        return U.sum(2) / (SLAB * U.shape[2])


# --- Running ---


def batch(digits: Digits, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some digits, float (n, 1, 28, 28), and their labels."""
    chosen = torch.randint(len(digits.labels), (n,), generator=generator)
    return digits.images[chosen].float() / 255, digits.labels[chosen]


def train(model: nn.Module, draw_one: Callable[[], tuple[Tensor, ...]], steps: int) -> float:
    """Cross-entropy, AdamW, one cycle; returns the process time in seconds."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    began = time.process_time()
    model.train()
    for _ in range(steps):
        target, *inputs = draw_one()
        optimiser.zero_grad()
        F.cross_entropy(model(*inputs), target).backward()
        optimiser.step()
        schedule.step()
    model.eval()
    return time.process_time() - began


def share_wrong(model: nn.Module, target: Tensor, *inputs: Tensor) -> float:
    """In per cent."""
    parts = zip(*(tensor.split(500) for tensor in inputs), strict=True)
    scores = torch.cat([model(*part) for part in parts])
    return round(100 * (scores.argmax(1) != target).float().mean().item(), 2)


def measure(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """Train one network and return what is written of it."""
    task, kind = row["task"], row["kind"]
    make: Callable[[int], nn.Module] = {
        "where": lambda width: Reader(kind, width),
        "turns": lambda width: turning_network(kind, width),
        "volume": lambda width: volume_network(kind, width),
    }[task]
    model = fitted(make, PARAMETERS[task], seed)
    generator = torch.Generator().manual_seed(seed)
    reach = row.get("reach", REACH)

    def draw_one(n: int = BATCH, own: torch.Generator = generator, part: int = 0) -> Any:
        U, target = batch(digits[part], n, own)
        if task == "volume":
            theta = tilts(n, own)
            if kind == "upright":
                theta = Rotation3d().theta(torch.zeros(n, 3))
            return target, extruded(U, theta)
        degrees = draw(n, reach, own)
        U = turned(U, degrees)
        return (target, U, degrees) if task == "where" else (target, U)

    seconds = train(model, draw_one, STEPS[task])
    with torch.no_grad():
        target, *inputs = draw_one(JUDGED, torch.Generator().manual_seed(99), 1)
        found: dict[str, Any] = {"error": share_wrong(model, target, *inputs)}
        if isinstance(model, Reader) and model.look is not None:
            slope, explained = line(inputs[1], model.angles(inputs[0]))
            found |= {"slope": round(slope, 3), "explained": round(explained, 3)}
        if task == "turns":
            U, target = batch(digits[1], JUDGED_AT, torch.Generator().manual_seed(99))
            found["at"] = {
                str(angle): share_wrong(
                    model, target, turned(U, torch.full((len(U),), angle + 0.0))
                )
                for angle in ANGLES
            }
    return {
        **row,
        "seed": seed,
        "commit": commit(),
        "parameters": count_parameters(model),
        **found,
        "process_seconds": round(seconds, 1),
    }


def cost(side: int) -> dict[str, Any]:
    """What reading one volume costs: bytes kept for the way back, and process time, median of 5."""
    U = torch.rand(1, 1, side, side, side)
    theta = Affine3d().theta(0.05 * torch.randn(1, 12)).requires_grad_()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    times = []
    for _ in range(5):
        kept.clear()
        began = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            grid = F.affine_grid(theta, [1, 1, side, side, side], align_corners=False)
            V = F.grid_sample(U, grid, align_corners=False)
        V.sum().backward()
        times.append(time.process_time() - began)
    return {
        "side": side,
        "bytes_kept": sum(kept.values()),
        "process_milliseconds": round(1000 * sorted(times)[2], 2),
    }


def main() -> None:
    """Run what is missing, and write the file after each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--task", choices=STEPS, action="append", help="this one alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    digits = data.hold_out(data.load_digits("train", "mnist"))
    before = written(given.out)
    costs = before.get("cost") or [{**cost(side), "commit": commit()} for side in SIDES]
    for seed, row in itertools.product(SEEDS, ROWS):
        key = {**row, "seed": seed}
        rows = written(given.out)["rows"]
        if row["task"] not in (given.task or STEPS) or key in [
            {k: r[k] for k in r if k in KEYS} for r in rows
        ]:
            continue
        found = measure(row, seed, digits)
        print(key, found["error"], found.get("explained", ""), flush=True)
        content = {
            "command": "python -m benchmarks.limits",
            "device": device_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "data": f"MNIST; judged by {JUDGED} held out, at single angles by {JUDGED_AT}",
            "steps": STEPS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "seeds": list(SEEDS),
            "cost": costs,
            # Read again: another process may have written its task's rows meanwhile.
            "rows": [*written(given.out)["rows"], found],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        given.out.with_suffix(".new").write_text(text)
        given.out.with_suffix(".new").replace(given.out)


def written(path: Path) -> dict[str, Any]:
    """What the file holds so far."""
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


KEYS = ("task", "kind", "reach", "seed")

if __name__ == "__main__":
    main()
