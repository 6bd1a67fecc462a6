"""Pictures, digits, scenes: what chapters look at and learn from (1, 2, 7, 10 to 14 and 16)."""

from stn_tutorial.data.addition import ADDITIONS, Addition, FixedSums, Sums
from stn_tutorial.data.batches import Batches, FixedSet
from stn_tutorial.data.digits import (
    Digits,
    data_folder,
    dataset_name,
    embedded_digits,
    hold_out,
    load_digits,
    mnist,
)
from stn_tutorial.data.distortions import DISTORTIONS, Distortion
from stn_tutorial.data.drawn_numbers import NO_DIGIT, POSITIONS, DrawnNumbers
from stn_tutorial.data.house_numbers import (
    SOURCES,
    FixedNumbers,
    HouseNumberBatches,
    HouseNumbers,
    hold_out_numbers,
    load_house_numbers,
    number_lengths,
    read_number,
)
from stn_tutorial.data.pictures import letter_f, photograph
from stn_tutorial.data.scenes import (
    COLOURS,
    KINDS,
    WORDS,
    DigitScenes,
    ToldScenes,
    digit_scenes,
    told_scenes,
)

__all__ = [
    "ADDITIONS",
    "COLOURS",
    "DISTORTIONS",
    "KINDS",
    "NO_DIGIT",
    "POSITIONS",
    "SOURCES",
    "WORDS",
    "Addition",
    "Batches",
    "DigitScenes",
    "Digits",
    "Distortion",
    "DrawnNumbers",
    "FixedNumbers",
    "FixedSet",
    "FixedSums",
    "HouseNumberBatches",
    "HouseNumbers",
    "Sums",
    "ToldScenes",
    "data_folder",
    "dataset_name",
    "digit_scenes",
    "embedded_digits",
    "hold_out",
    "hold_out_numbers",
    "letter_f",
    "load_digits",
    "load_house_numbers",
    "mnist",
    "number_lengths",
    "photograph",
    "read_number",
    "told_scenes",
]
