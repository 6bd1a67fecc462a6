"""The networks that the experiments train: the paper's, of digits and of house numbers."""

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
from stn_tutorial.models.house_numbers import (
    NUMBER_FACTS,
    NUMBER_MODELS,
    NUMBER_WIDTHS,
    NumberReader,
    Widths,
    build_number_reader,
)

__all__ = [
    "FACTS",
    "MODELS",
    "NUMBER_FACTS",
    "NUMBER_MODELS",
    "NUMBER_WIDTHS",
    "Conv2d",
    "DigitClassifier",
    "NumberReader",
    "Widths",
    "build",
    "build_number_reader",
    "count_parameters",
    "size_table",
    "width",
]
