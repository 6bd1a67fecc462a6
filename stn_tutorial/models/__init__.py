"""The networks that the experiments train: the paper's classifiers of distorted digits."""

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
    "FACTS",
    "MODELS",
    "Conv2d",
    "DigitClassifier",
    "build",
    "count_parameters",
    "size_table",
    "width",
]
