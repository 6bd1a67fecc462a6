"""What the experiments train: the paper's classifiers of distorted digits, and of sums."""

from stn_tutorial.models.addition import (
    ADDITION_FACTS,
    ADDITION_MODELS,
    addition_width,
    build_addition,
)
from stn_tutorial.models.convolution import Conv2d
from stn_tutorial.models.digits import (
    FACTS,
    MODELS,
    DigitClassifier,
    build,
    count_parameters,
    size_table,
    width,
)

__all__ = [
    "ADDITION_FACTS",
    "ADDITION_MODELS",
    "FACTS",
    "MODELS",
    "Conv2d",
    "DigitClassifier",
    "addition_width",
    "build",
    "build_addition",
    "count_parameters",
    "size_table",
    "width",
]
