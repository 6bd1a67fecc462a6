"""A bend learned from class labels: which family of maps finds it, and what a penalty changes.

Run it with `python -m benchmarks.bends`; it writes `book/results/bends.json`, which chapter 9
shows. Each digit of MNIST is bent like a bow, by x + b·(y² − ⅓) with a b of its own, drawn afresh
whenever the digit is. In front of a small classifier stands a transformer of one of these families,
all from the same localisation net but for its width, which makes the affine network as large as the
spline's:

- *spline*, of 4×4 points; *affine*, of nearly as many weights; *bow*, the family of one number that
  the bends come from; *bow and affine*: the two in a chain, seven numbers; *no transformer*: the
  classifier alone, and a *wider* one of nearly as many weights;
- *spline, penalty*: the loss has the grid's bending added, the mean square of its second
  differences in pixels, as a multiple that the row names.

Judged on 10 000 digits held out: the accuracy; within each class, the slope of the learned bend,
the coefficient of y² in a least-squares fit of the grid's movement along x, against the bend b that
was added (−1 would undo it); the share of cells that are folded over, and of digits that have one.
Three seeds; a row that is in the file is not run again.
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

from benchmarks.learned_angle import line
from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial.data import hold_out, load_digits
from stn_tutorial.grids import regular_grid
from stn_tutorial.training import accuracy, fit
from stn_tutorial.transformer import (
    Affine,
    Chain,
    FullyConnectedLocalisation,
    SpatialTransformer,
    ThinPlateSpline,
    Transform,
)

RESULT = ROOT / "book" / "results" / "bends.json"
DIGITS, EPOCHS, RATE, SEEDS = 6_000, 10, 3e-3, (0, 1, 2)
BEND = 0.9
"""The largest |b|: at the top and at the foot of the picture, a shift of 0.6."""
SIZE = (28, 28)
HIDDEN = 32


class Bow(Transform):
    """Read at x + o₁·(y² − ⅓): the bend itself."""

    dof = 1

    def theta(self, offsets):
        """θ of shape (N, 1): the offset."""
        return offsets

    def points(self, theta, points, size=None):
        """Where the bent map reads, (N, P, 2), for points (P, 2) or (N, P, 2)."""
        x, y = points.expand(len(theta), -1, -1).unbind(-1)
        return torch.stack([x + theta * (y**2 - 1 / 3), y], dim=-1)


def bow_and_affine():
    """The bend undone first, and then an affine map of what is straight."""
    return Chain(Bow(), Affine())


# Transform, widths of the localisation net, hidden units, weight of the penalty.
KINDS = {
    "spline": (ThinPlateSpline, (64, 64), HIDDEN, 0.0),
    "affine": (Affine, (69, 69), HIDDEN, 0.0),
    "bow": (Bow, (64, 64), HIDDEN, 0.0),
    "bow and affine": (bow_and_affine, (64, 64), HIDDEN, 0.0),
    "no transformer": (None, None, HIDDEN, 0.0),
    "wider, no transformer": (None, None, 56, 0.0),
    "spline, penalty 3": (ThinPlateSpline, (64, 64), HIDDEN, 3.0),
    "spline, penalty 30": (ThinPlateSpline, (64, 64), HIDDEN, 30.0),
}


def second_differences(grid):
    """The mean square of a grid's second differences, in squared pixels."""
    pixels = grid * SIZE[0] / 2
    across, down = pixels.diff(n=2, dim=2), pixels.diff(n=2, dim=1)
    both = pixels.diff(dim=1).diff(dim=2)
    return sum(part.square().sum(-1).mean() for part in (across, down, both, both))


class Penalised(nn.Sequential):
    """A network whose last bending is kept, for a loss that adds it."""

    def forward(self, U):
        """Return the scores, and remember the bending of this batch."""
        look = self[0]
        grid = look.grid(look.theta(U), SIZE)
        self.bending = second_differences(grid)
        V = F.grid_sample(U, grid, align_corners=False)
        return nn.Sequential(*list(self)[1:])(V)


def network(kind, seed):
    transform, widths, hidden, penalty = KINDS[kind]
    torch.manual_seed(seed)
    front = nn.Identity()
    if transform is not None:
        localisation = nn.Sequential(nn.AvgPool2d(2), FullyConnectedLocalisation(196, widths))
        front = SpatialTransformer(localisation, widths[-1], transform())
    layers = [nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
    return (Penalised if penalty else nn.Sequential)(front, *layers)


def bent(U, b):
    """Digits, float (N, 1, 28, 28), each bent by its b, (N,)."""
    return F.grid_sample(U, Bow()(b[:, None], SIZE), align_corners=False)


def draw(n, generator):
    return BEND * (2 * torch.rand(n, generator=generator) - 1)


@torch.no_grad()
def looks(net, U):
    """Of each digit, the bend in its grid, and the share of its cells that are turned over."""
    own = regular_grid(SIZE)
    x, y = own.view(-1, 2).T
    basis = torch.stack([torch.ones_like(x), x, y, x * y, x**2, y**2], dim=1)
    bends, folds = [], []
    for part in U.split(1000):
        grid = net[0].grid(net[0].theta(part), SIZE)
        movement = (grid - own)[..., 0].flatten(1)
        bends.append(torch.linalg.lstsq(basis, movement.T).solution[-1])
        right, down = grid[:, :-1].diff(dim=2), grid[:, :, :-1].diff(dim=1)
        folds.append(
            (right[..., 0] * down[..., 1] < right[..., 1] * down[..., 0]).float().mean((1, 2))
        )
    return torch.cat(bends), torch.cat(folds)


def learn(kind, seed, digits, held):
    """Train one network, and say what it does with digits held out."""
    net, penalty = network(kind, seed), KINDS[kind][3]
    start = time.perf_counter()

    def augment(U, generator):
        return bent(U, draw(len(U), generator))

    with contextlib.redirect_stdout(io.StringIO()):
        if penalty:
            loss = fit_penalised(net, digits, seed, augment, penalty)
        else:
            options = {"epochs": EPOCHS, "seed": seed, "learning_rate": RATE, "augment": augment}
            loss = fit(net, *digits, **options)[-1]
    row = {
        "kind": kind,
        "seed": seed,
        "parameters": sum(p.numel() for p in net.parameters()),
        "seconds": round(time.perf_counter() - start),
        "train_loss": round(loss, 4),
    }
    b = draw(len(held.labels), torch.Generator().manual_seed(1))
    U = bent(held.images / 255, b)
    row["accuracy"] = round(100 * accuracy(net, U, held.labels), 2)
    if KINDS[kind][0] is not None:
        learned, folds = looks(net, U)
        fits = [line(b[held.labels == c], learned[held.labels == c]) for c in range(10)]
        if kind != "affine":  # whose bend is 0 by construction
            row["slope"] = [round(slope, 4) for slope, _ in fits]
            row["r2"] = [round(r2, 4) for _, r2 in fits]
        row["folded_cells"] = round(100 * folds.mean().item(), 3)
        row["folded_digits"] = round(100 * (folds > 0).float().mean().item(), 2)
    return row


def fit_penalised(net, digits, seed, augment, penalty):
    """`fit`, with the bending added to the loss."""
    images, labels = digits
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    steps = len(images) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, epochs=EPOCHS, steps_per_epoch=steps
    )
    for _ in range(EPOCHS):
        total = 0.0
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: steps * 128].split(128):
            U = augment(images[chosen].float() / 255, generator)
            loss = F.cross_entropy(net(U), labels[chosen])
            optimiser.zero_grad()
            (loss + penalty * net.bending).backward()
            optimiser.step()
            schedule.step()
            total += loss.item() / steps
    net.eval()
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=RESULT)
    path = parser.parse_args().output
    digits, held = hold_out(load_digits("train", "mnist"))
    digits = digits.images[:DIGITS], digits.labels[:DIGITS]
    result = {
        "command": "python -m benchmarks.bends",
        "commit": commit(),
        "device": f"cpu: {device_name(torch.device('cpu'))}",
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": f"MNIST, {DIGITS} training digits, {len(held.labels)} held out",
        "bend": BEND,
        "epochs": EPOCHS,
        "learning_rate": RATE,
        "seeds": list(SEEDS),
        "rows": json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else [],
    }
    done = {(row["kind"], row["seed"]) for row in result["rows"]}
    for kind in KINDS:
        for seed in SEEDS:
            if (kind, seed) not in done:
                row = learn(kind, seed, digits, held)
                result["rows"].append(row)
                print({k: v for k, v in row.items() if not isinstance(v, list)},
                      sum(row.get("slope", [0])) / 10, flush=True)  # fmt: skip
                path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
