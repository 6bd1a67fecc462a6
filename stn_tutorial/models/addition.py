"""The paper's classifiers of sums: MNIST addition, with one transformer or several (chapter 12).

FCN, CNN, and FCN behind one spatial transformer or two, affine, projective or thin-plate spline,
for each kind of addition. As in `digits`, all models of one kind hold about 400 thousand
parameters, so that a transformer is paid for by a narrower classifier. `ADDITION_FACTS` says what
is the paper's.
"""

from functools import lru_cache

import torch
from torch import nn

from stn_tutorial._checks import check_choice
from stn_tutorial._facts import Fact
from stn_tutorial.models.digits import (
    CLASSIFIERS,
    TRANSFORMS,
    DigitClassifier,
    count_parameters,
    nearest_width,
    pooled_first,
    with_batch_norm,
)
from stn_tutorial.transformer import (
    FullyConnectedLocalisation,
    ParallelTransformer,
    SpatialTransformer,
)

__all__ = ["ADDITION_FACTS", "ADDITION_MODELS", "addition_width", "build_addition"]

SIDE, POOL = 42, 2
"""Of the canvas, and by what it is average-pooled before it is classified, as in RTS."""

ADDITION_MODELS = (
    "fcn",
    "cnn",
    *(f"{count}st-fcn-{transform}" for count in ("", "2x") for transform in TRANSFORMS),
)
"""The rows of the paper's table of additions, by name; `2x` has two transformers in parallel."""

ADDITION_FACTS = (
    Fact("FCN, CNN, and FCN with one transformer or with two in parallel", "a"),
    Fact("each transformer looks at all channels and reads all of them; what two of them read is "
         "joined as channels", "b"),
    Fact("two transformers have a localisation net each, of the layers that one has", "c"),
    Fact("both start at the identity", "c"),
    Fact("layers, pooling, and about 400 thousand parameters as in the digits' models; the first "
         "layer has a filter, or a weight, for each channel", "c"),
)  # fmt: skip
"""What the models rest on, and how sure we are of each."""


def _parts(name: str) -> tuple[str, int, str]:
    """Split a model's name: its classifier, how many transformers, and their transform."""
    check_choice("model", name, ADDITION_MODELS)
    head, _, transform = name.rpartition("st-fcn-")
    return ("fcn", 2 if head else 1, transform) if transform in TRANSFORMS else (name, 0, "")


def _transformer(
    count: int, transform: str, channels: int
) -> SpatialTransformer | ParallelTransformer:
    nets = [FullyConnectedLocalisation(channels * SIDE * SIDE) for _ in range(count)]
    if count == 1:
        return SpatialTransformer(nets[0], transform=TRANSFORMS[transform]())
    return ParallelTransformer(nets, count, TRANSFORMS[transform]())


@lru_cache(maxsize=64)
def _width(name: str, channels: int, classes: int) -> int:
    kind, count, transform = _parts(name)
    seen = channels * max(count, 1)

    def parameters(width: int) -> int:
        with torch.device("meta"):  # shapes without numbers
            return count_parameters(CLASSIFIERS[kind](SIDE // POOL, width, seen, classes)) + look

    look = 0 if not count else count_parameters(_transformer(count, transform, channels))
    return nearest_width(parameters)


def addition_width(name: str, channels: int = 2, classes: int = 19) -> int:
    """Return the width that brings a model nearest to 400 thousand parameters; see `width`.

    Args:
        name: one of `ADDITION_MODELS`.
        channels: C of the pictures.
        classes: how many sums there are.
    """
    check_choice("model", name, ADDITION_MODELS)
    return _width(name, channels, classes)


def build_addition(
    name: str,
    channels: int = 2,
    classes: int = 19,
    *,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> DigitClassifier:
    """Build one of the models, with random weights and the transformers at the identity.

    Args:
        name: one of `ADDITION_MODELS`: `"fcn"`, `"cnn"`, `"st-fcn-affine"`, `"2xst-fcn-affine"`, …
        channels: C of the pictures, (N, C, 42, 42); see `data.Addition`.
        classes: how many sums there are.
        batch_norm: put one before each ReLU, in the localisation nets too. Not the paper's.
        dropout: the share of what the last layer reads that is dropped. Not the paper's.

    Raises:
        ValueError: an unknown name.
    """
    kind, count, transform = _parts(name)
    width = addition_width(name, channels, classes)
    classifier = CLASSIFIERS[kind](SIDE // POOL, width, channels * max(count, 1), classes)
    transformer = _transformer(count, transform, channels) if count else None
    if batch_norm:
        classifier = with_batch_norm(classifier)
        if isinstance(transformer, SpatialTransformer):
            transformer.localisation = with_batch_norm(transformer.localisation)
        elif transformer is not None:
            for look in transformer.transformers:
                look.localisation = with_batch_norm(look.localisation)  # type: ignore[arg-type]
    classifier = pooled_first(classifier)
    if dropout:
        classifier.insert(len(classifier) - 1, nn.Dropout(dropout))
    return DigitClassifier(classifier, transformer, POOL)
