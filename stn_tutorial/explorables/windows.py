"""Two windows over a bird, and a trained network that names it through them (chapter 14)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw

from stn_tutorial.affine import transform_points
from stn_tutorial.data import DRAWN_BIRDS
from stn_tutorial.explorables import window_nets
from stn_tutorial.explorables.base import Explorable, as_array
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.poses import Checked
from stn_tutorial.explorables.stills import RIM, still_panels
from stn_tutorial.viz import GRID, INPUT, OUTPUT

REACH = 1 - window_nets.SCALE
"""How far a window's middle may stand from the picture's, so that all of it lies inside."""

TILES = ((-0.5, 0.0), (0.5, 0.0))
"""Where the windows start in training, and here."""


def _middles(value: Any) -> list[list[float]]:
    """Turn what was given as two windows' middles into lists of floats."""
    array = as_array(value)
    if array is None or array.shape != (2, 2) or not (np.abs(array) <= REACH).all():
        raise traitlets.TraitError(
            f"middles must be two points (x, y) from −{REACH:g} to {REACH:g}, "
            f"but {value!r} was given"
        )
    return (array + 0.0).tolist()


class WindowsExplorer(Explorable):
    """Two windows to move over a drawn bird, and a trained network that names it through them.

    The birds are `data.DrawnBirds` of 48×48 pixels, of four kinds: two bills, two wings. A window
    has half the picture's side, and is read at 24×24 pixels. What describes a window, and the
    linear layer that names the bird, were trained on windows that stand anywhere; they were then
    held fast, and a localisation net learned from the kind alone where to put two windows.

    Show it by ending a cell with it. `bird` and `middles` follow the reader and can be set; `frame`
    and `result` are what the network gets and says at the moment.

    Args:
        bird: `"1"` to `"4"`, one test bird of each kind.
        middles: (x, y) of both windows, in normalised units of the picture, from −0.5 to 0.5. They
            start as tiles.

    Raises:
        traitlets.TraitError: one of the two is something else.
    """

    kind = "windows"
    _esm = bundle("windows")

    bird = traitlets.Enum(window_nets.BIRDS, "1").tag(sync=True)
    """The bird's name."""
    middles = Checked(_middles, TILES).tag(sync=True)
    """[x, y] of each window's middle."""
    _pictures = traitlets.Dict().tag(sync=True)
    _nets = traitlets.Dict().tag(sync=True)
    _birds = traitlets.Dict().tag(sync=True)

    def __init__(self, bird: str = "3", middles: Sequence[Sequence[float]] = TILES) -> None:
        super().__init__(
            bird=bird, middles=middles, _pictures=self.page_pictures(), **self.page_state()
        )

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """The birds to choose from: name → label and data URI."""
        return window_nets.page_pictures()

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """The network, and the truth of each bird: a page carries them once."""
        return {
            "_nets": {**window_nets.sent(), "kinds": DRAWN_BIRDS},
            "_birds": window_nets.told()["birds"],
        }

    @property
    def frame(self) -> torch.Tensor:
        """What the network reads, U: shape (1, 3, 48, 48), float64 in [0, 1]."""
        return window_nets.picture(self.bird)

    @property
    def own(self) -> list[list[float]]:
        """Where the network puts its two windows by itself: [x, y] of each."""
        return window_nets.placed(self.frame)[0].tolist()

    @property
    def result(self) -> dict[str, torch.Tensor]:
        """What the network makes of it: `middles`, `V`, `shares` and `kinds`.

        `V`, (1, 2, 3, 24, 24), is what each window shows; `shares`, (1, 2, 4), what each adds to
        the kinds' scores; and `kinds`, (1, 4), how likely each of `data.DRAWN_BIRDS` is.
        """
        return window_nets.run(self.frame, torch.tensor([self.middles]))

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        middles = ", ".join("(" + ", ".join(f"{v:g}" for v in one) + ")" for one in self.middles)
        return f"WindowsExplorer(bird={self.bird!r}, middles=({middles}))"

    def _state(self) -> dict[str, Any]:
        return {"bird": self.bird, "middles": self.middles, "_pictures": {}}

    def _fallback(self) -> tuple[Image.Image, str]:
        result = self.result
        views = [255 * one[None].double() for one in (self.frame[0], *result["V"][0])]
        still = still_panels(views, [INPUT, OUTPUT, OUTPUT])
        draw = ImageDraw.Draw(still)
        unit = still_unit(views[0])
        for number, theta in enumerate(window_nets.windows(result["middles"][0]), start=1):
            corners = torch.tensor([*RIM, RIM[0]], dtype=torch.float64)
            places = transform_points(theta[None].double(), corners)[0].numpy() * unit + 12 + unit
            draw.line(places.ravel().tolist(), fill="white", width=5)
            draw.line(places.ravel().tolist(), fill=GRID, width=3)
            draw.text((places[0, 0] + 6, places[0, 1] + 3), str(number), fill="white",
                      font_size=18, stroke_width=2, stroke_fill="black")  # fmt: skip
        share, best = result["kinds"][0].max(0)
        truth = DRAWN_BIRDS[window_nets.told()["birds"][self.bird]["kind"]]
        text = (
            "Left, a drawn bird on a branch, with two square windows of half the picture's side; "
            f"right, what each of them shows. The bird has a {truth.replace(', ', ' and a ')}. "
            f"Through these windows a trained network says {DRAWN_BIRDS[int(best)]}, at "
            f"{100 * share.item():.0f} %."
        )
        return still, text


def still_unit(panel: torch.Tensor) -> float:
    """Half the side, in pixels, at which `still_panels` draws a small square picture."""
    side = panel.shape[-1]
    return (192 // side) * side / 2
