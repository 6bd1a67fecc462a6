"""Two trained networks that read a digit (chapter 7)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from stn_tutorial.affine import invert, transform_points
from stn_tutorial.explorables import digit_nets
from stn_tutorial.explorables.base import Explorable, as_array
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.poses import Checked, checked_pose
from stn_tutorial.explorables.stills import still_window


def _strokes(value: Any) -> list[list[list[float]]]:
    """Turn what was given as strokes into lists of points."""
    lines = []
    for one in value if isinstance(value, Sequence) else [None]:
        line = as_array(one)
        if line is None or line.ndim != 2 or line.shape[1] != 2 or not np.isfinite(line).all():
            raise traitlets.TraitError(
                f"strokes must be lists of points (x, y), but {value!r} was given"
            )
        lines.append((line + 0.0).tolist())
    return lines


class NetworkExplorer(Explorable):
    """A digit to turn, move, scale or draw, and what two trained networks make of it.

    Both were trained on MNIST's digits, each turned by up to 90°, scaled by 0.7 to 1.5 and shifted
    in a frame of 42×42 pixels. One is a plain convolutional network; the other, of as many
    parameters, straightens the digit with a spatial transformer first. They run in the page. A
    drawing is read where it stands and as large as it stands: nothing centres or scales it first.

    Show it by ending a cell with it. `picture`, `pose`, `strokes` and `pen` follow the reader and
    can be set; `frame` and `result` are what the networks read and say at the moment.

    Args:
        picture: `"2"`, `"3"`, `"4"`, `"5"`, `"7"` or `"9"`, a test digit of MNIST, or `"drawing"`.
        pose: (degrees, size, right, down): turned counter-clockwise, so many times as large, and
            moved, in normalised units of the frame.
        strokes: of the drawing: each a list of points (x, y), normalised to the frame, as they are
            before the pose moves them.
        pen: the width of the pen in the frame's pixels, at size 1: from 1 to 6.

    Raises:
        traitlets.TraitError: one of the four is something else.
    """

    kind = "network"
    _esm = bundle("network")

    _picture = traitlets.Enum((*digit_nets.DIGITS, "drawing"), "3").tag(sync=True)
    _pictures = traitlets.Dict().tag(sync=True)
    _nets = traitlets.Dict().tag(sync=True)
    pose = Checked(checked_pose, (0, 1, 0, 0)).tag(sync=True)
    """[degrees, size, right, down]."""
    strokes = Checked(_strokes, ()).tag(sync=True)
    """The drawing's strokes, each a list of points [x, y]."""
    pen = traitlets.Float(3.0, min=1, max=6).tag(sync=True)
    """The pen's width in pixels."""

    def __init__(
        self,
        picture: str = "3",
        pose: Sequence[float] = (40, 1.1, -0.2, 0.15),
        *,
        strokes: Sequence[Sequence[Sequence[float]]] = (),
        pen: float = 3.0,
    ) -> None:
        super().__init__(
            _picture=picture,
            _pictures=self.page_pictures(),
            pose=pose,
            strokes=strokes,
            pen=pen,
            **self.page_state(),
        )

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """The digits to choose from: name → label and data URI."""
        return digit_nets.page_pictures()

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """The networks: a page carries them once, and a cell's output never."""
        return {"_nets": digit_nets.sent()}

    @property
    def picture(self) -> str:
        """The digit that is shown, or `"drawing"`; settable."""
        return self._picture

    @picture.setter
    def picture(self, picture: str) -> None:
        self._picture = picture

    @property
    def frame(self) -> torch.Tensor:
        """What the networks read, U: shape (1, 1, 42, 42), float64 in [0, 1]."""
        if self._picture == "drawing":
            radius = self.pen * self.pose[1] / 2
            return _inked(self.strokes, digit_nets.posed(self.pose), radius, digit_nets.FRAME)
        return digit_nets.placed(self._picture, self.pose)

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """What the networks make of it: `theta`, `V`, and ten probabilities, `look` and `plain`."""
        return digit_nets.run(self.frame)

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        pose = ", ".join(f"{value:g}" for value in self.pose)
        drawn = f", strokes={len(self.strokes)}" if self._picture == "drawing" else ""
        return f"NetworkExplorer(picture={self._picture!r}, pose=({pose}){drawn}, pen={self.pen:g})"

    def _state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("_picture", "pose", "strokes", "pen")}
        return {**state, "_pictures": {}}

    def _fallback(self) -> tuple[Image.Image, str]:
        U, result = self.frame, self.result

        def said(name: str) -> str:
            share, digit = result[name][0].max(0)
            return f"{digit.item()} at {100 * share.item():.0f} %"

        text = (
            "Left, a digit in its frame, and the grid where a trained spatial transformer reads; "
            f"right, what it reads. The network with the transformer reads {said('look')}, "
            f"the one without {said('plain')}."
        )
        return still_window(U, result["V"], result["theta"]), text


def _inked(
    strokes: list[list[list[float]]], posed: torch.Tensor, radius: float, side: int
) -> torch.Tensor:
    """Draw strokes with a round pen whose edge is one pixel soft, as the front end does."""
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    pixel = torch.stack([x, y], dim=-1)
    ink = torch.zeros(side, side, dtype=torch.float64)
    for line in strokes:
        points = torch.tensor(line, dtype=torch.float64)
        points = ((transform_points(invert(posed), points)[0] + 1) * side - 1) / 2
        for start, end in zip([points[0], *points], points, strict=False):
            way = end - start
            along = ((pixel - start) @ way) / (way @ way or 1)
            distance = (pixel - start - along.clamp(0, 1)[..., None] * way).norm(dim=-1)
            ink = ink.maximum((radius - distance + 0.5).clamp(0, 1))
    return ink[None, None]
