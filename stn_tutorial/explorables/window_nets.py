"""A small trained reader of drawn birds through two windows, for the page (chapter 14).

A bird stands somewhere in a picture of 48×48 pixels. A localisation net, `localise`, looks at the
whole of it and gives the middles of two windows, each of half the picture's side; `read` describes
what a window shows, 24×24 pixels, by 32 numbers, and `name` makes of both descriptors, side by
side, the scores of four kinds. It is linear: each window adds its own share to the scores.
`tools/train_windows.py` trains them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stn_tutorial.data import DRAWN_BIRDS
from stn_tutorial.explorables import chains
from stn_tutorial.explorables.pictures import data_uri
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample
from stn_tutorial.transformer import Attention, ParallelTransformer, SpatialTransformer, tiling

SIDE = 48
"""Of a picture, in pixels."""

SEEN = 24
"""Side of what a window shows, in pixels."""

SCALE = SEEN / SIDE
"""A window's side, as a share of the picture's."""

CHAINS: dict[str, chains.Layers] = {
    "localise": (
        *(("mean", 2), ("conv", 3, 8, 5), ("max", 2), ("conv", 8, 12, 3), ("max", 2)),
        *(("dense", 192, 24), ("dense", 24, 4)),
    ),
    "read": (
        *(("conv", 3, 12, 5), ("max", 2), ("conv", 12, 24, 3), ("conv", 24, 32, 3), ("max", 6)),
    ),
    "name": (("dense", 64, len(DRAWN_BIRDS)),),
}
"""As `explorables.chains` has them; `localise` ends with both windows' middles, x and y of the
first and then of the second, in normalised units."""

WEIGHTS = Path(__file__).with_name("windows.bin")
"""The weights and biases of the chains' layers, one after another, as float16, little-endian."""

FIGURES = WEIGHTS.with_suffix(".json")
"""What was measured of them, the part of `book/results/drawn_birds.json` that the explorable
states; and of each bird that it offers, its kind and where its head and its wing are."""

BIRDS = ("1", "2", "3", "4")
"""Their names: the first test bird of each kind that was drawn, which nobody chose."""

STRIP = WEIGHTS.with_suffix(".png")
"""They, 48×48 pixels each, side by side."""


class Describe(nn.Module):
    """One net for all windows: (N, windows, 3, h, w) to their descriptors, (N, windows · 32)."""

    def __init__(self, read: nn.Sequential) -> None:
        super().__init__()
        self.read = read

    def forward(self, views: Tensor) -> Tensor:
        """Return the windows' descriptors, the first window's first."""
        return self.read(views.flatten(0, 1)).view(len(views), -1)


def network(norm: bool = False) -> nn.Sequential:
    """Make the network, untrained, its windows as tiles: (N, 3, 48, 48) to four scores.

    Args:
        norm: with batch norms.
    """
    kinds = ("conv", "dense") if norm else ()
    *layers, last = chains.chain(CHAINS["localise"], kinds)
    assert isinstance(last, nn.Linear)
    look = ParallelTransformer(
        nn.Sequential(*layers), 2, Attention(scale=SCALE), features=last.in_features,
        size=(SEEN, SEEN), start=tiling(2, SCALE), join="stack", padding="border",
    )  # fmt: skip
    read = Describe(chains.chain(CHAINS["read"], kinds))
    return nn.Sequential(look, read, chains.chain(CHAINS["name"], kinds))


def plain(net: nn.Sequential) -> dict[str, nn.Sequential]:
    """The layers of a network without batch norms, as `CHAINS` names them.

    `read` and `name` are the modules themselves; in `localise` both windows' last layers are one.
    """
    look, describe, name = net
    assert isinstance(look, ParallelTransformer)
    assert isinstance(look.localisation, nn.Sequential)
    assert isinstance(describe, Describe)
    assert isinstance(name, nn.Sequential)
    lasts = [one.regression for one in look.transformers if isinstance(one, SpatialTransformer)]
    last = nn.Linear(lasts[0].in_features, 4)
    with torch.no_grad():
        last.weight.copy_(torch.cat([one.weight for one in lasts]))
        last.bias.copy_(torch.cat([one.bias for one in lasts]))
    return {
        "localise": nn.Sequential(*look.localisation, last),
        "read": describe.read,
        "name": name,
    }


def parameters(nets: dict[str, nn.Sequential]) -> list[nn.Parameter]:
    """All weights and biases in the file's order."""
    return [p for name in CHAINS for p in nets[name].parameters()]


@cache
def trained() -> dict[str, nn.Sequential]:
    """The chains with the weights that the package ships, in float32, for evaluation."""
    # Whoever shows an explorable keeps their random numbers: all that are drawn here give way.
    with torch.random.fork_rng(devices=[]):
        nets = {name: chains.chain(layers) for name, layers in CHAINS.items()}
    chains.load(WEIGHTS, parameters(nets))
    return {name: net.eval().requires_grad_(False) for name, net in nets.items()}


@cache
def told() -> dict[str, Any]:
    """What `FIGURES` holds."""
    return json.loads(FIGURES.read_text(encoding="utf-8"))


@cache
def sent() -> dict[str, Any]:
    """What the front end needs: the layers, the weights in base64, and what was measured."""
    return {**chains.sent(CHAINS, trained()), "figures": told()["figures"]}


@cache
def birds() -> dict[str, Image.Image]:
    """The birds that the explorable offers, by their names, 48×48 pixels, in colour."""
    with Image.open(STRIP) as opened:
        strip = opened.convert("RGB")
    return {name: strip.crop((k * SIDE, 0, (k + 1) * SIDE, SIDE)) for k, name in enumerate(BIRDS)}


@cache
def page_pictures() -> dict[str, dict[str, str]]:
    """The birds as a page is given them: name → label and data URI."""
    kinds = {name: DRAWN_BIRDS[one["kind"]] for name, one in told()["birds"].items()}
    return {
        name: {"label": f"Bird {name}: {kinds[name]}", "src": data_uri(image)}
        for name, image in birds().items()
    }


def picture(name: str) -> Tensor:
    """A bird as the network reads it: shape (1, 3, 48, 48), float64 in [0, 1]."""
    return torch.from_numpy(np.array(birds()[name])).permute(2, 0, 1)[None].double() / 255


def placed(U: Tensor) -> Tensor:
    """Where the network puts its windows: (N, 3, 48, 48) to middles, (N, 2, 2), float32.

    A window that would reach beyond the picture is put at its edge.
    """
    middles = trained()["localise"](U.float()).view(-1, 2, 2)
    return middles.clamp(SCALE - 1, 1 - SCALE)


def windows(middles: Tensor) -> Tensor:
    """θ of windows by their middles: (…, 2) to (…, 2, 3)."""
    scale = SCALE * torch.eye(2, dtype=middles.dtype).expand(*middles.shape, 2)
    return torch.cat([scale, middles[..., None]], dim=-1)


def run(U: Tensor, middles: Tensor | None = None) -> dict[str, Tensor]:
    """What the network makes of pictures, (N, 3, 48, 48), through two windows.

    Args:
        U: values in [0, 1].
        middles: of the windows, (N, 2, 2), normalised; where the network puts them, when left out.

    Returns:
        `middles`; `V`, (N, 2, 3, 24, 24), what each window shows; `shares`, (N, 2, 4), what each
        adds to the kinds' scores; and `kinds`, (N, 4), how likely each kind of `DRAWN_BIRDS` is.
    """
    nets, U = trained(), U.float()
    middles = placed(U) if middles is None else middles.to(U)
    grids = [affine_grid(windows(one), (SEEN, SEEN)) for one in middles.unbind(1)]
    V = torch.stack([sample(U, grid, padding="border") for grid in grids], dim=1)
    made = nets["read"](V.flatten(0, 1)).view(len(U), 2, -1)
    last = nets["name"][-1]
    assert isinstance(last, nn.Linear)
    weights = last.weight.unflatten(1, (2, -1))
    shares = torch.einsum("nkf,ckf->nkc", made, weights)
    return {
        "middles": middles,
        "V": V,
        "shares": shares,
        "kinds": (shares.sum(dim=1) + last.bias).softmax(dim=1),
    }
