"""What the paper's Table 1 prints, and how we lay it out."""

from stn_tutorial._facts import Fact
from stn_tutorial.data import DISTORTIONS
from stn_tutorial.experiments.layout import Layout
from stn_tutorial.models import FACTS as MODEL_FACTS
from stn_tutorial.models import MODELS

__all__ = ["PAPER", "PAPER_SOURCE", "TABLE1", "TC_FACT"]

PAPER_SOURCE = (
    "Jaderberg, Simonyan, Zisserman and Kavukcuoglu 2015, Spatial Transformer Networks, Table 1 "
    "and, for TC, its text; https://arxiv.org/abs/1506.02025"
)


PAPER: dict[str, dict[str, float]] = {
    "fcn": {"R": 2.1, "RTS": 5.2, "P": 3.1, "E": 3.2, "TC": 13.2},
    "cnn": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 1.4, "TC": 3.5},
    "st-fcn-affine": {"R": 1.2, "RTS": 0.8, "P": 1.5, "E": 2.7, "TC": 2.0},
    "st-fcn-projective": {"R": 1.3, "RTS": 0.9, "P": 1.4, "E": 2.6},
    "st-fcn-tps": {"R": 1.1, "RTS": 0.8, "P": 1.4, "E": 2.4},
    "st-cnn-affine": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.2, "TC": 1.7},
    "st-cnn-projective": {"R": 0.8, "RTS": 0.6, "P": 0.8, "E": 1.3},
    "st-cnn-tps": {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.1},
}
"""The paper's test errors in %, the mean of three seeds, by model and distortion."""


TC_FACT = Fact("the paper's TC figures for ST-FCN and ST-CNN are those of the affine map", "c")


TABLE1 = Layout(
    key="distortion",
    columns=tuple(DISTORTIONS),
    rows=MODELS,
    paper=PAPER,
    source=PAPER_SOURCE,
    facts={
        **{name: distortion.facts for name, distortion in DISTORTIONS.items()},
        "models": MODEL_FACTS,
        "table": (TC_FACT,),
    },
    kept=("misread",),
)
"""The paper's Table 1: its models on its distortions of MNIST."""
