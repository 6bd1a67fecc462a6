"""Pictures and digits: what the chapters look at and learn from (chapters 1, 2, 7 and 10 to 14)."""

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
from stn_tutorial.data.pictures import letter_f, photograph

__all__ = [
    "ADDITIONS",
    "DISTORTIONS",
    "Addition",
    "Batches",
    "Digits",
    "Distortion",
    "FixedSet",
    "FixedSums",
    "Sums",
    "data_folder",
    "dataset_name",
    "embedded_digits",
    "hold_out",
    "letter_f",
    "load_digits",
    "mnist",
    "photograph",
]
