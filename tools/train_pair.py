"""Train the pair of windows that the pair explorable runs: `python -m tools.train_pair`.

MNIST addition, as `stn_tutorial.data` makes it: two digits of MNIST in two channels of 42×42
pixels, each turned by up to 45° either way, scaled by 0.7 to 1.2 and put somewhere (RTS), and their
sum for a label. A small network with two spatial transformers learns it, in three parts:

1. The net that reads a view learns single digits, nearly upright, *with their labels*.
2. It is held fast. The two windows and the net that adds learn from the sum alone, easy pictures
   first: the share of RTS grows over the first part of the steps.
3. The windows are held fast. The net that reads and the net that adds learn from the sum, and so
   get used to what these windows show.

So nobody tells a window which digit to follow, how it is turned, or where it lies. But what a digit
is, the reading net was told: from the sum alone a network of this size stays long on the plateau of
chapter 12.

Two networks to compare with see the same sums, in the same order, for as many steps as parts 2 and
3 together. `--plain` trains one without windows, of as many weights, which is told no single
digits. `--still` trains the very same network, from part 1 on, but holds its windows still: both
show the whole frame, and the net that reads learns in part 2 as well.

Each part goes on from its checkpoint in `runs/pair`. In the end batch norm is folded into the
layers, the weights are rounded to float16 and written to `stn_tutorial/explorables/pair.bin`, and
*these* are tested, once; figures go to `book/results/pair.json`.
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.sampling import commit, device_name
from stn_tutorial import data, training
from stn_tutorial.affine import invert
from stn_tutorial.data.passes import Passes, generator_of
from stn_tutorial.explorables import chains, pair_nets
from tools.train_network import HeldFast, folded, quantised, strip

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "pair.json"
RUNS = ROOT / "runs" / "pair"
SEED, BATCH = 0, 64
ZOOM = 24 / 28
"""The share of an upright digit's 28×28 pixels that the reading net learns to see."""
REACH, GROWTH = 0.1, 0.5
"""The share of RTS in the first step, and the share of part 2's steps over which it grows to 1."""
READ = training.Recipe(
    steps=1200, batch_size=BATCH, optimiser="adamw", learning_rate=4e-3, schedule="one-cycle"
)
LOOK = training.Recipe(
    steps=6000, batch_size=BATCH, optimiser="adamw", learning_rate=4e-3, localisation_rate=0.5,
    schedule="one-cycle", warmup=0.1,
)  # fmt: skip
SETTLE = training.Recipe(
    steps=800, batch_size=BATCH, optimiser="adamw", learning_rate=2e-3, schedule="one-cycle",
    warmup=0.1,
)  # fmt: skip
PLAIN = training.Recipe(
    steps=LOOK.steps + SETTLE.steps, batch_size=BATCH, optimiser="adamw", learning_rate=4e-3,
    schedule="one-cycle", warmup=0.1,
)  # fmt: skip
EXECUTION = training.Execution(channels_last=True)


def seen(images, generator):
    """Digits, uint8 (N, 1, 28, 28), as a good window would show them: float (N, 1, 20, 20).

    Each is turned by up to 10° either way, scaled by 0.9 to 1.1, and shifted a little.
    """
    draw = 2 * torch.rand(4, len(images), generator=generator) - 1
    angle, size = draw[0] * 10 * torch.pi / 180, ZOOM / (1 + 0.1 * draw[1])
    cos, sin = angle.cos() * size, angle.sin() * size
    theta = torch.stack([cos, -sin, 0.07 * draw[2], sin, cos, 0.07 * draw[3]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(
        theta, (len(images), 1, pair_nets.SEEN, pair_nets.SEEN), align_corners=False
    )
    return F.grid_sample(images.float() / 255, grid, align_corners=False)


def upright(digits):
    """Batches of single digits for the reading net, each from the number of its step alone."""
    passes = Passes(len(digits.labels), BATCH, SEED, "digits")

    def batch(step):
        chosen = passes(step)
        U = seen(digits.images[chosen], generator_of("pair, upright", SEED, step))
        return U, digits.labels[chosen]

    return batch


def growing(steps):
    """The share of RTS at a step: from `REACH` to 1 over the first part of so many steps."""
    return lambda step: min(1.0, REACH + (1 - REACH) * step / (GROWTH * steps))


def run(name, net, batch, recipe, evaluate=None):
    """Train one part, or go on with it; print its records, and return its seconds."""

    def show(record):
        print(name, {key: round(value, 3) for key, value in record.items()}, flush=True)

    records = training.train(
        net, batch, recipe, evaluate=evaluate, every=recipe.steps // 10,
        checkpoint=RUNS / f"{name}.pt", execution=EXECUTION, on_record=show,
    )  # fmt: skip
    return records[-1]["seconds"]


def trained_pair(digits, exam, still=False):
    """Train the pair in its three parts; return it, without batch norm, and each part's seconds."""
    torch.manual_seed(SEED)
    net = pair_nets.network(norm=True, **({"start": 1.0} if still else {}))
    mark = "still-" if still else ""
    look, each, add = net

    def judge(model):
        return training.error_rate(model, exam)

    seconds = {"read": run("read", each.read, upright(digits), READ)}
    each.read = folded(each.read)
    sums = data.Sums(digits, "channels", batch_size=BATCH, seed=SEED, reach=growing(LOOK.steps))
    parts = (HeldFast(look), each, add) if still else (look, HeldFast(each), add)
    seconds["look"] = run(f"{mark}look", nn.Sequential(*parts), sums, LOOK, judge)
    each.requires_grad_(True)
    sums = data.Sums(digits, "channels", batch_size=BATCH, seed=SEED + 1)
    parts = (HeldFast(look), each, add)
    seconds["settle"] = run(f"{mark}settle", nn.Sequential(*parts), sums, SETTLE, judge)
    look.requires_grad_(True)
    return folded(net), seconds


def trained_still(digits, exam):
    """Train the same network with its windows held still."""
    return trained_pair(digits, exam, still=True)


def trained_plain(digits, exam):
    """Train the plain network; return it and its seconds."""
    torch.manual_seed(SEED)
    net = chains.chain(pair_nets.PLAIN, ("conv", "dense"))
    easy = data.Sums(digits, "channels", batch_size=BATCH, seed=SEED, reach=growing(LOOK.steps))
    full = data.Sums(digits, "channels", batch_size=BATCH, seed=SEED + 1)

    def batch(step):
        return easy(step) if step < LOOK.steps else full(step - LOOK.steps)

    seconds = run("plain", net, batch, PLAIN, lambda model: training.error_rate(model, exam))
    return folded(net), {"plain": seconds}


OTHERS = {"plain": trained_plain, "still": trained_still}
"""To compare with."""


# --- What the windows do ---


def angles(theta):
    """By how much similarities turn, in radians: (…, 2, 3) to (…)."""
    return torch.atan2(theta[..., 1, 0] - theta[..., 0, 1], theta[..., 0, 0] + theta[..., 1, 1])


def slope(given, taken):
    """How much of what is given is taken, by least squares, both (N, …)."""
    given, taken = (one - one.mean(dim=0) for one in (given, taken))
    return ((given * taken).sum() / given.square().sum()).item()


@torch.no_grad()
def followed(net, sums):
    """Which share of a digit's turn and shift each window takes back, window by channel.

    Least squares over all sums: of the window's angle on the digit's, and of the window's middle on
    the digit's, in U. 1 where the window follows, 0 where it does not care. Beside it, how far a
    digit stands from what is usual, before and after: its turn in degrees, in U and in V, the mean
    of the absolute values about their mean.
    """
    thetas = torch.cat([torch.stack(net[0].thetas(U), dim=1) for U, _ in sums])
    truth = sums.theta()
    turn, window_turn = -angles(truth).rad2deg(), angles(thetas).rad2deg()
    middle = invert(truth.flatten(0, 1))[:, :, 2].view(-1, 2, 2)
    pairs = [[(k, c) for c in range(2)] for k in range(2)]
    turns = [[slope(turn[:, c], window_turn[:, k]) for k, c in row] for row in pairs]
    shifts = [[slope(middle[:, c], thetas[:, k, :, 2]) for k, c in row] for row in pairs]
    left = [[(turn[:, c] - window_turn[:, k]) for k, c in row] for row in pairs]

    def spread(degrees):
        return round((degrees - degrees.mean()).abs().mean().item(), 1)

    return {
        "takes": [max(range(2), key=row.__getitem__) for row in shifts],
        "share_of_turn": [[round(one, 3) for one in row] for row in turns],
        "share_of_shift": [[round(one, 3) for one in row] for row in shifts],
        "degrees_in_U": [spread(turn[:, c]) for c in range(2)],
        "degrees_in_V": [[spread(one) for one in row] for row in left],
    }


@torch.no_grad()
def read_rightly(net, sums, takes):
    """How many of the digits are read rightly through the window that takes them, in %."""
    look, each, _ = net
    scores = torch.cat([each(look(U)) for U, _ in sums]).view(-1, 2, 2, 10)
    labels = sums.addends()
    right = [(scores[:, k, c].argmax(1) == labels[:, c]).double() for k, c in enumerate(takes)]
    return round(100 * torch.stack(right).mean().item(), 2)


# --- What is written ---


def error(net, sums):
    return round(training.error_rate(net, sums), 2)


def count(net):
    return sum(p.numel() for p in net.parameters())


def tested(net, held, test):
    """A network's figures, of the weights as they ship."""
    rows = {"parameters": count(net), "held_out_error": error(net, held)}
    net = quantised(net)
    return rows | {
        "held_out_error_as_shipped": error(net, held),
        "test_error": error(net, test),
        "test_error_upright": error(net, data.FixedSums(test_digits(), "channels", reach=0.0)),
    }


def test_digits():
    return data.load_digits("test")


def publish(result):
    """Put what the explorable states beside its weights."""
    rows = result["networks"]
    figures = {
        "sums": result["test_sums"],
        "parameters": {name: row["parameters"] for name, row in rows.items()},
        "error": {name: row["test_error"] for name, row in rows.items()},
        **{key: rows["pair"][key] for key in ("takes", "share_of_turn", "share_of_shift")},
        **{key: rows["pair"][key] for key in ("degrees_in_U", "degrees_in_V", "digits_right")},
    }
    pair_nets.FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    others = parser.add_mutually_exclusive_group()
    for other, train in OTHERS.items():
        others.add_argument(
            f"--{other}", dest="name", action="store_const", const=other, default="pair",
            help=train.__doc__.partition(";")[0].rstrip("."),
        )  # fmt: skip
    name = parser.parse_args().name
    made_by = commit()  # before anything is written
    RUNS.mkdir(parents=True, exist_ok=True)
    digits, held_digits = data.hold_out(data.load_digits("train"))
    held = data.FixedSums(held_digits, "channels", "held-out")
    few = data.Digits(held_digits.images[:2000], held_digits.labels[:2000])
    exam = list(data.FixedSums(few, "channels", "held-out"))
    test = data.FixedSums(test_digits(), "channels")
    net, seconds = OTHERS.get(name, trained_pair)(digits, exam)
    row = tested(net, held, test)
    if name == "pair":
        pair_nets.WEIGHTS.write_bytes(chains.half(pair_nets.parameters(net)))
        strip(test_digits().images, pair_nets.DIGITS.values()).save(pair_nets.STRIP, optimize=True)
        row |= followed(net, test)
        row["digits_right"] = read_rightly(net, test, row["takes"])
    row |= {
        "command": "python -m tools.train_pair" + ("" if name == "pair" else f" --{name}"),
        "commit": made_by,
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seconds": {part: round(one) for part, one in seconds.items()},
    }
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    recipes = {"read": READ, "look": LOOK, "settle": SETTLE, "plain": PLAIN}
    result |= {
        "data": "MNIST addition, two channels; held-out digits as `data.hold_out` has them",
        "seed": SEED,
        "test_sums": len(test),
        "upright": "digits of their own size, upright, in the middle",
        "reach": {"from": REACH, "share_of_steps": GROWTH, "steps": LOOK.steps},
        "recipes": {part: asdict(recipe) for part, recipe in recipes.items()},
        "networks": result.get("networks", {}) | {name: row},
    }
    print(name, row, flush=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if "pair" in result["networks"]:
        publish(result)


if __name__ == "__main__":
    main()
