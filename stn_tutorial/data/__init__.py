"""Pictures, digits, scenes: what chapters look at and learn from (1, 2, 7, 10 to 17)."""

from stn_tutorial.data.addition import ADDITIONS, Addition, FixedSums, Sums
from stn_tutorial.data.batches import Batches, FixedSet
from stn_tutorial.data.birds import (
    BIRD_SOURCES,
    BODY,
    HEAD,
    Birds,
    load_birds,
    part_middle,
)
from stn_tutorial.data.canvases import CANVAS_FACTS, Canvases, scatter
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
from stn_tutorial.data.drawn_birds import DRAWN_BIRDS, PARTS, BirdTruth, DrawnBirds
from stn_tutorial.data.drawn_numbers import NO_DIGIT, POSITIONS, DrawnNumbers
from stn_tutorial.data.faces import LENSES, draw_faces, draw_poses, draw_spectacles
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
from stn_tutorial.data.weights import weights_file

__all__ = [
    "ADDITIONS",
    "BIRD_SOURCES",
    "BODY",
    "CANVAS_FACTS",
    "COLOURS",
    "DISTORTIONS",
    "DRAWN_BIRDS",
    "HEAD",
    "KINDS",
    "LENSES",
    "NO_DIGIT",
    "PARTS",
    "POSITIONS",
    "SOURCES",
    "WORDS",
    "Addition",
    "Batches",
    "BirdTruth",
    "Birds",
    "Canvases",
    "DigitScenes",
    "Digits",
    "Distortion",
    "DrawnBirds",
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
    "draw_faces",
    "draw_poses",
    "draw_spectacles",
    "embedded_digits",
    "hold_out",
    "hold_out_numbers",
    "letter_f",
    "load_birds",
    "load_digits",
    "load_house_numbers",
    "mnist",
    "number_lengths",
    "part_middle",
    "photograph",
    "read_number",
    "scatter",
    "told_scenes",
    "weights_file",
]
