"""The reader in the place of the localisation net (chapter 7)."""

from typing import Any

import torch
import traitlets
from PIL import Image

from stn_tutorial.affine import compose, rotation, scaling, translation
from stn_tutorial.explorables import digit_nets
from stn_tutorial.explorables.base import Explorable
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.stills import still_window
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample

SIZE, RIGHT, DOWN = 1.1, -0.1, 0.08

STARTS: dict[str, tuple[float, float, float, float]] = {
    name: (turn, SIZE, RIGHT, DOWN)
    for name, turn in {"2": -135, "3": 135, "4": -175, "5": 170, "7": -150, "9": 175}.items()
}
"""How each digit stands in its frame, (degrees, size, right, down): turned so that the network
misreads it. From there descent reads 2, 3 and 4 right in the end, and sticks with 5, 7 and 9."""

DESCENT: dict[str, float] = {"half": 2, "rate": 20, "flat": 0.005, "most": 200, "low": 0.2}
"""α ← α − `rate` · (L(α + `half`) − L(α − `half`)) / (2 · `half`), in degrees, until the slope is
below `flat` or `most` steps are done; it has arrived where the loss is below `low`.

The loss has many small dents, and a slope over 4° does not see the smallest. With a rate of 10 and
with one of 40, descent ends in the same valleys, after about twice and half as many steps."""


class LocaliseExplorer(Explorable):
    """The reader turns the window through which a trained network reads a digit.

    A digit stands turned in a frame of 42×42 pixels, and the network, trained behind a spatial
    transformer on MNIST's digits, misreads it. θ's scale and shift are given, so that the window
    holds the digit; its angle α is the reader's to find, with the loss −log p(label) to go by. The
    loss is drawn over α where α has been. Gradient descent can do the same from any α.

    Show it by ending a cell with it. `picture` and `angle` follow the reader and can be set;
    `frame` and `result` are what the network gets and says at the moment.

    Args:
        picture: `"2"`, `"3"`, `"4"`, `"5"`, `"7"` or `"9"`, a test digit of MNIST.
        angle: α in degrees, from −180 to 180: V shows the digit turned by α counter-clockwise.

    Raises:
        traitlets.TraitError: one of the two is something else.
    """

    kind = "localise"
    _esm = bundle("localise")

    _picture = traitlets.Enum(tuple(digit_nets.DIGITS), "2").tag(sync=True)
    _pictures = traitlets.Dict().tag(sync=True)
    _nets = traitlets.Dict().tag(sync=True)
    _starts = traitlets.Dict().tag(sync=True)
    _descent = traitlets.Dict().tag(sync=True)
    angle = traitlets.Float(0.0, min=-180, max=180).tag(sync=True)
    """α in degrees."""
    steps = traitlets.Int(0).tag(sync=True)
    """How many steps of descent have led to `angle`."""

    def __init__(self, picture: str = "2", angle: float = 0.0) -> None:
        super().__init__(
            _picture=picture, _pictures=self.page_pictures(), angle=angle, **self.page_state()
        )

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """The digits to choose from: name → label and data URI."""
        return digit_nets.page_pictures()

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """The network, the digits' poses and the descent's constants: once for a page."""
        return {"_nets": digit_nets.sent("read"), "_starts": STARTS, "_descent": DESCENT}

    @property
    def picture(self) -> str:
        """The digit that is shown, and the label; settable."""
        return self._picture

    @picture.setter
    def picture(self, picture: str) -> None:
        self._picture = picture

    @property
    def frame(self) -> torch.Tensor:
        """The digit in its frame, U: shape (1, 1, 42, 42), float64 in [0, 1]."""
        return digit_nets.placed(self._picture, STARTS[self._picture])

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """What α makes of it, in float64: `theta`, `V`, ten `probabilities` and the `loss`."""
        _, size, right, down = STARTS[self._picture]
        side = digit_nets.SEEN
        theta = compose(
            translation(-right, -down, dtype=torch.float64),
            rotation(self.angle, dtype=torch.float64),
            scaling(digit_nets.FRAME / (side * size), dtype=torch.float64),
        )
        V = sample(self.frame, affine_grid(theta, (side, side)))
        scores = digit_nets.reader()(V)
        return {
            "theta": theta,
            "V": V,
            "probabilities": scores.softmax(dim=1),
            "loss": -scores.log_softmax(dim=1)[0, int(self._picture)],
        }

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        return f"LocaliseExplorer(picture={self._picture!r}, angle={self.angle:g})"

    def _state(self) -> dict[str, Any]:
        return {"_picture": self._picture, "angle": self.angle, "_pictures": {}}

    def _fallback(self) -> tuple[Image.Image, str]:
        result = self.result
        share, digit = result["probabilities"][0].max(0)
        text = (
            f"Left, a handwritten {self._picture}, turned, in its frame, and the square that a "
            "network reads through, which can be turned; right, what it reads. It reads "
            f"{digit.item()} at {100 * share.item():.0f} %, and the loss, "
            f"−log p({self._picture}), is {result['loss'].item():.2f}."
        )
        return still_window(self.frame, result["V"], result["theta"]), text
