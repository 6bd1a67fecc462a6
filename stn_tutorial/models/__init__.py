"""The networks that the experiments train, of digits, sums, numbers, birds, boxes and words.

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
from stn_tutorial.models.detector import (
    WAYS,
    Detection,
    Detector,
    average_precision,
    move_boxes,
    offsets_between,
)
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
from stn_tutorial.models.words import LOOKS, Aligner, Teller, attention_box, ranking_loss

__all__ = [
    "ADDITION_FACTS",
    "ADDITION_MODELS",
    "BIRD_FACTS",
    "FACTS",
    "LOOKS",
    "MODELS",
    "NUMBER_FACTS",
    "NUMBER_MODELS",
    "NUMBER_WIDTHS",
    "WAYS",
    "Aligner",
    "BirdReader",
    "Conv2d",
    "Describer",
    "Detection",
    "Detector",
    "DigitClassifier",
    "MapLocalisation",
    "NumberReader",
    "Teller",
    "Widths",
    "addition_width",
    "attention_box",
    "average_precision",
    "backbone",
    "build",
    "build_addition",
    "build_number_reader",
    "count_parameters",
    "deconvnet",
    "move_boxes",
    "occlusion_map",
    "offsets_between",
    "ranking_loss",
    "size_table",
    "width",
]
