"""The spatial transformer, as a module for your own network (chapters 7 to 9, 12, 15).

A transformer has three parts, as in the paper: a *localisation net* looks at the input and gives a
few numbers; a *transform* makes θ and the sampling grid of them; the *sampler* reads the input
there. `SpatialTransformer` holds them together, and takes any localisation net and any transform.
`ParallelTransformer` and `SeriesTransformer` are made of several. `insert` puts one into a network
that is there already.

*Convention.* Every θ maps **output to input**, in normalised coordinates, `align_corners=False`.
Transforms take *offsets*: all zero is the identity, so that a last layer of zeros starts there. A
transform that bears the name of a constructor in `stn_tutorial.affine` does to the picture what
that does: `Rotation` turns it counter-clockwise, `Translation` moves it right and down. All other
offsets are added to the identity's θ, and so say where to *look*.
"""

from stn_tutorial.transformer.inserting import insert
from stn_tutorial.transformer.localisation import (
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    SharedLocalisation,
)
from stn_tutorial.transformer.module import SpatialTransformer
from stn_tutorial.transformer.several import (
    ParallelTransformer,
    SeriesTransformer,
    crowding,
    tiling,
)
from stn_tutorial.transformer.splines import PiecewiseAffine, ThinPlateSpline
from stn_tutorial.transformer.transforms import (
    Affine,
    Attention,
    Chain,
    Projective,
    Rotation,
    Similarity,
    Transform,
    Translation,
)
from stn_tutorial.transformer.volumes import Affine3d, Rotation3d, Similarity3d, Translation3d

__all__ = [
    "Affine",
    "Affine3d",
    "Attention",
    "Chain",
    "ConvolutionalLocalisation",
    "FullyConnectedLocalisation",
    "ParallelTransformer",
    "PiecewiseAffine",
    "Projective",
    "Rotation",
    "Rotation3d",
    "SeriesTransformer",
    "SharedLocalisation",
    "Similarity",
    "Similarity3d",
    "SpatialTransformer",
    "ThinPlateSpline",
    "Transform",
    "Translation",
    "Translation3d",
    "crowding",
    "insert",
    "tiling",
]
