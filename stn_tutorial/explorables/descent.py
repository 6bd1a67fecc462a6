"""Registration by descent (chapter 6)."""

from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from stn_tutorial.explorables.base import Pictured, ThetaTrait, six_digits, theta_rows
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import Picture, to_image
from stn_tutorial.explorables.stills import still_panels
from stn_tutorial.explorables.words import describe
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample
from stn_tutorial.viz import INPUT, OUTPUT


class _Pose(ThetaTrait):
    """A trait that holds a θ that shifts and turns, and does nothing else."""

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        rows = theta_rows(value)
        (a, b, _), (c, d, _) = rows
        if not np.allclose([a, b, a * a + c * c], [d, -c, 1], rtol=0, atol=1e-4):
            raise traitlets.TraitError(
                f"theta must be a turn and a shift, [[cos, −sin, tx], [sin, cos, ty]], "
                f"but {rows} was given"
            )
        return rows


class DescentExplorer(Pictured):
    """A picture finds its place by gradient descent on θ.

    The target is the picture itself. θ moves the picture off its place; each step goes down the
    slope of the mean squared difference of output and target, θ ← θ − η ∂L/∂θ, by θ's last column
    and, with `turn`, by the angle (in radians). The map shows the loss at each place of the
    picture, and the way that descent takes over it. Blur, of both pictures, widens the valley.

    Show it by ending a cell with it. `theta`, `blur`, `turn` and `rate` follow the reader and can
    be set; a new `theta` is a new start. `steps` and `loss` follow the descent.

    Args:
        picture: `"F"`, `"temple"`, `"flower"` or `"digit"`, 48×48 and grey; a picture file's path;
            an array or a tensor, as `ThetaExplorer` takes them, as wide as high. A side above 64
            pixels is shrunk.
        theta: where it starts: 2×3 numbers, a shift and a turn; moved right by 0.5 and down by 0.3
            when left out.
        blur: 0, 2 or 4: the standard deviation of a Gaussian, in pixels.
        turn: descend in the angle too.
        rate: η, the step size: 0.03, 0.1 or 0.3.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, a wrong shape, or values out of range.
        traitlets.TraitError: one of the others is something else.
    """

    kind = "descent"
    _esm = bundle("descent")
    _side = 48
    largest = 64

    theta = _Pose().tag(sync=True)
    """θ as a list of two lists of three floats."""
    blur = traitlets.Enum((0, 2, 4), 0).tag(sync=True)
    turn = traitlets.Bool(False).tag(sync=True)
    rate = traitlets.Enum((0.03, 0.1, 0.3), 0.1).tag(sync=True)
    steps = traitlets.Int(0).tag(sync=True)
    """How many steps have been taken since the start."""
    loss = traitlets.Float(None, allow_none=True).tag(sync=True)
    """The loss at `theta`; None until the picture has moved."""

    def __init__(
        self,
        picture: Picture = "F",
        theta: Any = ((1, 0, -0.5), (0, 1, -0.3)),
        *,
        blur: int = 0,
        turn: bool = False,
        rate: float = 0.1,
    ) -> None:
        super().__init__(picture, theta=theta, blur=blur, turn=turn, rate=rate)

    def _take(self, picture: Picture) -> tuple[str, dict[str, dict[str, str]]]:
        if not (isinstance(picture, str) and picture in self._choice):
            width, height = to_image(picture, self.largest).size
            if width != height:
                raise ValueError(f"picture must be as wide as high, but {height}×{width} was given")
        return super()._take(picture)

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        rows = ", ".join(
            "[" + ", ".join(f"{v:g}" for v in row) + "]" for row in six_digits(self.theta)
        )
        return (
            f"DescentExplorer(picture={self._picture!r}, theta=[{rows}], blur={self.blur}, "
            f"turn={self.turn}, rate={self.rate:g})"
        )

    def _state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("blur", "turn", "rate")}
        return {"theta": self.theta, **state, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        U = torch.from_numpy(np.asarray(self.image.convert("L")).copy())[None, None].double()
        theta = torch.tensor([self.theta], dtype=torch.float64)
        V = sample(U, affine_grid(theta, U.shape[2:]))
        both = torch.minimum(U, V)
        orange = torch.tensor([0.9, 0.62, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
        blue = torch.tensor([0.2, 0.55, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
        overlay = both + (V - both) * orange + (U - both) * blue
        words = describe(six_digits(self.theta), self.image.size[::-1])
        text = (
            f"Left, a {self._label()}, the target. Right, the moved picture, orange, over the "
            f"target, blue; white where they agree. {words} Gradient descent on θ brings it back."
        )
        return still_panels([U.expand(-1, 3, -1, -1), overlay], [INPUT, OUTPUT]), text
