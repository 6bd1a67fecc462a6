"""Small trained networks that a page runs: chains of layers, told once, and their weights.

A chain is a tuple of layers in order, each its kind, its channels or units in and out, and the side
of a kernel or a pool: `("conv", 1, 16, 3)`, `("max", 2)`, `("mean", 2)`, `("dense", 512, 32)`.
After each convolution and each dense layer but the last comes a ReLU. Convolutions have no padding,
pools drop what does not fill one. PyTorch's modules are made of it here, and the front end's in
`nets.js`. Weights are kept as float16.
"""

import base64
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stn_tutorial.explorables.pictures import data_uri

Layers = tuple[tuple[Any, ...], ...]
"""A chain."""

NORMS = {"conv": nn.BatchNorm2d, "dense": nn.BatchNorm1d}


def chain(layers: Layers, norm: Collection[str] = ()) -> nn.Sequential:
    """Make a chain's layers.

    Args:
        layers: as above.
        norm: of `"conv"` and `"dense"`, those that a batch norm follows, for training; never the
            last layer.
    """
    made: list[nn.Module] = []
    for index, (kind, *sizes) in enumerate(layers, start=1):
        normed = kind in norm and index < len(layers)
        if kind == "conv":
            inputs, filters, side = sizes
            made.append(nn.Conv2d(inputs, filters, side, bias=not normed))
        elif kind == "dense":
            flat = not any(isinstance(one, nn.Linear) for one in made)
            made += [nn.Flatten()] * flat + [nn.Linear(*sizes)]
        else:
            made.append({"max": nn.MaxPool2d, "mean": nn.AvgPool2d}[kind](*sizes))
            continue
        made += [NORMS[kind](sizes[1])] * normed + [nn.ReLU()]
    # No ReLU after the last layer; a pool has none.
    return nn.Sequential(*(made[:-1] if isinstance(made[-1], nn.ReLU) else made))


def load(path: Path, parameters: Sequence[nn.Parameter]) -> None:
    """Fill parameters with a file's numbers, float16, little-endian, one after another.

    Raises:
        ValueError: it holds more of them, or fewer.
    """
    numbers = torch.from_numpy(np.fromfile(path, "<f2").astype(np.float32))
    counts = [p.numel() for p in parameters]
    if sum(counts) != len(numbers):
        raise ValueError(f"{path} must hold {sum(counts)} numbers, but it holds {len(numbers)}")
    with torch.no_grad():
        for p, part in zip(parameters, numbers.split(counts), strict=True):
            p.copy_(part.view_as(p))


def half(parameters: Sequence[Tensor]) -> bytes:
    """Their numbers as `load` wants them."""
    return b"".join(p.detach().numpy().astype("<f2").tobytes() for p in parameters)


def sent(chains: dict[str, Layers], modules: dict[str, nn.Sequential]) -> dict[str, Any]:
    """What the front end's `unpack` takes: the layers, and the weights in base64."""
    # They came from float16, so that nothing is lost on the way back.
    weights = half([p for name in chains for p in modules[name].parameters()])
    return {"chains": chains, "weights": base64.b64encode(weights).decode()}


def cut(path: Path, names: Sequence[str]) -> dict[str, Image.Image]:
    """Grey digits by their names, cut from a strip that has them side by side."""
    with Image.open(path) as opened:
        strip = opened.convert("L")
    side = strip.height
    return {name: strip.crop((k * side, 0, (k + 1) * side, side)) for k, name in enumerate(names)}


def to_choose(digits: dict[str, Image.Image]) -> dict[str, dict[str, str]]:
    """Digits as a page is given them: name → label and data URI."""
    return {
        name: {"label": f"Handwritten {name}", "src": data_uri(image)}
        for name, image in digits.items()
    }
