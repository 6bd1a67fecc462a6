"""The paper's classifiers of distorted digits, and their sizes (chapters 10 and 11).

FCN and CNN, and both with a spatial transformer on the input: affine, projective or thin-plate
spline. All models of one canvas hold about the same number of parameters, 400 thousand to within
4 %, so that a transformer is paid for by a narrower classifier (unless it costs less than the eight
filters by which widths are stepped); the widths that give that count are solved here. `FACTS` says
which of all this is the paper's and which is our assumption.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from stn_tutorial._checks import Size, check_choice, check_picture, check_size
from stn_tutorial._facts import Fact
from stn_tutorial.models.convolution import Conv2d
from stn_tutorial.transformer import (
    Affine,
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    ParallelTransformer,
    Projective,
    SpatialTransformer,
    ThinPlateSpline,
    Transform,
)

__all__ = ["FACTS", "MODELS", "DigitClassifier", "build", "count_parameters", "size_table", "width"]

PARAMETERS = 400_000
"""What every model should hold, all its parts together, as we understand the appendix."""

MULTIPLE, TOLERANCE = 8, 0.04
"""Vector units and tensor cores work on so many numbers at once: 89 filters take longer than 88. So
widths are multiples of it, as long as the count stays within that share of `PARAMETERS`."""

CLASSES = 10
POOLED_FROM = 42
"""The side of a canvas from which the picture is average-pooled by 2 before it is classified."""
SMALLEST = 21
"""The side that the CNN needs: 21 − 8 = 13, pooled 7, − 6 = 1, pooled 1."""

TRANSFORMS: dict[str, type[Transform]] = {
    "affine": Affine,
    "projective": Projective,
    "tps": ThinPlateSpline,
}

MODELS = (
    "fcn",
    "cnn",
    *(f"st-{kind}-{transform}" for kind in ("fcn", "cnn") for transform in TRANSFORMS),
)
"""The rows of the paper's Table 1, by name."""

FACTS = (
    Fact("ReLU throughout, softmax at the end", "a"),
    Fact("all models hold about the same number of parameters", "a"),
    Fact("that number is about 400 thousand", "c+"),
    Fact("FCN: two hidden layers and a classifier", "b"),
    Fact("CNN: conv 9×9, max-pool 2, conv 7×7, max-pool 2, classifier; stride 1, no padding", "b"),
    Fact("the transformer sits on the input", "a"),
    Fact("ST-FCN: three fully connected localisation layers", "b"),
    Fact("of 32 units each", "c+"),
    Fact("ST-CNN: localisation on the input at half its size, two convolutions 5×5 of 20 filters "
         "with a max-pool between, one layer of 20 units", "b"),
    Fact("the thin-plate spline has 4×4 control points", "a"),
    Fact("the last localisation layer starts with zero weights, at the identity", "a"),
    Fact("RTS and TC: average-pool by 2 after the transformer", "b"),
    Fact("models of RTS and TC without a transformer pool in the same place", "c"),
    Fact("both hidden layers have the same width, and so have both convolutions; it is solved for "
         "the number of parameters, which leads outside the 128 to 256 units and 32 to 64 filters "
         "of which we have heard: on 28×28 no such width gives 400 thousand", "c"),
    Fact("the width is a multiple of 8, which is faster, where the number of parameters stays "
         "within 4 % of 400 thousand: everywhere but for ST-CNN on 60×60", "c"),
    Fact("max-pooling keeps an odd last row and column (without it 21×21 leaves nothing after the "
         "second pooling)", "c"),
)  # fmt: skip
"""What the models rest on, and how sure we are of each."""


def fcn(side: int, units: int, channels: int = 1, classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * side * side, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, classes),
    )


def cnn(side: int, filters: int, channels: int = 1, classes: int = CLASSES) -> nn.Sequential:
    def pooled(side: int) -> int:
        return (side + 1) // 2

    left = pooled(pooled(side - 8) - 6)  # of the side: 28 → 2, 21 → 1, 30 → 3
    return nn.Sequential(
        Conv2d(channels, filters, 9),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        Conv2d(filters, filters, 7),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(filters * left * left, classes),
    )


CLASSIFIERS = {"fcn": fcn, "cnn": cnn}


def _transformer(kind: str, transform: str, side: int) -> SpatialTransformer:
    localisation: FullyConnectedLocalisation | ConvolutionalLocalisation
    if kind == "fcn":
        localisation = FullyConnectedLocalisation(side * side)
    else:
        localisation = ConvolutionalLocalisation(1, (side, side))
    return SpatialTransformer(localisation, localisation.features, TRANSFORMS[transform]())


def with_batch_norm(layers: nn.Module) -> nn.Sequential:
    """Return the same layers, with a batch norm before each ReLU."""
    result: list[nn.Module] = []
    for layer in layers.children():
        if isinstance(layer, nn.ReLU):
            before = result[-1]
            if isinstance(before, nn.Conv2d):
                result.append(nn.BatchNorm2d(before.out_channels))
            elif isinstance(before, nn.Linear):
                result.append(nn.BatchNorm1d(before.out_features))
        result.append(layer)
    return nn.Sequential(*result)


def pooled_first(layers: nn.Module) -> nn.Sequential:
    """Exchange each ReLU with the max-pool after it.

    The largest of the ReLUs is the ReLU of the largest, so values and gradients stay what they
    were, to the last bit; but the ReLU has a quarter of the work.
    """
    result = list(layers.children())
    for k in range(1, len(result)):
        if isinstance(result[k], nn.MaxPool2d) and isinstance(result[k - 1], nn.ReLU):
            result[k - 1 : k + 1] = result[k], result[k - 1]
    return nn.Sequential(*result)


class DigitClassifier(nn.Module):
    """A transformer or none, a pooling or none, and a classifier; made by `build`.

    Args:
        classifier: from the picture, as it is after the pooling, to scores.
        transformer: straightens the input first, one or several at once; None for the plain models.
        pool: the factor of the average-pooling between the two; 1 for none.
    """

    def __init__(
        self,
        classifier: nn.Module,
        transformer: SpatialTransformer | ParallelTransformer | None = None,
        pool: int = 1,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.classifier = classifier

    def forward(self, U: Tensor) -> Tensor:
        """Return the scores, before softmax, of U, (N, C, H, W): (N, classes)."""
        check_picture(U)
        V = U if self.transformer is None else self.transformer(U)
        return self.classifier(self.pool(V))


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers of the model are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _parts(name: str, side: int) -> tuple[str, str | None]:
    """Split a model's name into its classifier and its transform."""
    check_choice("model", name, MODELS)
    kind, _, transform = name.removeprefix("st-").partition("-")
    return kind, transform or None


def _side(size: Size) -> tuple[int, int]:
    """Return the canvas's side and the pooling factor; raise unless both are of use."""
    height, width = check_size(size)
    pool = 2 if height >= POOLED_FROM else 1
    if height != width or height // pool < SMALLEST:
        raise ValueError(
            f"size must be a square of {SMALLEST} pixels a side or more, "
            f"but ({height}, {width}) was given"
        )
    return height, pool


@lru_cache(maxsize=64)
def _width(name: str, side: int, pool: int) -> int:
    kind, transform = _parts(name, side)

    def count(width: int) -> int:
        with torch.device("meta"):  # shapes without numbers
            total = count_parameters(CLASSIFIERS[kind](side // pool, width))
            if transform:
                total += count_parameters(_transformer(kind, transform, side))
        return total

    return nearest_width(count)


def nearest_width(count: Callable[[int], int]) -> int:
    """Return the width whose count of parameters is nearest to `PARAMETERS`; see `width`."""

    def off(width: int) -> int:
        return abs(count(width) - PARAMETERS)

    low, high = 1, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) > PARAMETERS else (middle, high)
    exact = min(low, high, key=off)
    below = exact // MULTIPLE * MULTIPLE
    rounded = min(below, below + MULTIPLE, key=off)
    return rounded if off(rounded) <= TOLERANCE * PARAMETERS else exact


def width(name: str, size: Size = (28, 28)) -> int:
    """Return the width that brings a model nearest to `PARAMETERS`: our assumption.

    A multiple of 8 where that leaves the count within 4 %, else the nearest of all.

    Args:
        name: one of `MODELS`.
        size: (H, W) of the canvas, a square.

    Returns:
        The units of both hidden layers (FCN), or the filters of both convolutions (CNN).
    """
    check_choice("model", name, MODELS)
    return _width(name, *_side(size))


def build(
    name: str,
    size: Size = (28, 28),
    *,
    batch_norm: bool = False,
    dropout: float = 0.0,
    units: int | None = None,
) -> DigitClassifier:
    """Build one of the paper's models, with random weights and the transformer at the identity.

    Args:
        name: one of `MODELS`: `"fcn"`, `"cnn"`, `"st-fcn-affine"`, …, `"st-cnn-tps"`.
        size: (H, W) of the canvas, a square: 28×28 (R, P, E), 42×42 (RTS), 60×60 (TC).
        batch_norm: put one before each ReLU, in the localisation net too. Not the paper's.
        dropout: the share of what the last layer reads that is dropped. Not the paper's.
        units: the classifier's width, units (FCN) or filters (CNN); by default `width` solves it.

    Raises:
        ValueError: an unknown name, a canvas that is too small or not square, or a width below 1.
    """
    check_choice("model", name, MODELS)
    if units is not None and units < 1:
        raise ValueError(f"units: a width of at least 1 is expected, but {units} was given")
    side, pool = _side(size)
    kind, transform = _parts(name, side)
    classifier = CLASSIFIERS[kind](side // pool, width(name, size) if units is None else units)
    transformer = _transformer(kind, transform, side) if transform else None
    if batch_norm:
        classifier = with_batch_norm(classifier)
        if transformer is not None:
            transformer.localisation = with_batch_norm(transformer.localisation)
    classifier = pooled_first(classifier)
    if transformer is not None:
        transformer.localisation = pooled_first(transformer.localisation)
    if dropout:
        classifier.insert(len(classifier) - 1, nn.Dropout(dropout))
    return DigitClassifier(classifier, transformer, pool)


def size_table(size: Size = (28, 28)) -> dict[str, dict[str, int]]:
    """Return each model's solved width, its parameters, and how many of them are a transformer's.

    Args:
        size: (H, W) of the canvas.
    """
    table = {}
    for name in MODELS:
        model = build(name, size)
        look = 0 if model.transformer is None else count_parameters(model.transformer)
        table[name] = {
            "width": width(name, size),
            "parameters": count_parameters(model),
            "transformer": look,
        }
    return table
