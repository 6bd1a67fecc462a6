"""What a transformer learns of angles from class labels, and what could have shown otherwise.

Run it with `python -m benchmarks.learned_angle`; it writes `book/results/learned_angle.json`, which
chapter 7 shows. Digits of MNIST, 15 000 of those that are not held out, are turned afresh whenever
they are drawn; the networks are chapter 7's, small enough that the angle is worth having. All
figures but the training loss are of the 10 000 digits held out. Three seeds each:

- *rotation*, the chapter's own; with *shuffled labels*, with which no angle can help; over a *full
  circle*, and there also with a *direction*, (cos, sin), in place of one number for the angle;
- an *affine* transformer in place of the rotation;
- no transformer: the same classifier, which is also what remains when θ is *held at the identity*,
  and a wider one, of as many parameters as the rotation has;
- the classifier alone on digits that are turned *by hand* and by class, to see whether the loss
  cares how the classes stand to each other.

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
from stn_tutorial import affine
from stn_tutorial.data import hold_out, load_digits
from stn_tutorial.training import accuracy, fit
from stn_tutorial.transformer import (
    Affine,
    FullyConnectedLocalisation,
    Rotation,
    SpatialTransformer,
    Transform,
)

RESULT = ROOT / "book" / "results" / "learned_angle.json"
DIGITS, EPOCHS, RATE, SEEDS = 15_000, 10, 3e-3, (0, 1, 2)
HIDDEN, WIDER = 32, 53
"""Units of the classifier, and of the one that has as many parameters as classifier and net."""

BY_HAND = {
    "all upright": {},
    "all by 20°": dict.fromkeys(range(10), 20.0),
    "the 4s by 45°": {4: 45.0},
    "6 by 90°, 9 by −90°": {6: 90.0, 9: -90.0},
}
"""By how many degrees the digits of which class are turned; the others stand as they were."""


class Direction(Transform):
    """Turn by the angle of a vector, (1 + o₁, o₂), which has no end where the circle closes."""

    dof = 2

    def theta(self, offsets):
        """θ of shape (N, 2, 3)."""
        cos, sin = F.normalize(offsets + offsets.new_tensor([1, 0]), dim=-1).unbind(-1)
        zero = torch.zeros_like(cos)
        rows = torch.stack([cos, -sin, zero]), torch.stack([sin, cos, zero])
        return torch.stack(rows).permute(2, 0, 1)


def transformer(transform):
    """Chapter 7's: the picture at half its size, through two dense layers."""
    localisation = nn.Sequential(nn.AvgPool2d(2), FullyConnectedLocalisation(196, (64, 64)))
    return SpatialTransformer(localisation, 64, transform)


def network(front, hidden, seed):
    """A front that `front` makes, and chapter 7's classifier behind it."""
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
    return nn.Sequential(front(), *layers)


# Front, hidden units, reach of the digits' turns to either side, are labels shuffled?
KINDS = {
    "rotation": (lambda: transformer(Rotation()), HIDDEN, 90, False),
    "held at the identity": (nn.Identity, HIDDEN, 90, False),
    "wider, no transformer": (nn.Identity, WIDER, 90, False),
    "affine": (lambda: transformer(Affine()), HIDDEN, 90, False),
    "rotation, full circle": (lambda: transformer(Rotation()), HIDDEN, 180, False),
    "direction, full circle": (lambda: transformer(Direction()), HIDDEN, 180, False),
    "rotation, shuffled labels": (lambda: transformer(Rotation()), HIDDEN, 90, True),
}


def turned(U, degrees):
    """Pictures, float (N, 1, H, W), turned counter-clockwise by degrees, (N,)."""
    grid = F.affine_grid(affine.rotation(degrees), U.shape, align_corners=False)
    return F.grid_sample(U, grid, align_corners=False)


def draw(n, reach, generator):
    """Angles in degrees, uniform to either side of 0."""
    return reach * (2 * torch.rand(n, generator=generator) - 1)


@torch.no_grad()
def angles(net, U):
    """Which turn is in θ, in degrees, counter-clockwise: that of its polar decomposition."""
    theta = torch.cat([net[0].theta(part) for part in U.split(1000)])
    (a, b), (c, d) = theta[:, 0, :2].T, theta[:, 1, :2].T
    return torch.atan2(c - b, a + d).rad2deg(), affine.decompose(theta).degrees


def line(x, y):
    """Slope and R² of the best straight line."""
    r = torch.corrcoef(torch.stack([x, y]))[0, 1]
    return (r * y.std() / x.std()).item(), (r * r).item()


def by_class(true, phi, labels):
    """Of each class: slope, R², the mean direction of true plus learned angle, and its length."""
    rows = []
    for c in range(10):
        x, y = true[labels == c], phi[labels == c]
        sums = torch.polar(torch.ones_like(x), (x + y).deg2rad()).mean()
        rows.append([*line(x, y), sums.angle().rad2deg().item(), sums.abs().item()])
    names = ("slope", "r2", "offset", "agreement")
    return {
        name: [round(v, 4) for v in column]
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def trained(net, images, labels, seed, augment):
    with contextlib.redirect_stdout(io.StringIO()):
        losses = fit(
            net, images, labels, epochs=EPOCHS, seed=seed, learning_rate=RATE, augment=augment
        )
    return losses[-1]


def learn(kind, seed, digits, held):
    """Train one network, and say what it does with digits held out."""
    front, hidden, reach, shuffle = KINDS[kind]
    net, labels = network(front, hidden, seed), digits.labels
    if shuffle:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]

    def turn(U, generator):
        return turned(U, draw(len(U), reach, generator))

    start = time.perf_counter()
    loss = trained(net, digits.images, labels, seed, turn)
    row = {
        "kind": kind,
        "seed": seed,
        "reach": reach,
        "parameters": sum(p.numel() for p in net.parameters()),
        "seconds": round(time.perf_counter() - start),
        "train_loss": round(loss, 4),
    }
    true = draw(len(held.labels), reach, torch.Generator().manual_seed(1))
    U = turned(held.images / 255, true)
    row["accuracy"] = round(100 * accuracy(net, U, held.labels), 2)
    if not isinstance(net[0], nn.Identity):
        polar, qr = angles(net, U)
        row |= by_class(true, polar, held.labels)
        if kind == "affine":
            row["slope_qr"] = by_class(true, qr, held.labels)["slope"]
    return row


def by_hand(name, seed, digits):
    """Train the classifier alone on digits that stand as told, and give its loss on them."""
    degrees = torch.zeros(10)
    for c, angle in BY_HAND[name].items():
        degrees[c] = angle
    parts = zip(digits.images.split(1000), digits.labels.split(1000), strict=True)
    images = torch.cat([turned(U / 255, degrees[c]) for U, c in parts])
    images = (255 * images).round().to(torch.uint8)
    net = network(nn.Identity, HIDDEN, seed)
    return {"turned": name, "seed": seed, "train_loss": round(
        trained(net, images, digits.labels, seed, None), 4)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=RESULT)
    path = parser.parse_args().output
    digits, held = hold_out(load_digits("train", "mnist"))
    digits = type(digits)(digits.images[:DIGITS], digits.labels[:DIGITS])
    result = {
        "command": "python -m benchmarks.learned_angle",
        "commit": commit(),
        "device": f"cpu: {device_name(torch.device('cpu'))}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": f"MNIST, {DIGITS} training digits, {len(held.labels)} held out",
        "epochs": EPOCHS,
        "learning_rate": RATE,
        "seeds": list(SEEDS),
        "rows": [],
        "by_hand": [],
    }
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        result |= {"rows": old["rows"], "by_hand": old["by_hand"]}
    done = {(row["kind"], row["seed"]) for row in result["rows"]}
    done |= {(row["turned"], row["seed"]) for row in result["by_hand"]}
    for table, names in (("rows", KINDS), ("by_hand", BY_HAND)):
        for name in names:
            for seed in SEEDS:
                if (name, seed) in done:
                    continue
                if table == "rows":
                    row = learn(name, seed, digits, held)
                else:
                    row = by_hand(name, seed, digits)
                result[table].append(row)
                print({k: v for k, v in row.items() if not isinstance(v, list)}, flush=True)
                path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
