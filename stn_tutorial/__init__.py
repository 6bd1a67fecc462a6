"""The package behind the book *Learning to Look: Spatial Transformer Networks*.

Three houses; a module imports only from those above it (`tests/test_layers.py` holds them to that).

The parts, which a borrower imports:

==========================  ====================================================================
`stn_tutorial.pooling`      blur-pool, and how steady a class is under shifts (chapters 1, 2)
`stn_tutorial.affine`       θ: build, compose, invert, decompose, convert (chapter 3)
`stn_tutorial.grids`        regular and sampling grids, normalised and pixel coordinates (3, 4, 9)
`stn_tutorial.sampling`     nearest, bilinear and bicubic sampling, splatting (4, 5, 6)
`stn_tutorial.transformer`  `SpatialTransformer`, its transforms, localisation nets (7, 8, 9)
`stn_tutorial.attention`    squeeze and excitation, CBAM, soft attention (15)
`stn_tutorial.regions`      boxes as θ, RoIPool and RoIAlign, deformable convolution (16)
`stn_tutorial.alignment`    co-localisation's loss, boxes, compositing, congealing (17)
==========================  ====================================================================

The experiments:

==========================  ====================================================================
`stn_tutorial.models`       the paper's networks, readers, a detector, two instruments (10 to 16)
`stn_tutorial.data`         pictures, digits, distortions, numbers, birds, scenes (1, 10 to 17)
`stn_tutorial.training`     a loop for a chapter's minute, an engine for long runs (1, 2, 7, 10)
`stn_tutorial.experiments`  the cells of the paper's table (10, 11)
`stn_tutorial.cli`          `stn-tutorial train`, `reproduce`, `data`
==========================  ====================================================================

The book's own:

============================  ==================================================================
`stn_tutorial.results`        what was measured for the book (10, 11)
`stn_tutorial.viz`            the book's figures
`stn_tutorial.explorables`    pictures that answer to sliders and to the finger
============================  ==================================================================

One convention holds everywhere: θ maps *output* coordinates to *input* coordinates; coordinates
are (x, y), x to the right and y down, and −1 and 1 are the outer edges of the picture.
"""

from stn_tutorial.transformer import SpatialTransformer

__all__ = ["SpatialTransformer"]
__version__ = "0.1.0"
