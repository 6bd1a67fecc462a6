"""Forward and inverse mapping (chapter 4)."""

from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image

from stn_tutorial.affine import rotation
from stn_tutorial.explorables.base import Pictured, ThetaTrait, six_digits
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import Picture
from stn_tutorial.explorables.stills import still_panels
from stn_tutorial.explorables.words import describe
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import Splat, sample, splat
from stn_tutorial.viz import OUTPUT


class MappingExplorer(Pictured):
    """One change of a small picture, made forwards and backwards.

    Forwards, each input pixel is sent to the output pixel nearest to where it moves, as
    `sampling.splat` does: what it leaves empty is a hole, vermilion, and where several landed is a
    collision, a dot. Backwards, each output pixel reads the input. Turn and size have a slider
    each; below are the six numbers θ.

    Show it by ending a cell with it; `theta` and `mode` follow the reader and can be set, θ to a
    list, an array or a tensor of shape (2, 3) or (1, 2, 3).

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`, 32×32; a picture file's path; an array
            or a tensor, as `ThetaExplorer` takes them. A longest side above 48 pixels is shrunk.
        theta: 2×3 numbers, output to input, normalised; a turn of 30° when left out.
        mode: how the inverse mapping reads: `"nearest"` or `"bilinear"`.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: theta is not 2×3 finite numbers, or mode neither of the two.
    """

    kind = "mapping"
    _esm = bundle("mapping")
    _side = 32
    largest = 48

    theta = ThetaTrait().tag(sync=True)
    """θ as a list of two lists of three floats."""
    mode = traitlets.Enum(("nearest", "bilinear"), "nearest").tag(sync=True)

    def __init__(
        self, picture: Picture = "temple", theta: Any = None, *, mode: str = "nearest"
    ) -> None:
        if theta is None:
            theta = rotation(30, dtype=torch.float64)
        super().__init__(picture, theta=theta, mode=mode)

    def splat(self) -> Splat | None:
        """What forward mapping gives, in float64, values to 255; None when θ has no inverse."""
        array = np.asarray(self.image.convert("RGB")).copy()
        U = torch.from_numpy(array).permute(2, 0, 1)[None].double()
        try:
            return splat(U, torch.tensor([self.theta], dtype=torch.float64))
        except ValueError:
            return None

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        rows = ", ".join(
            "[" + ", ".join(f"{v:g}" for v in row) + "]" for row in six_digits(self.theta)
        )
        return f"MappingExplorer(picture={self._picture!r}, theta=[{rows}], mode={self.mode!r})"

    def _state(self) -> dict[str, Any]:
        # All of θ's digits: a pixel half-way between two must fall to the same side as here.
        return {"theta": self.theta, "mode": self.mode, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        done = self.splat()
        words = describe(six_digits(self.theta), self.image.size[::-1])
        if done is None:
            found = "θ has no inverse, and forward mapping no answer"
        else:
            found = (
                f"{int(done.holes.sum())} holes and {int(done.collisions.sum())} collisions "
                f"among {done.hits.numel()} pixels"
            )
        text = (
            f"A {self._label()}, small. {words} Left, by forward mapping: {found}. Right, by "
            "inverse mapping: every pixel has a value."
        )
        U = torch.from_numpy(np.asarray(self.image.convert("RGB")).copy())
        theta = torch.tensor([self.theta], dtype=torch.float64)
        U = U.permute(2, 0, 1)[None].double()
        V = sample(U, affine_grid(theta, U.shape[2:]), self.mode)
        panels = [V]
        if done is not None:
            red = torch.tensor([0xD5, 0x5E, 0x00], dtype=torch.float64).view(1, 3, 1, 1)
            panels = [torch.where(done.holes[:, None], red, done.V), V]
        return still_panels(panels, [OUTPUT] * len(panels)), text
