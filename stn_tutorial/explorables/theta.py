"""Six sliders, the matrix θ, that move a picture (chapter 3)."""

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from PIL import Image

from stn_tutorial.affine import transform_points
from stn_tutorial.explorables.base import Pictured, ThetaTrait, six_digits
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import Picture
from stn_tutorial.explorables.stills import RIM, read_by, still_grid
from stn_tutorial.explorables.words import describe
from stn_tutorial.grids import affine_grid
from stn_tutorial.viz import GRID, OUTPUT

SHOWS = ("grid", "point", "weights")


class ThetaExplorer(Pictured):
    """Six sliders, the matrix θ, that move a picture.

    θ maps output to input, in normalised coordinates: the grid drawn over the input shows where
    each output pixel reads. Its origin and the tips of its axes can be dragged; a pixel picked in
    the output shows which four input pixels it reads, and their weights.

    Show it by ending a cell with it. `theta` follows the sliders, and moves them when it is set, to
    a list, an array or a tensor of shape (2, 3) or (1, 2, 3). To link a slider of ipywidgets::

        explorer = ThetaExplorer("F")
        angle = FloatSlider(min=-180, max=180, description="degrees")
        angle.observe(lambda change: setattr(explorer, "theta", rotation(change.new)), "value")
        display(angle, explorer)

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`; a picture file's path; an array of
            shape (H, W), (H, W, 3) or (3, H, W), or a tensor of shape (1, C, H, W), floating in
            [0, 1], uint8 or bool. A longest side above 256 pixels is shrunk to 256.
        theta: 2×3 numbers; the identity when left out.
        pixel: (column, row) of the output pixel that is picked at first; one to the upper right
            of the middle when left out.
        show: what is open at first: `"grid"`, the matrix; `"point"`, also where the picked output
            pixel reads; `"weights"`, the four neighbours and their weights first.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: theta is not 2×3 finite numbers, pixel lies outside the picture, or
            show is none of the three.
    """

    kind = "theta"
    _esm = bundle("theta")

    theta = ThetaTrait().tag(sync=True)
    """θ as a list of two lists of three floats."""
    pixel = traitlets.Any(None, allow_none=True).tag(sync=True)
    """The picked output pixel as [column, row]; None until one was picked."""
    show = traitlets.Enum(SHOWS, "grid").tag(sync=True)

    def __init__(
        self,
        picture: Picture = "temple",
        theta: Any = ((1, 0, 0), (0, 1, 0)),
        *,
        pixel: Sequence[int] | None = None,
        show: str = "grid",
        **kwargs: Any,
    ) -> None:
        super().__init__(picture, theta=theta, show=show, **kwargs)
        self.pixel = pixel  # checked against the picture, which is known by now

    @traitlets.validate("pixel")
    def _validate_pixel(self, proposal: dict[str, Any]) -> list[int] | None:
        pixel = proposal["value"]
        if pixel is None:
            return None
        width, height = self.image.size
        whole = isinstance(pixel, Sequence) and all(isinstance(one, int) for one in pixel)
        if not (whole and len(pixel) == 2 and 0 <= pixel[0] < width and 0 <= pixel[1] < height):
            raise traitlets.TraitError(
                f"pixel must be (column, row) within {width} columns and {height} rows, "
                f"but {pixel!r} was given"
            )
        return list(pixel)

    @traitlets.observe("_picture", "_pictures")
    def _keep_pixel_inside(self, change: dict[str, Any]) -> None:
        if self.pixel and any(p >= n for p, n in zip(self.pixel, self.image.size, strict=True)):
            self.pixel = None

    def describe(self) -> str:
        """Say in words what θ does to the picture."""
        return describe(six_digits(self.theta), self.image.size[::-1])

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        rows = ", ".join(
            "[" + ", ".join(f"{v:g}" for v in row) + "]" for row in six_digits(self.theta)
        )
        pixel = "" if self.pixel is None else f", pixel={tuple(self.pixel)}"
        return (
            f"ThetaExplorer(picture={self._picture!r}, theta=[{rows}]{pixel}, show={self.show!r})"
        )

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"theta": six_digits(self.theta), "show": self.show}
        return {**state, "pixel": self.pixel, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        text = (
            f"Left, the input, a {self._label()}, with the sampling grid over it; right, the "
            f"output. {self.describe()}"
        )
        return _still(self.image, six_digits(self.theta)), text


def _still(image: Image.Image, theta: Sequence[Sequence[float]]) -> Image.Image:
    """Draw the input with the sampling grid over it, and the output beside it."""
    # In float64: a rounding that differs between machines would change the picture's bytes.
    matrix = torch.tensor([theta], dtype=torch.float64)
    size = image.height, image.width
    steps = torch.linspace(-1, 1, 9, dtype=torch.float64)
    lines = [torch.stack([k.expand(2), steps[[0, -1]]], 1) for k in steps[1:-1]]
    lines += [line.flip(1) for line in lines]
    corners = torch.tensor(RIM, dtype=torch.float64)
    rim = [corners[[k, (k + 1) % 4]] for k in range(4)]
    strokes = [
        (transform_points(matrix, segment)[0].numpy(), colour, weight)
        for colour, weight, segments in ((GRID, 4, lines), (OUTPUT, 7, rim))
        for segment in segments
    ]
    ends = transform_points(matrix, corners)[0].numpy()
    return still_grid(image, read_by(image, affine_grid(matrix, size)), ends, strokes)
