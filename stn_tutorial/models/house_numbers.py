"""The paper's readers of house numbers: a CNN of eleven hidden layers, and transformers in it (13).

Eight convolutions and three dense layers, then five heads of eleven classes, one for each position.
*Single* has one affine transformer at the input, with a localisation net of four layers; *Multi*
has one before each of the first four convolutions, with two dense layers of 32 units each. `FACTS`
says what of it is the paper's and what is our assumption.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stn_tutorial._checks import Size, check_choice, check_picture, check_size
from stn_tutorial._facts import Fact
from stn_tutorial.transformer import FullyConnectedLocalisation, SpatialTransformer

__all__ = [
    "NUMBER_FACTS",
    "NUMBER_MODELS",
    "NUMBER_WIDTHS",
    "NumberReader",
    "Widths",
    "build_number_reader",
]

NUMBER_MODELS = ("cnn", "st-cnn-single", "st-cnn-multi")
"""The paper's own rows of its Table 2, by name."""

POSITIONS, CLASSES = 5, 11
"""Heads, and what each chooses from: ten digits and none."""

NUMBER_FACTS = (
    Fact("eleven hidden layers, then five softmaxes of eleven classes", "a"),
    Fact("Multi: an affine transformer before each of the first four convolutions, each with a "
         "localisation net of two layers of 32 units", "a"),
    Fact("Single: one transformer, with a localisation net of four layers, a CNN", "a"),
    Fact("filters 48, 64, 128, 160, 192, 192, 192, 192; a max-pool of 2 after the first, third, "
         "fifth and seventh convolution; dense layers of 3072", "b"),
    Fact("three dense layers", "c"),
    Fact("the first convolution is 5×5", "b"),
    Fact("all others are 5×5 too, and all keep the size, by zeros at the edge", "c"),
    Fact("dropout of a half after every hidden layer but the first convolution and those of the "
         "localisation nets", "b"),
    Fact("Single's four layers: two 5×5 convolutions of 32 filters, each with a max-pool of 2, on "
         "the input at half its size, and two dense layers of 32 units", "c"),
    Fact("Single's transformer stands at the input", "c"),
    Fact("each picture's mean is taken off before anything else", "c"),
)  # fmt: skip
"""What the models rest on, and how sure we are of each."""


@dataclass(frozen=True)
class Widths:
    """How wide a reader is.

    Args:
        filters: of each of the eight convolutions.
        units: of each of the three dense layers.
        pool: the factor by which the picture is average-pooled before the first convolution, after
            the transformer that stands at the input, if there is one.
        look: the side to which a feature map is average-pooled before Multi's localisation nets
            look at it; None for none.
        look_filters: of both convolutions of Single's localisation net.
    """

    filters: tuple[int, ...]
    units: int
    pool: int = 1
    look: int | None = None
    look_filters: int = 32


NUMBER_WIDTHS = {
    "paper": Widths((48, 64, 128, 160, 192, 192, 192, 192), 3072),
    "small": Widths((16, 24, 32, 48, 64, 64, 64, 64), 192, pool=2, look=16, look_filters=16),
}
"""The paper's, and one of the same shape that a CPU trains in minutes, by name."""


class _ConvolutionalLook(nn.Sequential):
    """Single's localisation net: four layers, on the input at half its size."""

    def __init__(self, channels: int, size: tuple[int, int], filters: int) -> None:
        left = [side // 8 for side in size]
        super().__init__(
            nn.AvgPool2d(2),
            nn.Conv2d(channels, filters, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(filters * left[0] * left[1], 32),
            nn.ReLU(),
            nn.Linear(32, 32),
            nn.ReLU(),
        )
        self.features = 32


class NumberReader(nn.Module):
    """A network that reads a whole number; made by `build_number_reader`.

    Args:
        stages: one for each convolution, with its transformer before it where it has one.
        dense: the dense layers and the heads.
    """

    def __init__(self, stages: Sequence[nn.Module], dense: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.dense = dense

    def features(self, U: Tensor) -> Tensor:
        """Return what the last convolution makes of U, (N, 3, H, W).

        Its shape is (N, F, H/16, W/16), or half of that where the picture is pooled first.
        """
        x = U - U.mean(dim=(1, 2, 3), keepdim=True)
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, U: Tensor) -> Tensor:
        """Return the scores, before softmax, of U, (N, 3, H, W): (N, 11, 5), classes before heads.

        That is the order of `torch.nn.functional.cross_entropy`, whose target is then (N, 5).
        """
        check_picture(U)
        scores = self.dense(self.features(U))
        return scores.unflatten(1, (POSITIONS, CLASSES)).transpose(1, 2)

    @torch.no_grad()
    def looks(self, U: Tensor) -> list[Tensor]:
        """Return each transformer's θ, from the input on: (N, 2, 3) each; none for the CNN."""
        check_picture(U)
        x, found = U - U.mean(dim=(1, 2, 3), keepdim=True), []
        for stage in self.stages:
            for layer in stage.children():
                if isinstance(layer, SpatialTransformer):
                    x, theta = layer(x, return_theta=True)
                    found.append(theta)
                else:
                    x = layer(x)
        return found


def build_number_reader(
    name: str,
    size: Size = (64, 64),
    widths: str = "paper",
    *,
    batch_norm: bool = False,
    dropout: float = 0.0,
    dense_dropout: float = 0.0,
) -> NumberReader:
    """Build one of the paper's readers, with random weights and each transformer at the identity.

    Args:
        name: one of `NUMBER_MODELS`.
        size: (H, W) of the pictures, multiples of 16, or of 32 where `widths` pools: 64×64, or
            128×128 for the harder table.
        widths: a name from `NUMBER_WIDTHS`.
        batch_norm: put one after each convolution and dense layer of the reader. Not the paper's.
        dropout: the share of what each convolution but the first gives that is dropped.
        dense_dropout: the same of the dense layers. The paper's is a half, of both.

    Raises:
        ValueError: an unknown name, or a size that does not halve so often.
    """
    check_choice("model", name, NUMBER_MODELS)
    check_choice("widths", widths, tuple(NUMBER_WIDTHS))
    height, width = check_size(size)
    wide = NUMBER_WIDTHS[widths]
    if height % (16 * wide.pool) or width % (16 * wide.pool):
        raise ValueError(
            f"size must be multiples of {16 * wide.pool}, but ({height}, {width}) was given"
        )
    channels = 3
    stages: list[nn.Module] = []
    for number, filters in enumerate(wide.filters):
        stage: list[nn.Module] = []
        if name == "st-cnn-single" and number == 0:
            stage.append(
                SpatialTransformer(_ConvolutionalLook(channels, (height, width), wide.look_filters))
            )
        elif name == "st-cnn-multi" and number < 4:
            sides = [min(side, wide.look or side) for side in (height, width)]
            look = FullyConnectedLocalisation((channels, *sides), (32, 32))
            stage.append(SpatialTransformer(look))
        if number == 0 and wide.pool > 1:
            stage.append(nn.AvgPool2d(wide.pool))
            height, width = height // wide.pool, width // wide.pool
        stage.append(nn.Conv2d(channels, filters, 5, padding=2))
        if batch_norm:
            stage.append(nn.BatchNorm2d(filters))
        if number % 2 == 0:
            stage.append(nn.MaxPool2d(2))  # before the ReLU: the same, with a quarter of its work
            height, width = height // 2, width // 2
        stage.append(nn.ReLU())
        if dropout and number:
            stage.append(nn.Dropout(dropout))
        stages.append(nn.Sequential(*stage))
        channels = filters
    inputs = channels * height * width
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(3):
        layers.append(nn.Linear(inputs, wide.units))
        if batch_norm:
            layers.append(nn.BatchNorm1d(wide.units))
        layers.append(nn.ReLU())
        if dense_dropout:
            layers.append(nn.Dropout(dense_dropout))
        inputs = wide.units
    # Five heads of eleven are one layer of 55: no weight of one is another's.
    layers.append(nn.Linear(inputs, POSITIONS * CLASSES))
    return NumberReader(stages, nn.Sequential(*layers))
