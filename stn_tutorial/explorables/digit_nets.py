"""The two trained networks that two explorables run in the page (chapter 7).

Both read a digit that stands somewhere in a frame of 42×42 pixels, turned and scaled. One is a
plain convolutional network; the other straightens the digit with a spatial transformer and reads
the result, 28×28 pixels. They are plain chains of layers, told once, in `CHAINS`.
`tools/train_network.py` trains them.
"""

import copy
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stn_tutorial.affine import compose, rotation, scaling, translation
from stn_tutorial.explorables import chains as chains_of
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample
from stn_tutorial.transformer import Similarity, SpatialTransformer

FRAME = 42
"""Side of the frame that the networks read, in pixels."""

SEEN = 28
"""Side of what the transformer gives, in pixels."""

CHAINS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "plain": (
        *(("conv", 1, 16, 3), ("max", 2), ("conv", 16, 32, 3), ("max", 2)),
        *(("conv", 32, 64, 3), ("max", 2), ("dense", 576, 48), ("dense", 48, 10)),
    ),
    "localise": (
        *(("mean", 2), ("conv", 1, 16, 5), ("max", 2), ("conv", 16, 32, 5)),
        *(("dense", 512, 32), ("dense", 32, 4)),
    ),
    "read": (
        *(("conv", 1, 16, 3), ("max", 2), ("conv", 16, 32, 3), ("max", 2)),
        *(("conv", 32, 48, 3), ("dense", 432, 10)),
    ),
}
"""As `explorables.chains` has them. `localise` ends with the four offsets of a similarity."""

WEIGHTS = Path(__file__).with_name("network.bin")
"""The weights and biases of the chains' layers, one after another, as float16, little-endian."""

FIGURES = WEIGHTS.with_suffix(".json")
"""What was measured of them: the part of `book/results/network.json` that the explorable states."""

DIGITS = {"2": 35, "3": 32, "4": 19, "5": 15, "7": 0, "9": 12}
"""The digits that the explorable offers, chosen by eye: their places among MNIST's test digits."""

STRIP = WEIGHTS.with_suffix(".png")
"""They, 28×28 pixels each, side by side."""


def chain(name: str, norm: bool = False) -> nn.Sequential:
    """Make a chain's layers, with batch norm after each convolution for training."""
    return chains_of.chain(CHAINS[name], ("conv",) if norm else ())


def networks(norm: bool = False) -> dict[str, nn.Sequential]:
    """Make both networks, untrained: frames, (N, 1, 42, 42), to ten scores each."""
    *localise, last = chain("localise", norm)
    assert isinstance(last, nn.Linear)
    look = SpatialTransformer(
        nn.Sequential(*localise), last.in_features, Similarity(), size=(SEEN, SEEN)
    )
    return {"plain": chain("plain", norm), "look": nn.Sequential(look, chain("read", norm))}


def chains(nets: dict[str, nn.Sequential]) -> dict[str, nn.Sequential]:
    """The networks' layers, as `CHAINS` names them; the modules themselves, not copies."""
    look, read = nets["look"].children()
    assert isinstance(look, SpatialTransformer)
    assert isinstance(read, nn.Sequential)
    localise = nn.Sequential(*look.localisation.children(), look.regression)
    return {"plain": nets["plain"], "localise": localise, "read": read}


def parameters(nets: dict[str, nn.Sequential]) -> list[nn.Parameter]:
    """All weights and biases in the file's order."""
    every = chains(nets)
    return [p for name in CHAINS for p in every[name].parameters()]


@cache
def trained() -> dict[str, nn.Sequential]:
    """Both networks with the weights that the package ships, in float32, for evaluation."""
    # Whoever shows an explorable keeps their random numbers: all that are drawn here give way.
    with torch.random.fork_rng(devices=[]):
        nets = networks()
    chains_of.load(WEIGHTS, parameters(nets))
    return {name: net.eval().requires_grad_(False) for name, net in nets.items()}


@cache
def reader() -> nn.Sequential:
    """The chain that reads what the transformer gives, (N, 1, 28, 28), in float64."""
    return copy.deepcopy(chains(trained())["read"]).double()


@cache
def sent(*names: str) -> dict[str, Any]:
    """What the front end needs: the layers, the weights in base64, and what was measured.

    Args:
        *names: the chains that it needs; all when left out.
    """
    told = {name: CHAINS[name] for name in names or CHAINS}
    return {
        **chains_of.sent(told, chains(trained())),
        "figures": json.loads(FIGURES.read_text(encoding="utf-8")),
    }


@cache
def digits() -> dict[str, Image.Image]:
    """The digits that the explorable offers, by their names."""
    return chains_of.cut(STRIP, tuple(DIGITS))


@cache
def page_pictures() -> dict[str, dict[str, str]]:
    """The digits as a page is given them: name → label and data URI."""
    return chains_of.to_choose(digits())


def placed(name: str, pose: Sequence[float]) -> Tensor:
    """One of `DIGITS` in its frame, as `framed` has it."""
    return framed(digits()[name], pose)


def framed(digit: Image.Image, pose: Sequence[float]) -> Tensor:
    """A digit in a frame: shape (1, 1, 42, 42), float64 in [0, 1].

    Args:
        digit: grey, 28×28 pixels.
        pose: (degrees, size, right, down): turned counter-clockwise, so many times as large (at 1
            its pixels are the frame's), and moved, in normalised units of the frame.
    """
    image = torch.from_numpy(np.array(digit))[None, None].double() / 255
    theta = compose(scaling(image.shape[3] / FRAME, dtype=torch.float64), posed(pose))
    return sample(image, affine_grid(theta, (FRAME, FRAME)))


def posed(pose: Sequence[float]) -> Tensor:
    """θ of a pose, as `placed` has it: from the frame to what was drawn, (1, 2, 3), float64."""
    degrees, size, right, down = pose
    return compose(
        scaling(size, dtype=torch.float64),
        rotation(degrees, dtype=torch.float64),
        translation(right, down, dtype=torch.float64),
    )


def run(U: Tensor) -> dict[str, Tensor]:
    """What the explorable shows of frames (N, 1, 42, 42): θ, V and both networks' probabilities."""
    nets = trained()
    look, read = nets["look"].children()
    U = U.float()
    V, theta = look(U, return_theta=True)
    return {
        "theta": theta,
        "V": V,
        "look": read(V).softmax(dim=1),
        "plain": nets["plain"](U).softmax(dim=1),
    }
