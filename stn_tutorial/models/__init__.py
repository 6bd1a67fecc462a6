"""The networks that the experiments train: the paper's, of digits, sums, numbers and birds.

And two instruments that show what a trained one looks at, `occlusion_map` and `deconvnet`.
"""

from stn_tutorial.models.addition import (
    ADDITION_FACTS,
    ADDITION_MODELS,
    addition_width,
    build_addition,
)
from stn_tutorial.models.birds import (
    BIRD_FACTS,
    BirdReader,
    Describer,
    MapLocalisation,
    backbone,
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
from stn_tutorial.models.house_numbers import (
    NUMBER_FACTS,
    NUMBER_MODELS,
    NUMBER_WIDTHS,
    NumberReader,
    Widths,
    build_number_reader,
)
from stn_tutorial.models.looking import deconvnet, occlusion_map

__all__ = [
    "ADDITION_FACTS",
    "ADDITION_MODELS",
    "BIRD_FACTS",
    "FACTS",
    "MODELS",
    "NUMBER_FACTS",
    "NUMBER_MODELS",
    "NUMBER_WIDTHS",
    "BirdReader",
    "Conv2d",
    "Describer",
    "DigitClassifier",
    "MapLocalisation",
    "NumberReader",
    "Widths",
    "addition_width",
    "backbone",
    "build",
    "build_addition",
    "build_number_reader",
    "count_parameters",
    "deconvnet",
    "occlusion_map",
    "size_table",
    "width",
]
