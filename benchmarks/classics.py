"""What chapter 15 says of the classic networks, measured: rectifiers, depth, turns, attention.

Run it with `python -m benchmarks.classics`; it writes `book/results/classics.json` after each
network, and what is in the file is not run again. All of it is small, and trained on a part of
MNIST at half its size or on canvases of it; seeds are the innermost thing that differs.

- *rectifiers*: five convolutions and two dense layers without batch norm, ReLU against tanh, each
  started with its own gain, at several learning rates: how many steps until nine in ten of the last
  batches are right.
- *depth*: the plain and the residual network of He et al.'s CIFAR design (6n + 2 layers), 20 and 56
  layers deep, in small: training loss along the steps, and errors.
- *slower*: the plain network of 56 layers at smaller learning rates, since a depth that is only
  started too fast would be no finding.
- *few*: 500 digits and a network with two dense layers, as they are, with dropout, with pictures
  moved or mirrored at random: the same steps for each, and the errors on these 500 and on others.
- *turned*: a network trained on upright digits, then fine-tuned on digits turned by up to 90°, with
  and without a transformer put in, for the same number of steps.
- *attention*: one small network, plain, wider, with squeeze and excitation, CBAM, soft attention,
  or a movable window; a task where the digit must be found, and one where it must be known which of
  three superimposed digits is meant. The head takes the mean over all places (one cell), or, as a
  control, keeps 4×4 cells.

What the chapter's pictures need from SqueezeNet's real weights is `benchmarks.classics_looks`.
"""

import argparse
import contextlib
import io
import itertools
import json
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.classics_looks import png
from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial import affine, data
from stn_tutorial.attention import CBAM, SoftAttention, SqueezeExcitation
from stn_tutorial.data import Digits
from stn_tutorial.models import count_parameters
from stn_tutorial.training import Recipe, error_rate, train
from stn_tutorial.transformer import Attention, Rotation, SpatialTransformer, insert

RESULT = ROOT / "book" / "results" / "classics.json"
SEEDS, BATCH = (0, 1, 2), 64


def warp(U: Tensor, theta: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """What θ, (N, 2, 3), shows of U, (N, C, H, W)."""
    shape = (*U.shape[:2], *(size or U.shape[2:]))
    grid = F.affine_grid(theta, list(shape), align_corners=False)
    return F.grid_sample(U, grid, align_corners=False)


def draws(count: int, seed: int) -> Iterator[Tensor]:
    """Batches of places in a set of `count`, without end, each pass in a new order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // BATCH * BATCH].split(BATCH)


# --- Rectifiers ---

RATES = (0.01, 0.03, 0.1)
WINDOW, PATIENCE = 20, 300


def rectified(kind: type[nn.Module], seed: int) -> nn.Sequential:
    """Five convolutions and two dense layers, without batch norm, started as the unit wants it."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    into = 1
    for out in (16, 16, 32, 32, 32):
        layers += [nn.Conv2d(into, out, 3, padding=1), kind()]
        layers += [nn.MaxPool2d(2)] if out != into and into > 1 else []
        into = out
    model = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(32 * 7 * 7, 64), kind(), nn.Linear(64, 10)
    )
    gain = nn.init.calculate_gain("relu" if kind is nn.ReLU else "tanh")
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spread = gain / module.weight[0].numel() ** 0.5  # He's, with the unit's own gain
            nn.init.normal_(module.weight, std=spread)
            nn.init.zeros_(module.bias)
    return model


def rectifiers(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """Plain SGD until nine in ten of the last 20 batches are right, or 300 steps are over."""
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh}[row["unit"]]
    model, (images, labels) = rectified(kind, seed), digits[0]
    optimiser = torch.optim.SGD(model.parameters(), lr=row["rate"], momentum=0.9)
    wrong, curve, reached = [], [], None
    for step, chosen in enumerate(itertools.islice(draws(len(images), seed), PATIENCE), 1):
        scores = model(images[chosen] / 255)
        loss = F.cross_entropy(scores, labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        wrong.append((scores.argmax(1) != labels[chosen]).float().mean().item())
        recent = 100 * sum(wrong[-WINDOW:]) / len(wrong[-WINDOW:])
        if step % WINDOW == 0:
            curve.append([step, round(recent, 2)])
        if reached is None and step >= WINDOW and recent <= 10:
            reached = step
    return {"parameters": count_parameters(model), "steps": reached, "curve": curve}


# --- Depth ---

DEPTH_STEPS, DEPTH_RATE = 200, 0.1


class Block(nn.Module):
    """Two convolutions, with or without what came in added to what comes out."""

    def __init__(self, into: int, out: int, shortcut: bool) -> None:
        super().__init__()
        stride = 1 if into == out else 2
        self.first = nn.Conv2d(into, out, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(out), nn.BatchNorm2d(out)])
        self.shortcut, self.stride, self.more = shortcut, stride, out - into

    def forward(self, x: Tensor) -> Tensor:
        """F(x), or F(x) + x, where x is subsampled and filled with zeros if its shape changes."""
        y = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        if self.shortcut:
            y = y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return y.relu()


def deep(n: int, shortcut: bool, seed: int) -> nn.Sequential:
    """6n + 2 layers: a convolution, three stages of n blocks, a dense layer."""
    torch.manual_seed(seed)
    blocks = []
    into = 8
    for out in (8, 12, 16):
        for _ in range(n):
            blocks.append(Block(into, out, shortcut))
            into = out
    model = nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return model


def depth(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """SGD with momentum; the loss is the mean of each 20 steps'."""
    model, (images, labels) = deep(row["n"], row["shortcut"], seed), digits[0]
    rate = row.get("rate", DEPTH_RATE)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=DEPTH_STEPS, pct_start=0.2
    )
    losses, curve = [], []
    for step, chosen in enumerate(itertools.islice(draws(len(images), seed), DEPTH_STEPS), 1):
        loss = F.cross_entropy(model(images[chosen] / 255), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 0:
            curve.append([step, round(sum(losses[-20:]) / 20, 4)])
    return {
        "layers": 6 * row["n"] + 2,
        "parameters": count_parameters(model),
        "curve": curve,
        "train_error": round(error_rate(model, batched(*(t[:1000] for t in digits[0]))), 2),
        "error": round(error_rate(model, batched(*digits[1])), 2),
    }


def batched(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A set in batches of 500, as floats."""
    return list(zip((images / 255).split(500), labels.split(500), strict=True))


# --- Few ---

FEW, FEW_STEPS, SHIFT = 500, 600, 3
HABITS = ("plain", "dropout", "shifts", "shifts and dropout", "mirrors")


def shifted(U: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture moved by whole pixels of its own, up to three each way."""
    count, _, height, width = U.shape
    padded = F.pad(U, (SHIFT,) * 4)
    corners = torch.randint(0, 2 * SHIFT + 1, (count, 2), generator=generator).tolist()
    return torch.stack(
        [one[:, y : y + height, x : x + width] for one, (y, x) in zip(padded, corners, strict=True)]
    )


def mirrored(U: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures, left for right."""
    turned_over = torch.rand(len(U), 1, 1, 1, generator=generator) < 0.5
    return torch.where(turned_over, U.flip(-1), U)


def small_alexnet(dropped: float) -> nn.Sequential:
    """Two convolutions, then AlexNet's end in small: two dense layers, with dropout before each."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(dropped), nn.Linear(288, 128), nn.ReLU(),
        nn.Dropout(dropped), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def few(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """Many passes over the same 500 digits; each seed has 500 of its own."""
    torch.manual_seed(seed)
    habit, own = row["habit"], slice(seed * FEW, (seed + 1) * FEW)
    seen = Digits(*(t[own] for t in digits[0]))
    model = small_alexnet(0.5 if "dropout" in habit else 0.0)
    change = shifted if "shifts" in habit else mirrored if habit == "mirrors" else None
    learn(model, seen, FEW_STEPS, seed, 3e-3, change)
    return {
        "parameters": count_parameters(model),
        "train_error": round(error_rate(model, batched(*seen)), 2),
        "error": round(error_rate(model, batched(*digits[1])), 2),
    }


# --- Turned ---

BEFORE, AFTER = 300, 300


class Upright(nn.Module):
    """A small network of digits at full size, as others would have trained it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, stride=2), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(2 * width * 16, 10)

    def forward(self, U: Tensor) -> Tensor:
        """Scores, (N, 10)."""
        return self.classifier(self.features(U).flatten(1))


def finder() -> nn.Sequential:
    """A localisation net of digits at half their size."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(144, 32), nn.ReLU(),
    )  # fmt: skip


def turn(U: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture by an angle of its own, up to 90° either way."""
    return warp(U, affine.rotation(180 * torch.rand(len(U), generator=generator) - 90))


def learn(
    model: nn.Module, digits: Digits, steps: int, seed: int, rate: float,
    change: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    localisation_rate: float = 1.0,
) -> None:  # fmt: skip
    """AdamW, one cycle; `change` distorts each batch anew."""
    generator, order = torch.Generator().manual_seed(seed), draws(len(digits.images), seed)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        chosen = next(order)
        U = digits.images[chosen] / 255
        return (U if change is None else change(U, generator)), digits.labels[chosen]

    recipe = Recipe(
        steps=steps, batch_size=BATCH, optimiser="adamw", learning_rate=rate,
        localisation_rate=localisation_rate, schedule="one-cycle", warmup=0.2,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        train(model, batches, recipe)


def turned(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """Train upright, put a transformer in (or not), fine-tune on turned digits."""
    torch.manual_seed(seed)
    model = Upright(22 if row["kind"] == "wider" else 16)
    learn(model, digits[0], BEFORE, seed, 1e-2)
    upright = batched(*digits[1])
    generator = torch.Generator().manual_seed(99)
    askew = [(turn(U, generator), target) for U, target in upright]
    found = {
        "before": round(error_rate(model, askew), 2),
        "before_upright": round(error_rate(model, upright), 2),
    }
    look = None
    if row["kind"] == "transformer":
        look = SpatialTransformer(finder(), 32, Rotation())
        insert(model, look)
    learn(model, digits[0], AFTER, seed + 1, 5e-3, turn)
    found |= {
        "parameters": count_parameters(model),
        "after": round(error_rate(model, askew), 2),
        "after_upright": round(error_rate(model, upright), 2),
    }
    if look is not None:
        with torch.no_grad():
            theta = torch.cat([look.theta(U) for U, _ in askew])
            mean = theta.mean(dim=0, keepdim=True)
            # The control: one θ for all, so that only what differs from picture to picture is lost.
            look.theta = lambda U: mean.expand(len(U), 2, 3)  # type: ignore[method-assign]
            found["mean_theta"] = round(error_rate(model, askew), 2)
    return found


# --- Attention ---

STEPS, TRAIN, JUDGED = 300, 4000, 1500
CANVAS, FRAME = 42, 4


def put(pieces: Tensor, centre: Tensor) -> Tensor:
    """Each picture at a place of its own on an empty canvas."""
    ratio = CANVAS / pieces.shape[-1]
    return warp(pieces, ratio * affine.translation(*centre.T), (CANVAS, CANVAS))


def where(digits: Digits, count: int, seed: int) -> Digits:
    """A digit somewhere among four scraps of others, grey: the label is the digit."""
    chosen = torch.arange(count) % len(digits.labels)
    U = digits.images[chosen] / 255
    generator = torch.Generator().manual_seed(seed)
    at = 2 * torch.rand(5, count, 2, generator=generator) - 1
    canvas = put(U, at[0] / 3)
    for k in range(1, 5):
        canvas = torch.maximum(canvas, put(U.roll(k, dims=0)[:, :, 10:18, 10:18], 0.85 * at[k]))
    return Digits((255 * canvas).round().byte().expand(-1, 3, -1, -1), digits.labels[chosen])


def what(digits: Digits, count: int, seed: int) -> Digits:
    """Three digits in one place, red, green and blue; the colour of the frame says which counts.

    Of the digits 0 to 2 alone, since all ten would take longer runs.
    """
    few = digits.labels < 3
    digits = Digits(digits.images[few], digits.labels[few])
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(0, len(digits.labels), (3, count), generator=generator)
    at = (torch.rand(3, count, 2, generator=generator) - 0.5) / 5
    layers = [put(digits.images[one] / 255, at[k]) for k, one in enumerate(chosen)]
    canvas = torch.cat(layers, dim=1)
    meant = torch.randint(0, 3, (count,), generator=generator)
    canvas[:, :, FRAME:-FRAME, FRAME:-FRAME] += 2  # to tell the inside from the frame
    frame = F.one_hot(meant, 3).float()[:, :, None, None].expand_as(canvas)
    canvas = torch.where(canvas >= 2, canvas - 2, frame)
    labels = digits.labels[chosen].gather(0, meant[None])[0]
    return Digits((255 * canvas).round().byte(), labels)


TASKS = {"where": where, "what": what}
KINDS = ("plain", "wider", "se", "cbam", "soft", "window", "held", "shrunk")
"""The last two are the window's controls: the middle for all, and the whole canvas at its size."""
FLAT = ("plain", "wider", "held", "window")
"""Of these also with a head that knows places: 4×4 cells in the place of the mean over all."""


def window_finder() -> nn.Sequential:
    """Chapter 8's localisation net, of three channels; the batch norm keeps its ReLUs alive."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(144, 32), nn.BatchNorm1d(32), nn.ReLU(),
    )  # fmt: skip


def attending(kind: str, seed: int, cells: int = 1) -> nn.Sequential:
    """Four convolutions, means over cells, a hidden layer; and one kind of attention."""
    torch.manual_seed(seed)
    widths = (16, 24, 24, 36) if kind == "wider" else (12, 16, 16, 24)
    layers: list[tuple[str, nn.Module]] = []
    if kind == "window":
        look = SpatialTransformer(window_finder(), 32, Attention(), size=(28, 28))
        look.regression.bias.data[0] = -1 / 3  # it starts in the middle, at the digit's size
        layers.append(("look", look))
    if kind == "held":
        layers.append(("look", nn.ZeroPad2d(-7)))
    if kind == "shrunk":
        layers.append(("look", nn.AdaptiveAvgPool2d(28)))
    into = 3
    for k, out in enumerate(widths):
        side, stride = ((5, 2), (3, 2), (3, 1), (3, 1))[k]
        conv = nn.Conv2d(into, out, side, stride, padding=side // 2, bias=False)
        layers.append((f"layer{k}", nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())))
        if kind in ("se", "cbam") and k in (1, 3):
            layers.append((f"attend{k}", {"se": SqueezeExcitation, "cbam": CBAM}[kind](out, 4)))
        into = out
    mean: list[nn.Module] = [nn.AdaptiveAvgPool2d(cells), nn.Flatten()]
    layers.append(("pool", SoftAttention(into) if kind == "soft" else nn.Sequential(*mean)))
    head = nn.Linear(into * cells**2, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10)
    layers.append(("head", nn.Sequential(*head)))
    return nn.Sequential(OrderedDict(layers))


@torch.no_grad()
def attended(model: nn.Sequential, kind: str, U: Tensor) -> dict[str, Any]:
    """What a trained network attends to in some pictures, for the chapter to draw."""
    model.eval()
    if kind == "window":
        return {"theta": model.look.theta(U).mul(1e3).round().div(1e3).tolist()}
    if kind == "soft":
        for name, layer in model.named_children():
            if name == "pool":
                return {"weights": layer.weights(U).mul(1e4).round().div(1e4).tolist()}
            U = layer(U)
    if kind in ("se", "cbam"):
        found = {}
        for name, layer in model.named_children():
            if isinstance(layer, CBAM):
                found[name] = layer.place_factors(U).mul(1e3).round().div(1e3).tolist()
            elif isinstance(layer, SqueezeExcitation):
                found[name] = layer.factors(U).mul(1e3).round().div(1e3).tolist()
            U = layer(U)
        return found
    return {}


SETS: dict[str, tuple[Digits, Digits]] = {}
CANVASES: dict[str, str] = {}
"""The first pictures that each task is judged by, side by side, as the text of a PNG."""


def attention(row: dict[str, Any], seed: int, digits: tuple[Digits, Digits]) -> dict[str, Any]:
    """Train one network on one task; the same pictures and steps for all."""
    if row["task"] not in SETS:
        draw = TASKS[row["task"]]
        SETS[row["task"]] = draw(digits[0], TRAIN, 0), draw(digits[1], JUDGED, 1)
    seen, judged = SETS[row["task"]]
    model = attending(row["kind"], seed, row["cells"])
    learn(model, seen, STEPS, seed, 1e-2, localisation_rate=0.5)
    found = {
        "parameters": count_parameters(model),
        "error": round(error_rate(model, batched(*judged)), 2),
    }
    if seed == 0:
        found["attended"] = attended(model, row["kind"], judged.images[:6] / 255)
    return found


# --- All of it ---

PARTS: dict[str, tuple[Callable[..., dict[str, Any]], list[dict[str, Any]]]] = {
    "attention": (
        attention,
        [
            *({"task": task, "kind": kind, "cells": 1} for task in TASKS for kind in KINDS),
            *({"task": "where", "kind": kind, "cells": 4} for kind in FLAT),
        ],
    ),
    "turned": (turned, [{"kind": kind} for kind in ("augmentation", "wider", "transformer")]),
    "depth": (
        depth,
        [{"n": n, "shortcut": shortcut} for n in (3, 9) for shortcut in (False, True)],
    ),
    "slower": (depth, [{"n": 9, "shortcut": False, "rate": rate} for rate in (0.01, 0.03)]),
    "few": (few, [{"habit": habit} for habit in HABITS]),
    "rectifiers": (
        rectifiers,
        [{"unit": unit, "rate": rate} for unit in ("relu", "tanh") for rate in RATES],
    ),
}


def main() -> None:
    """Run what is missing, and write the file after each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    whole = data.hold_out(data.load_digits("train", "mnist"))
    digits = Digits(*(t[:6000] for t in whole[0])), Digits(*(t[:2000] for t in whole[1]))
    found = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    for seed, part in itertools.product(SEEDS, arguments.parts or PARTS):
        measure, rows = PARTS[part]
        for row in rows:
            key = {"part": part, **row, "seed": seed}
            if any(key.items() <= other.items() for other in found):
                continue
            began = time.process_time()
            result = measure(row, seed, digits)
            seconds = round(time.process_time() - began, 1)
            found.append({**key, "commit": commit(), **result, "process_seconds": seconds})
            short = {k: v for k, v in result.items() if k not in ("curve", "attended")}
            print(key, short, seconds, flush=True)
            write(arguments.out, found, digits)


def write(out: Path, found: list[dict[str, Any]], digits: tuple[Digits, Digits]) -> None:
    """The file, as it stands."""
    if not CANVASES:
        for task, draw in TASKS.items():
            some = draw(digits[1], JUDGED, 1).images[:6] / 255
            CANVASES[task] = png(list(some))
    content = {
        "command": "python -m benchmarks.classics",
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": "MNIST: 6000 digits to learn, 2000 held out of the training set to judge",
        "batch_size": BATCH,
        "steps": {
            "attention": STEPS, "turned": [BEFORE, AFTER], "depth": DEPTH_STEPS,
            "slower": DEPTH_STEPS, "few": FEW_STEPS, "rectifiers": PATIENCE,
        },
        "seeds": sorted({row["seed"] for row in found}),
        "canvases": CANVASES,
        "rows": found,
    }  # fmt: skip
    out.write_text(json.dumps(content, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
