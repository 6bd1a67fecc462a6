"""What the paper's Table 1 prints."""

from stn_tutorial._facts import Fact

__all__ = ["PAPER", "PAPER_SOURCE"]

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
