"""Boxes as θ: what detectors read of a picture, and how (chapter 16).

A box is a transformer whose θ is made of its four edges. `box_theta` makes it; R-CNN's warp,
RoIPool and RoIAlign are `roi_warp`, `roi_pool` and `roi_align`; and `read_regions` reads what any θ
shows, so that a box may be turned. Of these RoIPool alone rounds: it gives a box no gradient, the
others do. `deformable_convolution` moves every tap of a convolution by an offset of its own.

*Convention.* A box is (left, top, right, bottom) in **pixels**, its edges in continuous
coordinates: the pixel in column j reaches from j to j + 1, so that (0, 0, W, H) is the whole
picture. That is torchvision's with `aligned=True`. θ maps output to input, as everywhere.

*Boxes that are none.* No box is refused for its values; what they give is defined:

- a sample further than one pixel outside the outer pixels' centres reads 0, one nearer reads the
  edge pixel, as in torchvision;
- an empty box reads its one point over and over; a reversed one is seen mirrored;
- a box with an edge that is NaN or infinite reads 0, and its gradient is 0.
"""

from stn_tutorial.regions.boxes import box_iou, box_theta, rotated_box_theta, theta_box
from stn_tutorial.regions.reading import Boxes, read_regions, roi_align, roi_pool, roi_warp
from stn_tutorial.regions.taps import deformable_convolution

__all__ = [
    "Boxes",
    "box_iou",
    "box_theta",
    "deformable_convolution",
    "read_regions",
    "roi_align",
    "roi_pool",
    "roi_warp",
    "rotated_box_theta",
    "theta_box",
]
