"""A row of bits and a max-pool (chapter 2)."""

from typing import Any

import numpy as np
import traitlets
from PIL import Image, ImageDraw, ImageFont

from stn_tutorial.explorables.base import Explorable
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.viz import INPUT, OUTPUT


class PoolingExplorer(Explorable):
    """A row of bits, the same row moved, and what a max-pool over two entries makes of both.

    Each entry can be turned over by a press. With a blur it is Zhang's blur-pool: the larger of
    each two, a binomial blur, every second entry. The ends meet (circular padding), so that a shift
    loses nothing. Outputs that differ are marked; an output counts as moved by the whole part of
    shift / stride.

    Show it by ending a cell with it; its traits follow the reader and can be set.

    Args:
        bits: 4 to 16 zeros and ones, an even number of them.
        shift: how many places the second row is moved to the right; to the left when negative.
        stride: 1 or 2: whether every output is kept or every second.
        blur: 0 for none, 3 or 5 taps.

    Raises:
        traitlets.TraitError: one of the four is something else.
    """

    kind = "pooling"
    _esm = bundle("pooling")

    bits = traitlets.Unicode("00110011").tag(sync=True)
    """The signal, as text."""
    shift = traitlets.Int(-1).tag(sync=True)
    """Places to the right."""
    stride = traitlets.Enum((1, 2), 2).tag(sync=True)
    """1 or 2."""
    blur = traitlets.Enum((0, 3, 5), 0).tag(sync=True)
    """How many taps; 0 for none."""

    def __init__(
        self, bits: str = "00110011", shift: int = -1, *, stride: int = 2, blur: int = 0
    ) -> None:
        super().__init__(bits=bits, shift=shift, stride=stride, blur=blur)

    @traitlets.validate("bits")
    def _validate_bits(self, proposal: dict[str, Any]) -> str:
        bits = proposal["value"]
        if set(bits) - {"0", "1"} or not 4 <= len(bits) <= 16 or len(bits) % 2:
            raise traitlets.TraitError(
                f"bits must be 4 to 16 zeros and ones, an even number, but {bits!r} was given"
            )
        return bits

    def _rows(self) -> list[tuple[str, list[float]]]:
        """The signal and the moved signal, and what becomes of each."""
        signal = np.array([float(bit) for bit in self.bits])
        rows = []
        taps = {0: [1.0], 3: [0.25, 0.5, 0.25], 5: [0.0625, 0.25, 0.375, 0.25, 0.0625]}[self.blur]
        for name, one in (("signal", signal), ("moved", np.roll(signal, self.shift))):
            pooled = np.maximum(one, np.roll(one, -1))
            middle = len(taps) // 2
            blurred = sum(w * np.roll(pooled, middle - k) for k, w in enumerate(taps))
            rows += [(name, one.tolist()), ("output", blurred[:: self.stride].tolist())]
        return rows

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        return (
            f"PoolingExplorer(bits={self.bits!r}, shift={self.shift}, stride={self.stride}, "
            f"blur={self.blur})"
        )

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("bits", "shift", "stride", "blur")}

    def _fallback(self) -> tuple[Image.Image, str]:
        rows = self._rows()

        def written(values: list[float]) -> str:
            return ("" if all(v in (0, 1) for v in values) else " ").join(f"{v:g}" for v in values)

        (_, signal), (_, output), (_, moved), (_, other) = rows
        text = (
            f"The signal {written(signal)} becomes {written(output)} under a max-pool of stride "
            f"{self.stride}{f' with a blur of {self.blur} taps' if self.blur else ''}; moved by "
            f"{self.shift}, as {written(moved)}, it becomes {written(other)}."
        )
        return _still_rows(rows, self.stride), text


def _still_rows(rows: list[tuple[str, list[float]]], stride: int) -> Image.Image:
    """Draw the rows as squares with numbers, one above the other."""
    unit, side = 132, 260
    width = side + unit * len(rows[0][1])
    canvas = Image.new("RGB", (width, unit * 4 + 60), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(44)
    for number, (name, values) in enumerate(rows):
        top = number * unit + (40 if number > 1 else 0)
        span = stride if name == "output" else 1
        colour = OUTPUT if name == "output" else INPUT
        draw.text((10, top + unit / 2), name, "black", font, "lm")
        for k, value in enumerate(values):
            left = side + k * span * unit
            grey = round(255 * value)
            box = [left + 4, top + 4, left + span * unit - 8, top + unit - 8]
            draw.rectangle(box, fill=(grey, grey, grey), outline=colour, width=8)
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            draw.text(middle, f"{value:g}", "black" if value > 0.45 else "white", font, "mm")
    scale = min(0.4, 560 / width)
    size = (round(width * scale), round(canvas.height * scale))
    return canvas.resize(size, Image.Resampling.LANCZOS)
