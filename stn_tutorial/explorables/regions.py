"""A box over a feature map, read by RoIPool and by RoIAlign (chapter 16)."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from stn_tutorial.explorables.base import Pictured, as_array
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import Picture
from stn_tutorial.regions import roi_align, roi_pool
from stn_tutorial.regions.reading import pooled_spans, rounded
from stn_tutorial.viz import ERROR, GRID, INPUT, OUTPUT, THETA

REACH = 400
"""How far from the picture's upper left corner an edge may lie, in pixels."""


class _Box(traitlets.TraitType):
    """A trait that holds a box as a list, whatever it was given as."""

    default_value = (21.0, 30.0, 96.0, 101.0)

    def validate(self, obj: Any, value: Any) -> list[float]:
        array = as_array(value)
        if array is not None and array.shape == (1, 4):
            array = array[0]
        # Written so that NaN fails, too.
        if (
            array is None
            or array.shape != (4,)
            or not (np.abs(array) <= REACH).all()
            or not (array[:2] < array[2:]).all()
        ):
            raise traitlets.TraitError(
                "box must be (left, top, right, bottom) in the picture's pixels, left < right and "
                f"top < bottom, from −{REACH} to {REACH}, but {value!r} was given"
            )
        return (array + 0.0).tolist()


class _Bin(traitlets.TraitType):
    """A trait that holds a bin's row and column as a list."""

    default_value = (1, 2)

    def validate(self, obj: Any, value: Any) -> list[int]:
        array = as_array(value)
        if array is None or array.shape != (2,) or not np.isin(array, range(7)).all():
            raise traitlets.TraitError(
                f"bin must be (row, column), whole numbers from 0 to 6, but {value!r} was given"
            )
        return [int(one) for one in array]


class Reading(NamedTuple):
    """What is read of a box, float64, (bins, bins) each, and the map that it is read from."""

    features: Tensor
    """(H, W)."""
    true: Tensor
    """The picture's own mean over each bin; NaN where no part of the bin lies in the picture."""
    pool: Tensor
    align: Tensor

    def error(self, which: str) -> float:
        """By how much `"pool"` or `"align"` misses the true means, on average; NaN without any."""
        off = (getattr(self, which) - self.true).abs()
        return off[~off.isnan()].mean().item()


class RegionsExplorer(Pictured):
    """A box to drag over a feature map, and what RoIPool and RoIAlign read of it, bin by bin.

    The features are the picture's means over blocks of stride × stride pixels: a map of which the
    true value is known everywhere, the picture's own mean over each bin of the box, to the fraction
    of a pixel. RoIPool's rounded bins and RoIAlign's samples are drawn over the map; the numbers
    are how far each is off, in grey values of 255. RoIPool may take the mean of its bins in place
    of the largest value: what is left then is the rounding's error alone.

    Show it by ending a cell with it; its traits follow the reader and can be set.

    Args:
        picture: `"temple"`, `"flower"`, `"F"` or `"digit"`; a picture file's path; an array or a
            tensor, as `ThetaExplorer` takes them. It is read as grey.
        box: (left, top, right, bottom) in the picture's pixels, from −400 to 400.
        bins: 2 to 7, along each side of the box.
        stride: 8 or 16: pixels of the picture to one of the map.
        aligned: RoIAlign's switch; off, it reads half a pixel of the map too far right and down.
        sampling_ratio: RoIAlign's samples along each side of a bin, 1 to 4; −1 takes as many as
            the bin has pixels of the map.
        pool: `"max"` or `"mean"`: what RoIPool takes of a bin.

    Raises:
        TypeError: picture is of another type or dtype.
        ValueError: no such picture, or a wrong shape or values out of range.
        traitlets.TraitError: one of the others is something else.
    """

    kind = "regions"
    _esm = bundle("regions")

    box = _Box().tag(sync=True)
    """The box as a list of four floats."""
    bins = traitlets.Enum((2, 3, 4, 5, 6, 7), 4).tag(sync=True)
    stride = traitlets.Enum((8, 16), 8).tag(sync=True)
    aligned = traitlets.Bool(True).tag(sync=True)
    sampling_ratio = traitlets.Enum((-1, 1, 2, 3, 4), 2).tag(sync=True)
    pool = traitlets.Enum(("max", "mean"), "max").tag(sync=True)
    bin = _Bin().tag(sync=True)
    """The bin that is told of, as [row, column]; the last one where there are fewer."""
    shown = traitlets.Enum(("both", "pool", "align"), "both").tag(sync=True)
    """Whose reading is drawn: `"both"`, `"pool"` or `"align"`."""
    under = traitlets.Enum(("features", "picture"), "features").tag(sync=True)
    """What lies under the box: `"features"` or `"picture"`."""

    def __init__(
        self,
        picture: Picture = "temple",
        box: Any = (21, 30, 96, 101),
        bins: int = 4,
        *,
        stride: int = 8,
        aligned: bool = True,
        sampling_ratio: int = 2,
        pool: str = "max",
    ) -> None:
        super().__init__(
            picture,
            box=box,
            bins=bins,
            stride=stride,
            aligned=aligned,
            sampling_ratio=sampling_ratio,
            pool=pool,
        )

    def _grey(self) -> Tensor:
        """The picture's grey values, to 255 and not rounded, (H, W)."""
        array = np.asarray(self.image, dtype=np.float64)
        return torch.from_numpy(array @ [0.299, 0.587, 0.114] if array.ndim == 3 else array)

    @property
    def result(self) -> Reading:
        """What is read of the box, and what there is to read."""
        grey = self._grey()
        features = F.avg_pool2d(grey[None], self.stride, ceil_mode=True, count_include_pad=False)
        box = torch.tensor([self.box], dtype=torch.float64)
        size, scale = (self.bins, self.bins), 1 / self.stride
        pool = roi_pool(features[None], [box], size, scale)[0, 0]
        if self.pool == "mean":
            xs, ys = self._spans(features)
            means = [
                [features[0, y0:y1, x0:x1].sum() / max((y1 - y0) * (x1 - x0), 1) for x0, x1 in xs]
                for y0, y1 in ys
            ]
            pool = torch.tensor(means, dtype=torch.float64)
        align = roi_align(
            features[None],
            [box],
            size,
            scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )
        return Reading(features[0], self._true(grey), pool, align[0, 0])

    def _edges(self, axis: int) -> Tensor:
        """Where the bins begin and end along an axis, 0 for x: (bins + 1,)."""
        low, high = self.box[axis], self.box[axis + 2]
        return low + (high - low) * torch.arange(self.bins + 1, dtype=torch.float64) / self.bins

    def _true(self, grey: Tensor) -> Tensor:
        """The picture's own mean over each bin, pixels being squares of one value."""
        shares = []
        for axis, side in ((1, grey.shape[0]), (0, grey.shape[1])):
            edges = self._edges(axis).clamp(0, side)
            pixel = torch.arange(side, dtype=torch.float64)
            inside = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(
                edges[:-1, None], pixel
            )
            # Nothing of a bin divided by nothing is NaN.
            shares.append(inside.clamp(min=0) / edges.diff()[:, None])
        return shares[0] @ grey @ shares[1].T

    def _spans(self, features: Tensor) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """RoIPool's bins along x and along y: the first pixel of the map and the one after."""
        edges = rounded(torch.tensor(self.box, dtype=torch.float64) / self.stride)[:, None]
        found = []
        for axis, side in ((0, features.shape[-1]), (1, features.shape[-2])):
            start, end = pooled_spans(edges[axis], edges[axis + 2], self.bins, side)
            found.append(list(zip(start[0].int().tolist(), end[0].int().tolist(), strict=True)))
        return found[0], found[1]

    def __repr__(self) -> str:
        """Show what matters and nothing that changes from run to run."""
        box = ", ".join(f"{edge:g}" for edge in self.box)
        return (
            f"RegionsExplorer(picture={self._picture!r}, box=({box}), bins={self.bins}, "
            f"stride={self.stride}, aligned={self.aligned}, "
            f"sampling_ratio={self.sampling_ratio}, pool={self.pool!r})"
        )

    def _state(self) -> dict[str, Any]:
        names = (
            "box", "bins", "stride", "aligned", "sampling_ratio", "pool", "bin", "shown", "under"
        )  # fmt: skip
        return {**{name: getattr(self, name) for name in names}, **self._picture_state()}

    def _fallback(self) -> tuple[Image.Image, str]:
        found = self.result
        rows, columns = found.features.shape
        box = ", ".join(f"{edge:g}" for edge in self.box)
        off = {which: found.error(which) for which in ("pool", "align")}
        told = (
            "No part of the box lies in the picture."
            if math.isnan(off["pool"])
            else f"Against the picture's own mean over each bin RoIPool is off by "
            f"{off['pool']:.1f} of 255 on average, RoIAlign by {off['align']:.1f}."
        )
        text = (
            f"A {self._label()} as a map of {columns}×{rows} features of stride {self.stride}, and "
            f"over it the box ({box}), cut into {self.bins}×{self.bins} bins, RoIPool's rounded "
            f"bins in vermilion and RoIAlign's samples as green dots. {told}"
        )
        return self._still(found), text

    def _still(self, found: Reading) -> Image.Image:
        """Draw the map with the box and its two readings, and beside it what is read."""
        fine = 2
        height, width = self._grey().shape
        margin = max(8, max(width, height) / 8)
        unit = 330 * fine / (max(width, height) + 2 * margin)
        side = 330 * fine
        column = 106 * fine
        canvas = Image.new("RGB", (side + column, side), "white")
        draw = ImageDraw.Draw(canvas)

        def at(x: float, y: float) -> tuple[float, float]:
            middle = side / 2
            return middle + (x - width / 2) * unit, middle + (y - height / 2) * unit

        def grey(value: float) -> tuple[int, int, int]:
            light = round(min(max(float(value), 0), 255))
            return light, light, light

        for (row, place), value in np.ndenumerate(found.features.numpy()):
            x, y = place * self.stride, row * self.stride
            draw.rectangle([*at(x, y), *at(x + self.stride, y + self.stride)], fill=grey(value))
        draw.rectangle([*at(0, 0), *at(width, height)], outline=INPUT, width=3 * fine)
        xs, ys = self._spans(found.features)
        for y0, y1 in ys:
            for x0, x1 in xs:
                if x0 < x1 and y0 < y1:
                    a, b = (
                        at(x0 * self.stride, y0 * self.stride),
                        at(x1 * self.stride, y1 * self.stride),
                    )
                    draw.rectangle(
                        [a[0] + fine, a[1] + fine, b[0] - fine, b[1] - fine],
                        outline=ERROR,
                        width=fine,
                    )
        edges = [self._edges(axis).tolist() for axis in (0, 1)]
        for colour, wide in (("white", 4 * fine), (THETA, 2 * fine)):
            for x in edges[0]:
                draw.line([*at(x, edges[1][0]), *at(x, edges[1][-1])], fill=colour, width=wide)
            for y in edges[1]:
                draw.line([*at(edges[0][0], y), *at(edges[0][-1], y)], fill=colour, width=wide)
        for y in self._samples(1):
            for x in self._samples(0):
                across, down = at(x, y)
                for radius, colour in ((3 * fine, "white"), (2 * fine, GRID)):
                    spot = [across - radius, down - radius, across + radius, down + radius]
                    draw.ellipse(spot, fill=colour)
        font = ImageFont.load_default(13 * fine)
        block = side / 3
        cell = (block - 22 * fine) / self.bins
        names = {"true": "True mean", "pool": "RoIPool", "align": "RoIAlign"}
        for number, (which, name) in enumerate(names.items()):
            left, top = side + 12 * fine, number * block + 19 * fine
            draw.text((left, top - 9 * fine), name, "black", font, "lm")
            for (row, place), value in np.ndenumerate(getattr(found, which).numpy()):
                spot = [left + place * cell, top + row * cell]
                spot += [spot[0] + cell, spot[1] + cell]
                draw.rectangle(spot, fill="white" if math.isnan(value) else grey(value))
            frame = [left, top, left + self.bins * cell, top + self.bins * cell]
            draw.rectangle(frame, outline=INPUT if which == "true" else OUTPUT, width=2 * fine)
        return canvas.resize((canvas.width // fine, canvas.height // fine), Image.Resampling.BOX)

    def _samples(self, axis: int) -> list[float]:
        """Where RoIAlign's samples stand along an axis, in the picture's pixels."""
        low, high = (self.box[k] / self.stride for k in (axis, axis + 2))
        if not self.aligned:
            low, high = low + 0.5, max(high, low + 1) + 0.5
        each = self.sampling_ratio
        if each < 0:
            each = max(1, math.ceil((high - low) / self.bins))
        count = self.bins * each
        return [self.stride * (low + (k + 0.5) / count * (high - low)) for k in range(count)]
