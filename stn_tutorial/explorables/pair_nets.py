"""A trained pair of windows that adds two digits, for the page (chapter 12).

Two digits lie in two channels of 42×42 pixels. Two localisation nets, `first` and `second`, look at
both channels and give a window each, a similarity; each window reads both channels, 20×20 pixels,
so that there are four views. One net, `read`, gives ten scores to each view, and `add` makes 19 of
all forty: those of the sums 0 to 18. `tools/train_pair.py` trains them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from stn_tutorial.affine import scaling
from stn_tutorial.explorables import chains
from stn_tutorial.explorables.digit_nets import FRAME
from stn_tutorial.transformer import ParallelTransformer, Similarity, SpatialTransformer

SEEN = 20
"""Side of what a window gives, in pixels."""

START = 0.6
"""Side of both windows before training, as a share of the frame's."""

SUMS = 19
"""Classes: the sums 0 to 18."""

_LOCALISE = (
    *(("mean", 2), ("conv", 2, 12, 5), ("max", 2), ("conv", 12, 20, 5)),
    *(("dense", 320, 32), ("dense", 32, 4)),
)

CHAINS: dict[str, chains.Layers] = {
    "first": _LOCALISE,
    "second": _LOCALISE,
    "read": (
        *(("conv", 1, 16, 3), ("max", 2), ("conv", 16, 32, 3), ("max", 2)),
        *(("dense", 288, 32), ("dense", 32, 10)),
    ),
    "add": (("dense", 40, 64), ("dense", 64, SUMS)),
}
"""As `explorables.chains` has them; `first` and `second` end with a similarity's four offsets."""

PLAIN: chains.Layers = (
    *(("conv", 2, 16, 3), ("max", 2), ("conv", 16, 32, 3), ("max", 2)),
    *(("conv", 32, 64, 3), ("max", 2), ("dense", 576, 48), ("dense", 48, SUMS)),
)
"""A plain network of as many weights, to compare with; its weights are not shipped."""

WEIGHTS = Path(__file__).with_name("pair.bin")
"""The weights and biases of the chains' layers, one after another, as float16, little-endian."""

FIGURES = WEIGHTS.with_suffix(".json")
"""What was measured of them: the part of `book/results/pair.json` that the explorable states."""

DIGITS = {
    "0": 10, "1": 5, "2": 35, "3": 32, "4": 19, "5": 15, "6": 11, "7": 0, "8": 61, "9": 12,
}  # fmt: skip
"""The digits that the explorable offers, chosen by eye: their places among MNIST's test digits."""

STRIP = WEIGHTS.with_suffix(".png")
"""They, 28×28 pixels each, side by side."""


class ReadEach(nn.Module):
    """One net for each view: (N, views, H, W) to the scores of all, (N, views · 10)."""

    def __init__(self, read: nn.Sequential) -> None:
        super().__init__()
        self.read = read

    def forward(self, views: Tensor) -> Tensor:
        """Return the views' scores, the first view's first."""
        return self.read(views.flatten(0, 1)[:, None]).view(len(views), -1)


def network(norm: bool = False, start: float = START) -> nn.Sequential:
    """Make the network, untrained: (N, 2, 42, 42) to 19 scores.

    Args:
        norm: with batch norms.
        start: the side of both windows, as a share of the frame's.
    """
    kinds = ("conv", "dense") if norm else ()
    localisers = []
    for name in ("first", "second"):
        *layers, last = chains.chain(CHAINS[name], kinds)
        localisers.append(nn.Sequential(*layers))
    assert isinstance(last, nn.Linear)
    look = ParallelTransformer(
        localisers, 2, Similarity(), features=last.in_features, size=(SEEN, SEEN),
        start=scaling(1 / start).expand(2, -1, -1),
    )  # fmt: skip
    read = ReadEach(chains.chain(CHAINS["read"], kinds))
    return nn.Sequential(look, read, chains.chain(CHAINS["add"], kinds))


def modules(net: nn.Sequential) -> dict[str, nn.Sequential]:
    """The network's layers, as `CHAINS` names them; the modules themselves, not copies."""
    look, each, add = net
    assert isinstance(look, ParallelTransformer)
    assert isinstance(each, ReadEach)
    assert isinstance(add, nn.Sequential)
    looks = []
    for one in look.transformers:
        assert isinstance(one, SpatialTransformer)
        looks.append(nn.Sequential(*one.localisation.children(), one.regression))
    return dict(zip(CHAINS, [*looks, each.read, add], strict=True))


def parameters(net: nn.Sequential) -> list[nn.Parameter]:
    """All weights and biases in the file's order."""
    every = modules(net)
    return [p for name in CHAINS for p in every[name].parameters()]


@cache
def trained() -> nn.Sequential:
    """The network with the weights that the package ships, in float32, for evaluation."""
    # Whoever shows an explorable keeps their random numbers: all that are drawn here give way.
    with torch.random.fork_rng(devices=[]):
        net = network()
    chains.load(WEIGHTS, parameters(net))
    return net.eval().requires_grad_(False)


@cache
def sent() -> dict[str, Any]:
    """What the front end needs: the layers, the weights in base64, and what was measured."""
    return {
        **chains.sent(CHAINS, modules(trained())),
        "figures": json.loads(FIGURES.read_text(encoding="utf-8")),
    }


@cache
def digits() -> dict[str, Image.Image]:
    """The digits that the explorable offers, by their names."""
    return chains.cut(STRIP, tuple(DIGITS))


@cache
def page_pictures() -> dict[str, dict[str, str]]:
    """The digits as a page is given them: name → label and data URI."""
    return chains.to_choose(digits())


def run(U: Tensor) -> dict[str, Tensor]:
    """What the explorable shows of frames, (N, 2, 42, 42).

    Returns:
        `theta`, (N, 2, 2, 3), a window each; `V`, (N, 2, 2, 20, 20), what window k reads of channel
        c; `views`, (N, 2, 2, 10), which digit `read` takes that for, and `sum`, (N, 19), as
        probabilities.
    """
    look, each, add = trained()
    V, thetas = look(U.float(), return_theta=True)
    scores = each(V)
    shape = (len(U), 2, 2)
    return {
        "theta": torch.stack(thetas, dim=1),
        "V": V.view(*shape, SEEN, SEEN),
        "views": scores.view(*shape, 10).softmax(dim=-1),
        "sum": add(scores).softmax(dim=1),
    }


__all__ = ["CHAINS", "DIGITS", "FRAME", "SEEN", "digits", "network", "run", "sent", "trained"]
