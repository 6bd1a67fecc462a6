"""The package behind the book *Learning to Look: Spatial Transformer Networks*.

One module for each idea, in the order in which the data meet them; a module imports only from
those above it:

==========================  ====================================================================
`stn_tutorial.pooling`      blur-pool, and how steady a class is under shifts (chapters 1, 2)
`stn_tutorial.affine`       θ: build, compose, invert, decompose, convert (chapter 3)
`stn_tutorial.grids`        regular and sampling grids, normalised and pixel coordinates (3, 4, 8)
`stn_tutorial.sampling`     nearest, bilinear and bicubic sampling, splatting (4, 5)
`stn_tutorial.transformer`  `SpatialTransformer`, its transforms, localisation nets (7, 8)
`stn_tutorial.models`       the paper's FCN, CNN, ST-FCN, ST-CNN (9, 10)
`stn_tutorial.data`         pictures, embedded digits, MNIST, the paper's distortions (1, 9, 10)
`stn_tutorial.training`     a loop for a chapter's minute, an engine for long runs (1, 2, 7, 9)
`stn_tutorial.experiments`  the cells of the paper's table (9, 10)
`stn_tutorial.cli`          `stn-tutorial train`, `reproduce`, `data`
`stn_tutorial.results`      what was measured for the book (9, 10)
`stn_tutorial.viz`          the book's figures
`stn_tutorial.explorables`      the explorables: pictures that answer to sliders and to the finger
==========================  ====================================================================

One convention holds everywhere: θ maps *output* coordinates to *input* coordinates; coordinates
are (x, y), x to the right and y down, and −1 and 1 are the outer edges of the picture.
"""

from stn_tutorial.transformer import SpatialTransformer

__all__ = ["SpatialTransformer"]
__version__ = "0.1.0"
