"""The package behind the book *Learning to Look: Spatial Transformer Networks*.

One module for each idea, in the order in which the data meet them; a module imports only from
those above it:

========================  ======================================================================
`stn_tutorial.pooling`    blur-pool, and how steady a class is under shifts (chapters 1, 2)
`stn_tutorial.affine`     θ: build, compose, invert, decompose, convert (chapter 3)
`stn_tutorial.grids`      regular and sampling grids, normalised and pixel coordinates (3, 4, 8)
`stn_tutorial.sampling`   nearest, bilinear and bicubic sampling, splatting (4, 5)
`stn_tutorial.transformer`  `SpatialTransformer`, its transforms, localisation nets (7, 8)
`stn_tutorial.data`       pictures, embedded digits, MNIST
`stn_tutorial.training`   the training loop, accuracy, probabilities
`stn_tutorial.viz`        the book's figures
`stn_tutorial.widgets`    the explorables: θ sliders that move the picture (3, 4, 5)
========================  ======================================================================

One convention holds everywhere: θ maps *output* coordinates to *input* coordinates; coordinates
are (x, y), x to the right and y down, and −1 and 1 are the outer edges of the picture.
"""

from stn_tutorial.transformer import SpatialTransformer

__all__ = ["SpatialTransformer"]
__version__ = "0.1.0"
