"""Train the two networks that the network explorable runs: `python -m tools.train_network`.

Digits of MNIST in a frame of 42×42 pixels, each turned, scaled and shifted anew whenever it is
drawn: turned by up to 90° either way, scaled by 0.7 to 1.5, and shifted within the frame. A small
convolutional network and a small one with a spatial transformer, of about as many parameters, are
trained for as many epochs; the transformer in the first of them. `--tune`, which comes first,
trains each briefly at several learning rates and keeps their errors on 10 000 training digits that
are held out of all training. Without it they are trained in full at the best rate, batch norm is
folded into the convolutions, the weights are rounded to float16 and written to
`stn_tutorial/static/network.bin`, and *these* are tested, once. Figures go to
`book/results/network.json`; `benchmarks/drawn_digits.py` adds those on digits that are drawn.
"""

import argparse
import itertools
import json
import platform
import time
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from stn_tutorial import _network
from stn_tutorial.data import mnist
from stn_tutorial.training import accuracy, fit

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "network.json"
TURN, SCALE = 90, (0.7, 1.5)
HELD_OUT = 10_000
SEED, HELD_OUT_SEED, TEST_SEED = 0, 1, 2
NAMES = ("plain", "look")
EPOCHS, TUNING_EPOCHS = 18, 5
FIRST, GROWTH = 10, 0.6
"""Of its epochs, those in which the transformer learns, with a shallow net that reads V, and the
share of these over which turns grow from ±15° to ±90°. With all turns from the first step it learns
to centre and not to turn (tried, judged by its θ): where all turns are as likely, none brings a
digit nearer to what the reading net knows. With a deep reading net it does not turn either: such a
net copes with turned digits. So that one is trained afterwards, on what is straightened by then."""
RATES = (2e-3, 5e-3, 1e-2)
BATCH = 256


def place(U, generator, turn=TURN, scale=SCALE):
    """Digits, float (N, 1, 28, 28), each in a frame of its own, turned, scaled and shifted."""
    side = U.shape[-1]
    draw = torch.rand(4, len(U), generator=generator).to(U.device)
    angle = (2 * draw[0] - 1) * turn * torch.pi / 180
    size = scale[0] + draw[1] * (scale[1] - scale[0])
    # MNIST's ink fills 20×20 pixels about its centre of mass: 24 leave it within the frame.
    room = (1 - 24 * size / _network.FRAME).clamp(min=0)
    tx, ty = (2 * draw[2:] - 1) * room
    # Output to input: shift back, turn back, and to the smaller picture's own units.
    ratio = _network.FRAME / side / size
    cos, sin = angle.cos() * ratio, angle.sin() * ratio
    rows = [cos, -sin, -cos * tx + sin * ty, sin, cos, -sin * tx - cos * ty]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, (len(U), 1, _network.FRAME, _network.FRAME), align_corners=False)
    return F.grid_sample(U, grid, align_corners=False)


def growing(steps):
    """`place`, whose turns grow over so many steps."""
    step = itertools.count()
    return lambda U, generator: place(
        U, generator, turn=15 + (TURN - 15) * min(1, next(step) / steps)
    )


def placed(images, seed, **options):
    """Frames as bytes, of digits placed once."""
    generator = torch.Generator().manual_seed(seed)
    parts = [place(part.float() / 255, generator, **options) for part in images.split(1000)]
    return (torch.cat(parts) * 255).round().to(torch.uint8)


def shallow():
    """One convolution and two dense layers: it knows a digit only where and as it expects it."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1152, 20), nn.ReLU(), nn.Linear(20, 10)),
    )


def train(name, digits, rate, tuning=False):
    """Train a network; in tuning, of the one with the transformer its first part."""
    torch.manual_seed(SEED)
    net = _network.networks(norm=True)[name].to(memory_format=torch.channels_last)
    options = {"seed": SEED, "batch_size": BATCH, "learning_rate": rate}
    start = time.perf_counter()
    if name == "plain":
        fit(net, *digits, epochs=TUNING_EPOCHS if tuning else EPOCHS, augment=place, **options)
        return net, time.perf_counter() - start
    look = net[0]
    first = nn.Sequential(look, shallow()).to(memory_format=torch.channels_last)
    epochs = TUNING_EPOCHS if tuning else FIRST
    steps = GROWTH * epochs * (len(digits[0]) // BATCH)
    fit(first, *digits, epochs=epochs, augment=growing(steps), **options)
    if not tuning:
        folded(look).requires_grad_(False)
        fit(net, *digits, epochs=EPOCHS - FIRST, augment=place, **options)
    return (first if tuning else net), time.perf_counter() - start


def folded(net):
    """Batch norm written into the convolution before it."""
    net.eval()
    for parent in [one for one in net.modules() if isinstance(one, nn.Sequential)]:
        layers = list(parent.children())
        for conv, norm in itertools.pairwise(layers):
            if isinstance(norm, nn.BatchNorm2d):
                factor = norm.weight / (norm.running_var + norm.eps).sqrt()
                conv.weight = nn.Parameter(conv.weight * factor.view(-1, 1, 1, 1))
                conv.bias = nn.Parameter(norm.bias - norm.running_mean * factor)
        for index in reversed(range(len(layers))):
            if isinstance(layers[index], nn.BatchNorm2d):
                del parent[index]
    return net


def error(net, images, labels):
    return round(100 * (1 - accuracy(net, images, labels)), 2)


def split():
    """Training and held-out digits, as every run has them."""
    images, labels = mnist("train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(HELD_OUT_SEED))
    held, kept = order[:HELD_OUT], order[HELD_OUT:]
    return (images[kept], labels[kept]), (placed(images[held], HELD_OUT_SEED), labels[held])


def tune(names):
    digits, held = split()
    rows = []
    for rate in RATES:
        for name in names:
            net, seconds = train(name, digits, rate, tuning=True)
            rows.append({"network": name, "rate": rate, "held_out_error": error(net, *held)})
            print(rows[-1], f"{seconds:.0f} s", flush=True)
    return rows


def quantised(net):
    """The same network with every number rounded to what float16 holds."""
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.half().float())
    return net


def strip(images):
    """The test digits that the explorable offers, side by side."""
    return Image.fromarray(torch.cat([images[k, 0] for k in _network.DIGITS.values()], 1).numpy())


def full(names, rates):
    """Train, ship and test the networks that are named; the other ships as it is."""
    digits, held = split()
    images, labels = mnist("test")
    frames = placed(images, TEST_SEED)
    upright = placed(images, TEST_SEED, turn=0, scale=(1, 1))
    nets, rows = {}, {}
    for name in NAMES:
        if name not in names:
            nets[name] = _network.trained()[name]
            continue
        net, seconds = train(name, digits, rates[name])
        rows[name] = {
            "parameters": sum(p.numel() for p in _network.networks()[name].parameters()),
            "rate": rates[name],
            "held_out_error": error(net, *held),
            "seconds": round(seconds),
        }
        nets[name] = quantised(folded(net))
        rows[name]["held_out_error_as_shipped"] = error(nets[name], *held)
        rows[name]["test_error"] = error(nets[name], frames, labels)
        rows[name]["test_error_upright"] = error(nets[name], upright, labels)
        print(name, rows[name], flush=True)
    numbers = torch.cat([p.detach().flatten() for p in _network.parameters(nets)])
    numbers.half().numpy().astype("<f2").tofile(_network.WEIGHTS)
    strip(images).save(_network.STRIP, optimize=True)
    return rows


def publish():
    """Put what the explorable states beside its weights."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    nets = result["networks"]
    figures = {
        "turn": result["turn_degrees"],
        "scale": result["scale"],
        "parameters": {name: one["parameters"] for name, one in nets.items()},
        "test": {
            "digits": result["test_digits"],
            **{name: round(100 - one["test_error"], 2) for name, one in nets.items()},
        },
    }
    if "drawn" in result:
        figures["drawn"] = {key: result["drawn"][key] for key in ("digits", "look", "plain")}
    _network.FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="compare learning rates, train no more")
    parser.add_argument("--only", choices=NAMES, help="one network; the other stays as it is")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else NAMES
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    tuning = result.get("tuning", {"rows": []})["rows"]
    if arguments.tune:
        kept = [row for row in tuning if row["network"] not in names]
        result["tuning"] = {
            "command": "python -m tools.train_network --tune",
            "epochs": TUNING_EPOCHS,
            "rows": kept + tune(names),
        }
    else:
        best = {
            name: min((r["held_out_error"], r["rate"]) for r in tuning if r["network"] == name)[1]
            for name in names
        }
        rows = full(names, best)
        result.pop("drawn", None)  # it was of other weights
        result |= {
            "command": "python -m tools.train_network",
            "device": f"CPU, {platform.machine()}, {torch.get_num_threads()} thread",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "data": f"MNIST; {HELD_OUT} of the 60000 training digits held out of all training",
            "seeds": {
                "weights, order, distortion": SEED,
                "held-out digits and their distortion": HELD_OUT_SEED,
                "the test's distortion": TEST_SEED,
            },
            "frame": _network.FRAME,
            "turn_degrees": TURN,
            "scale": SCALE,
            "shift": "uniform, such that the 24x24 pixels about the digit's middle stay inside",
            "upright": "turn 0, scale 1, shifted in the same way",
            "epochs": EPOCHS,
            "epochs_of_the_transformer": FIRST,
            "share_of_them_in_which_turns_grow": GROWTH,
            "batch": BATCH,
            "test_digits": len(mnist("test").labels),
            "networks": {**result.get("networks", {}), **rows},
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if not arguments.tune:
        publish()


if __name__ == "__main__":
    main()
