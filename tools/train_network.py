"""Train the two networks that the network explorable runs: `python -m tools.train_network`.

Digits of MNIST in a frame of 42×42 pixels, each turned, scaled and shifted anew whenever it is
drawn: turned by up to 90° either way, scaled by 0.7 to 1.5, and shifted within the frame. A small
convolutional network and a small one with a spatial transformer, of about as many parameters, are
trained for as many epochs, from class labels alone.

The one with the transformer learns in three parts. First its reading net learns digits that stand
upright. Then this net is held fast, and the transformer learns to give it what it can read, turns
growing from ±15° to ±90° meanwhile. Last the transformer is held fast, and the reading net gets
used to what it is given. With all parts learning at once and all turns from the first step, the
transformer learned to centre and not to turn: where all turns are as likely, none brings a digit
nearer to what the reading net knows (tried, and judged by θ).

`--tune`, which comes first, trains each network briefly at several learning rates, the transformer
in the first two parts, and keeps their errors on 10 000 training digits that are held out of all
training. Without it they are trained in full at the best rate, batch norm is folded into the
convolutions, the weights are rounded to float16 and written to
`stn_tutorial/explorables/network.bin`, and *these* are tested, once. Figures go to
`book/results/network.json`;
`benchmarks/drawn_digits.py` adds those on digits that are drawn.
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

from stn_tutorial.affine import compose, rotation, scaling
from stn_tutorial.data import mnist
from stn_tutorial.explorables import digit_nets
from stn_tutorial.explorables.chains import half
from stn_tutorial.training import accuracy, fit

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "network.json"
TURN, SCALE = 90, (0.7, 1.5)
HELD_OUT = 10_000
SEED, HELD_OUT_SEED, TEST_SEED = 0, 1, 2
NAMES = ("plain", "look")
EPOCHS, TUNING_EPOCHS = 40, 5
UPRIGHT, LOOKING, GROWTH = 3, 25, 0.6
"""Of the epochs, those in which the reading net learns upright digits, and those in which the
transformer learns; the share of these over which turns grow."""
RATES = (2e-3, 5e-3, 1e-2)
BATCH = 256
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def place(U, generator, turn=TURN, scale=SCALE):
    """Digits, float (N, 1, 28, 28), each in a frame of its own, turned, scaled and shifted."""
    side = U.shape[-1]
    draw = torch.rand(4, len(U), generator=generator).to(U.device)
    angle = (2 * draw[0] - 1) * turn * torch.pi / 180
    size = scale[0] + draw[1] * (scale[1] - scale[0])
    # MNIST's ink fills 20×20 pixels about its centre of mass: 24 leave it within the frame.
    room = (1 - 24 * size / digit_nets.FRAME).clamp(min=0)
    tx, ty = (2 * draw[2:] - 1) * room
    # Output to input: shift back, turn back, and to the smaller picture's own units.
    ratio = digit_nets.FRAME / side / size
    cos, sin = angle.cos() * ratio, angle.sin() * ratio
    rows = [cos, -sin, -cos * tx + sin * ty, sin, cos, -sin * tx - cos * ty]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(
        theta, (len(U), 1, digit_nets.FRAME, digit_nets.FRAME), align_corners=False
    )
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


def jittered(U, generator):
    """Digits that stand nearly upright in the middle: turned by up to 10°, scaled, shifted."""
    draw = 2 * torch.rand(4, len(U), generator=generator) - 1
    angle, size = draw[0] * 10 * torch.pi / 180, 1 + 0.1 * draw[1]
    cos, sin = angle.cos() / size, angle.sin() / size
    theta = torch.stack([cos, -sin, 0.07 * draw[2], sin, cos, 0.07 * draw[3]], dim=1)
    grid = F.affine_grid(theta.view(-1, 2, 3), U.shape, align_corners=False)
    return F.grid_sample(U, grid, align_corners=False)


class HeldFast(nn.Module):
    """A network as it stands: neither its weights nor its batch norm change."""

    def __init__(self, net):
        super().__init__()
        self.net = net.requires_grad_(False)

    def train(self, mode=True):
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, U):
        return self.net(U)


def train(name, digits, rate, tuning=False):
    """Train a network; in tuning briefly, and the one with the transformer in its first parts."""
    torch.manual_seed(SEED)
    net = digit_nets.networks(norm=True)[name].to(memory_format=torch.channels_last)
    options = {"seed": SEED, "batch_size": BATCH, "learning_rate": rate}
    start = time.perf_counter()
    if name == "plain":
        fit(net, *digits, epochs=TUNING_EPOCHS if tuning else EPOCHS, augment=place, **options)
        return net, time.perf_counter() - start
    look, read = net
    fit(read, *digits, epochs=UPRIGHT, augment=jittered, **options)
    epochs = TUNING_EPOCHS if tuning else LOOKING
    steps = round(GROWTH * epochs * (len(digits[0]) // BATCH))
    looking = nn.Sequential(look, HeldFast(read))
    fit(looking, *digits, epochs=epochs, augment=growing(steps), **options)
    if not tuning:
        read.requires_grad_(True)
        reading = nn.Sequential(HeldFast(look), read)
        fit(reading, *digits, epochs=EPOCHS - UPRIGHT - LOOKING, augment=place, **options)
    return net.requires_grad_(True), time.perf_counter() - start


def folded(net):
    """Batch norm written into the convolution or the dense layer before it."""
    net.eval()
    for parent in [one for one in net.modules() if isinstance(one, nn.Sequential)]:
        layers = list(parent.children())
        for layer, norm in itertools.pairwise(layers):
            if isinstance(norm, NORMS):
                factor = norm.weight / (norm.running_var + norm.eps).sqrt()
                shape = (-1,) + (1,) * (layer.weight.ndim - 1)
                before = 0 if layer.bias is None else layer.bias
                layer.weight = nn.Parameter(layer.weight * factor.view(shape))
                layer.bias = nn.Parameter(norm.bias + (before - norm.running_mean) * factor)
        for index in reversed(range(len(layers))):
            if isinstance(layers[index], NORMS):
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


def tune():
    digits, held = split()
    rows = []
    for rate in RATES:
        for name in NAMES:
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


def strip(images, places):
    """The test digits that an explorable offers, side by side."""
    return Image.fromarray(torch.cat([images[k, 0] for k in places], 1).numpy())


@torch.no_grad()
def undone(look, images):
    """Which share of a digit's turn θ takes back, as it turns from −60° to 60°: (N,)."""
    turns = torch.arange(-60.0, 61, 15)
    angles = []
    for turn in turns:
        theta = compose(scaling(images.shape[-1] / digit_nets.FRAME), rotation(turn))
        size = (len(images), 1, digit_nets.FRAME, digit_nets.FRAME)
        grid = F.affine_grid(theta.expand(len(images), -1, -1), size, align_corners=False)
        A = look.theta(F.grid_sample(images.float() / 255, grid, align_corners=False))[:, :, :2]
        angles.append(torch.atan2(A[:, 1, 0] - A[:, 0, 1], A[:, 0, 0] + A[:, 1, 1]).rad2deg())
    return -(turns @ torch.stack(angles)) / turns.square().sum()


def full(rates):
    """Train both networks, write their weights, and test what was written."""
    digits, held = split()
    nets, rows = {}, {}
    for name in NAMES:
        net, seconds = train(name, digits, rates[name])
        rows[name] = {
            "parameters": sum(p.numel() for p in digit_nets.networks()[name].parameters()),
            "rate": rates[name],
            "held_out_error": error(net, *held),
            "seconds": round(seconds),
        }
        nets[name] = quantised(folded(net))
        rows[name]["held_out_error_as_shipped"] = error(nets[name], *held)
        print(name, rows[name], flush=True)
    images, labels = mnist("test")
    frames = placed(images, TEST_SEED)
    upright = placed(images, TEST_SEED, turn=0, scale=(1, 1))
    for name, net in nets.items():
        rows[name]["test_error"] = error(net, frames, labels)
        rows[name]["test_error_upright"] = error(net, upright, labels)
    shares = undone(nets["look"][0], images[:1000]).quantile(torch.tensor([0.1, 0.5, 0.9]))
    rows["look"]["share_of_a_turn_undone"] = [round(share, 2) for share in shares.tolist()]
    digit_nets.WEIGHTS.write_bytes(half(digit_nets.parameters(nets)))
    strip(images, digit_nets.DIGITS.values()).save(digit_nets.STRIP, optimize=True)
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
        "undone": nets["look"]["share_of_a_turn_undone"],
    }
    if "drawn" in result:
        figures["drawn"] = {key: result["drawn"][key] for key in ("digits", "look", "plain")}
    digit_nets.FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="compare learning rates, train no more")
    tuning = parser.parse_args().tune
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if tuning:
        result["tuning"] = {
            "command": "python -m tools.train_network --tune",
            "epochs": TUNING_EPOCHS,
            "rows": tune(),
        }
    else:
        rows = result["tuning"]["rows"]
        best = {
            name: min((r["held_out_error"], r["rate"]) for r in rows if r["network"] == name)[1]
            for name in NAMES
        }
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
            "frame": digit_nets.FRAME,
            "turn_degrees": TURN,
            "scale": SCALE,
            "shift": "uniform, such that the 24x24 pixels about the digit's middle stay inside",
            "upright": "turn 0, scale 1, shifted in the same way",
            "epochs": EPOCHS,
            "epochs_of_the_look_network": {
                "reading net, upright digits": UPRIGHT,
                "transformer": LOOKING,
                "reading net": EPOCHS - UPRIGHT - LOOKING,
            },
            "share_of_the_transformer's_in_which_turns_grow": GROWTH,
            "batch": BATCH,
            "test_digits": len(mnist("test").labels),
            "networks": full(best),
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if not tuning:
        publish()


if __name__ == "__main__":
    main()
