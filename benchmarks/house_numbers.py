"""House numbers: what transformers cost in time, and where the trained ones look.

    python -m benchmarks.house_numbers cost
    python -m benchmarks.house_numbers looks runs

    python -m benchmarks.house_numbers counts
    python -m benchmarks.house_numbers places runs

The first writes `book/results/svhn_cost.json`: seconds of a step, forward and backward, of the
three readers of the paper's widths and of the small ones, all taking turns, in seconds of the
processor (so that another process beside it counts less); of each transformer's localisation net
alone, and of its grid and sampling alone; and of the plain reader when its first convolution must
also say how the picture should change, as it must behind a transformer. Beside them the
multiplications that the steps need.

The second reads the weights that `stn-tutorial reproduce svhn --columns part-64` has left in a
folder, and writes `book/results/svhn_looks.json`: the errors with each picture's own θ, with the
mean θ of all test pictures in place of it, and with the identity; that mean, and how far θ moves
the picture; how many units of each localisation net tell pictures apart; and of seed 0, a few
pictures with their θ and with what is said of them, as PNG.

The third writes `book/results/svhn_counts.json`: how many different numbers there are, and how many
of the test numbers never occur in training, of SVHN's train and test and of the part of them, from
the annotations beside the part.

The fourth reads the answers in that folder and writes `book/results/svhn_places.json`: by the
length of the number, how many are wrong at each place. Chapter 13 shows all four.
"""

import argparse
import base64
import gzip
import io
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial import affine
from stn_tutorial.data import (
    NO_DIGIT,
    FixedNumbers,
    data_folder,
    load_house_numbers,
    number_lengths,
    read_number,
)
from stn_tutorial.experiments.house_numbers import NUMBER_PLANS, judge_numbers
from stn_tutorial.models import NUMBER_MODELS, build_number_reader
from stn_tutorial.transformer import SpatialTransformer

COST = ROOT / "book" / "results" / "svhn_cost.json"
COUNTS = ROOT / "book" / "results" / "svhn_counts.json"
LOOKS = ROOT / "book" / "results" / "svhn_looks.json"
PLACES = ROOT / "book" / "results" / "svhn_places.json"
SIZES = (("paper", 4), ("small", 32))
REPEATS = 7
SHOWN = 24
"""Test pictures that are shown: the first ones, whatever the networks make of them."""


def transformers(model):
    return [m for m in model.modules() if isinstance(m, SpatialTransformer)]


def step_of(model, batch, towards_picture=False):
    """Return a call that does a step's work, forward and backward."""
    U, target = torch.rand(batch, 3, 64, 64), torch.randint(11, (batch, 5))
    U.requires_grad_(towards_picture)

    def step():
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(U), target).backward()

    return step


def alone(model, batch):
    """Return calls that do one part of a step's work each, of all transformers of a reader.

    `localisation` k is the way from what the k-th transformer is given to its θ and back,
    `sampling` k the way from there and θ to what it shows and back. Back to the input too, but for
    the transformer that stands at the picture.
    """
    seen = {}
    hooks = [
        look.register_forward_pre_hook(
            lambda module, given, k=k: seen.update({k: given[0].detach()})
        )
        for k, look in enumerate(transformers(model))
    ]
    model(torch.rand(batch, 3, 64, 64))
    for hook in hooks:
        hook.remove()

    def localise(look, x, first):
        look.theta(x.clone().requires_grad_(not first)).sum().backward()

    def sample(look, x, theta, first):
        V = look.sample(x.clone().requires_grad_(not first), theta.clone().requires_grad_())
        V.backward(torch.ones_like(V))

    calls = {}
    for k, look in enumerate(transformers(model)):
        x, first = seen[k], k == 0
        theta = look.theta(x).detach()
        calls[f"localisation {k + 1}"] = lambda look=look, x=x, f=first: localise(look, x, f)
        calls[f"sampling {k + 1}"] = lambda look=look, x=x, t=theta, f=first: sample(look, x, t, f)
    return calls


def in_turn(calls, repeats=REPEATS):
    """Return the processor's seconds of each call, one list each; all take turns."""
    found = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:  # the first warms up
                found[name].append(round(time.process_time() - start, 5))
    return found


def multiplications(step):
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2  # it counts the additions as well


def cost():
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    rows = []
    for widths, batch in SIZES:
        norm = NUMBER_PLANS["modern"].batch_norm and widths == "small"
        models = {
            name: build_number_reader(name, (64, 64), widths, batch_norm=norm)
            for name in NUMBER_MODELS
        }
        calls = {name: step_of(model, batch) for name, model in models.items()}
        counts = {name: multiplications(call) for name, call in calls.items()}
        calls["cnn, towards the picture"] = step_of(models["cnn"], batch, towards_picture=True)
        for name, model in models.items():
            calls |= {f"{name}, {part}": call for part, call in alone(model, batch).items()}
        seconds = in_turn(calls)
        for name, found in seconds.items():
            rows.append(
                {
                    "widths": widths,
                    "batch": batch,
                    "what": name,
                    "seconds": found,
                    "median": round(statistics.median(found), 5),
                    "multiplications": counts.get(name),
                }
            )
            print(f"{widths:7s}{name:16s}{rows[-1]['median'] * 1000:9.1f} ms", flush=True)
    write(COST, {"rows": rows, "clock": f"processor seconds, load before {load:.1f}"})


def write(path, found):
    given = ["runs" if Path(word).is_dir() else word for word in sys.argv[1:]]
    found |= {
        "command": " ".join(["python -m benchmarks.house_numbers", *given]),
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def held(model, thetas):
    """Let each transformer use one θ for all pictures."""
    looks = transformers(model)
    try:
        for look, theta in zip(looks, thetas, strict=True):
            look.theta = lambda U, size=None, theta=theta: theta.expand(len(U), *theta.shape[1:])
        yield
    finally:
        for look in looks:
            del look.theta


def moved(theta):
    """How far the corners of what is read lie from the identity's: mean and, over pictures, spread.

    In units of half the picture.
    """
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    read = affine.transform_points(theta, corners)
    mean = read.mean(dim=0)
    return {
        "mean": round((mean - corners).norm(dim=-1).mean().item(), 4),
        "spread": round((read - mean).norm(dim=-1).square().mean().sqrt().item(), 4),
    }


@torch.no_grad()
def alive(model, U):
    """Of each localisation net: how many units of its last layer differ from picture to picture."""
    last, counts = {}, []
    hooks = [
        look.localisation.register_forward_hook(lambda m, given, made, k=k: last.update({k: made}))
        for k, look in enumerate(transformers(model))
    ]
    model(U)
    for hook in hooks:
        hook.remove()
    for _, features in sorted(last.items()):
        counts.append(int((features.flatten(1).std(dim=0) > 1e-4).sum()))
    return counts


def rounded(theta):
    return [round(x, 4) for x in theta.flatten().tolist()]


def png(images):
    """Pictures side by side, (N, 3, S, S) bytes, as the text of a PNG."""
    row = images.permute(2, 0, 3, 1).reshape(images.shape[2], -1, 3)
    memory = io.BytesIO()
    Image.fromarray(row.numpy()).save(memory, "png", optimize=True)
    return base64.b64encode(memory.getvalue()).decode()


def kinds(said, labels):
    """Say of wrong answers how they are wrong, each once: (N, 5) both."""
    none, there = said == NO_DIGIT, labels != NO_DIGIT
    gap = (none[:, :-1] & ~none[:, 1:]).any(dim=1)
    other = (~none).sum(dim=1) != there.sum(dim=1)
    off = (said != labels).sum(dim=1)
    return {
        "a gap": int(gap.sum()),
        "another length": int((other & ~gap).sum()),
        "one digit": int((~other & ~gap & (off == 1)).sum()),
        "several digits": int((~other & ~gap & (off > 1)).sum()),
    }


def results_in(folder):
    """The files of the readers of the part."""
    return sorted(Path(folder).glob("numbers-part-64_*_seed*.json"))


@torch.no_grad()
def looks(folder):
    test = load_house_numbers("test", "svhn-part")
    judge_by = FixedNumbers(test)
    rows = []
    for path in results_in(folder):
        result = json.loads(path.read_text(encoding="utf-8"))
        settings, recipe = result["settings"], result["settings"]["recipe_settings"]
        model = build_number_reader(
            settings["model"], (64, 64), recipe["widths"],
            batch_norm=recipe["batch_norm"], dense_dropout=recipe["dense_dropout"],
        )  # fmt: skip
        model.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
        model.eval()
        row = {key: settings[key] for key in ("model", "recipe", "seed", "steps")}
        own = judge_numbers(model, judge_by)
        row["error"] = own["test_error"]
        parts = [(model.looks(U), model(U).argmax(dim=1)) for U, _ in judge_by]
        said = torch.cat([part for _, part in parts])
        misread = own["misread"]
        row["kinds"] = kinds(said[misread], test.labels[misread])
        if transformers(model):
            thetas = [torch.cat(one) for one in zip(*(t for t, _ in parts), strict=True)]
            means = [theta.mean(dim=0, keepdim=True) for theta in thetas]
            with held(model, means):
                row["error_at_mean"] = judge_numbers(model, judge_by)["test_error"]
            with held(model, [affine.identity() for _ in means]):
                row["error_at_identity"] = judge_numbers(model, judge_by)["test_error"]
            row["moved"] = [moved(theta) for theta in thetas]
            row["alive"] = alive(model, test.images[:200] / 255)
            row["mean_theta"] = [rounded(mean[0]) for mean in means]
        rows.append(row)
        if settings["seed"] == 0 and settings["recipe"] == "modern":  # those that are drawn
            if transformers(model):
                row["theta"] = [[rounded(one) for one in theta[:SHOWN]] for theta in thetas]
            row["said"] = [read_number(answer) for answer in said[:SHOWN]]
            row["misread"] = [
                {
                    "picture": png(test.images[k : k + 1]),
                    "truth": read_number(test.labels[k]),
                    "said": read_number(said[k]),
                }
                for k in misread[:8]
            ]
        print({k: v for k, v in row.items() if k not in ("theta", "said", "misread")}, flush=True)
    found = {
        "rows": rows,
        "truth": [read_number(label) for label in test.labels[:SHOWN]],
        "pictures": png(test.images[:SHOWN]),
        "source": "SVHN (Netzer et al. 2011), test pictures 1 to 24 and some that were misread; "
        "for non-commercial use only",
    }
    write(LOOKS, found)


def counted(train, test):
    """Count numbers, each a tuple of digits."""
    known, lengths = Counter(train), range(1, 6)
    unseen = [number for number in test if number not in known]
    return {
        "train": len(train),
        "test": len(test),
        "different": len(known),
        "once": sum(count == 1 for count in known.values()),
        "unseen": len(unseen),
        "by_length": {
            str(k): [sum(len(n) == k for n in test), sum(len(n) == k for n in unseen)]
            for k in lengths
        },
    }


def counts():
    path = data_folder() / "SVHN" / "svhn_format1_annotations_all.json.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = json.load(file)
    parts = [
        [tuple(one["label"]) for one in found[split].values() if len(one["label"]) <= 5]
        for split in ("train", "test")
    ]
    part = [[tuple(read_number(x)) for x in load_house_numbers(split, "svhn-part").labels]
            for split in ("train", "test")]  # fmt: skip
    result = {"whole": counted(*parts), "part": counted(*part)}
    print(json.dumps(result, indent=1))
    write(COUNTS, result)


def places(folder):
    test = load_house_numbers("test", "svhn-part")
    lengths = number_lengths(test.labels)
    train = number_lengths(load_house_numbers("train", "svhn-part").labels)
    rows = []
    for path in results_in(folder):
        result = json.loads(path.read_text(encoding="utf-8"))
        said = test.labels.clone()
        said[torch.tensor(result["misread"])] = torch.tensor(result["answers"])
        off, by_length = said != test.labels, {}
        for k in range(1, int(lengths.max()) + 1):
            own = lengths == k
            by_length[str(k)] = {
                "numbers": int(own.sum()),
                "wrong": int(off[own].any(dim=1).sum()),
                "wrong_at": off[own][:, :k].sum(dim=0).tolist(),
            }
        kept = {key: result["settings"][key] for key in ("model", "recipe", "seed")}
        rows.append(kept | {"by_length": by_length})
    found = {str(k): int((train == k).sum()) for k in range(1, int(train.max()) + 1)}
    write(PLACES, {"rows": rows, "train": found})
    print(f"{len(rows)} networks")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cost", "looks", "counts", "places"))
    parser.add_argument("folder", nargs="?", default="runs")
    options = parser.parse_args()
    if options.what == "cost":
        cost()
    elif options.what == "counts":
        counts()
    elif options.what == "places":
        places(options.folder)
    else:
        looks(options.folder)


if __name__ == "__main__":
    main()
