"""Two digits to move, and a trained pair of windows that adds them (chapter 12)."""

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from PIL import Image

from stn_tutorial.explorables import digit_nets, pair_nets
from stn_tutorial.explorables.base import Explorable
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.poses import Checked, checked_pose
from stn_tutorial.explorables.stills import beside, still_window


def _digits(value: Any) -> list[str]:
    """Turn what was given as two digits into their names."""
    given = list(value) if isinstance(value, Sequence) else []
    names = [str(one) for one in given if isinstance(one, str | int)]
    if len(names) != 2 or len(given) != 2 or not set(names) <= set(pair_nets.DIGITS):
        raise traitlets.TraitError(
            f"digits must be two of {', '.join(pair_nets.DIGITS)}, but {value!r} was given"
        )
    return names


def _poses(value: Any) -> list[list[float]]:
    """Turn what was given as two poses into lists of four floats."""
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        raise traitlets.TraitError(f"poses must be two, but {value!r} was given")
    return [checked_pose(one) for one in value]


class PairExplorer(Explorable):
    """Two digits to turn, move and scale, each in its channel, and a trained pair of windows.

    The network was trained on MNIST addition: two channels of 42×42 pixels, in each a digit of
    MNIST, turned by up to 45°, scaled by 0.7 to 1.2 and shifted; the label is their sum. Two
    transformers look at both channels, each chooses a window of its own, and each window reads both
    channels. The net that reads the four views was first taught single digits, nearly upright, with
    their labels; the windows, and the net that adds, learned from the sum alone.

    Show it by ending a cell with it. `digits` and `poses` follow the reader and can be set; `frame`
    and `result` are what the network gets and says at the moment.

    Args:
        digits: the digit of each channel, `"0"` to `"9"`, a test digit of MNIST.
        poses: of each, (degrees, size, right, down): turned counter-clockwise, so many times as
            large, and moved, in normalised units of the frame.

    Raises:
        traitlets.TraitError: one of the two is something else.
    """

    kind = "pair"
    _esm = bundle("pair")

    digits = Checked(_digits, ("3", "5")).tag(sync=True)
    """The digit of each channel, by name."""
    poses = Checked(_poses, ((0, 1, 0, 0), (0, 1, 0, 0))).tag(sync=True)
    """[degrees, size, right, down] of each."""
    _pictures = traitlets.Dict().tag(sync=True)
    _nets = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        digits: Sequence[str | int] = ("3", "5"),
        poses: Sequence[Sequence[float]] = ((30, 1, -0.25, 0.2), (-25, 0.9, 0.3, -0.25)),
    ) -> None:
        super().__init__(
            digits=digits, poses=poses, _pictures=self.page_pictures(), **self.page_state()
        )

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """The digits to choose from: name → label and data URI."""
        return pair_nets.page_pictures()

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """The network: a page carries it once, and a cell's output never."""
        return {"_nets": pair_nets.sent()}

    @property
    def frame(self) -> torch.Tensor:
        """What the network reads, U: shape (1, 2, 42, 42), float64 in [0, 1]."""
        pairs = zip(self.digits, self.poses, strict=True)
        every = pair_nets.digits()
        return torch.cat([digit_nets.framed(every[one], pose) for one, pose in pairs], dim=1)

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """What the network makes of it: `theta`, `V`, `views` and `sum`, as `pair_nets.run` has it.

        `theta`, (1, 2, 2, 3), is a window each, from what it reads to U; `V`, (1, 2, 2, 20, 20), is
        what window k reads of channel c; `views`, (1, 2, 2, 10), is how likely each digit is there,
        and `sum`, (1, 19), how likely each sum.
        """
        return pair_nets.run(self.frame)

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        poses = ", ".join("(" + ", ".join(f"{v:g}" for v in pose) + ")" for pose in self.poses)
        return f"PairExplorer(digits=({', '.join(map(repr, self.digits))}), poses=({poses}))"

    def _state(self) -> dict[str, Any]:
        return {"digits": self.digits, "poses": self.poses, "_pictures": {}}

    def _fallback(self) -> tuple[Image.Image, str]:
        U, result = self.frame, self.result
        takes = self._nets["figures"]["takes"]
        stills = []
        for channel in range(2):
            window = takes.index(channel)
            V = result["V"][:, window, channel][:, None]
            stills.append(still_window(U[:, [channel]], V, result["theta"][:, window]))
        share, total = result["sum"][0].max(0)
        text = (
            "Two digits, each in a frame of its own, with the window of a trained spatial "
            "transformer on each, and beside each frame what that window reads. The network gives "
            f"{' + '.join(self.digits)} as {total.item()}, at {100 * share.item():.0f} %."
        )
        return beside(stills), text
