"""What all explorables share: the HTML that stands for them, their pictures, their traits."""

import html
import json
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image

from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import (
    EMBEDDED,
    LARGEST,
    SIDE,
    Picture,
    data_uri,
    embedded_image,
    embedded_pictures,
    from_data_uri,
    to_image,
)
from stn_tutorial.grids import control_points


class Explorable(anywidget.AnyWidget):
    """What all explorables share: a stable text, and HTML for where no kernel runs."""

    kind: str

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """What all of this kind on one page share: name → label and data URI."""
        return {}

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """What else all of this kind on one page share: traits that no cell's output holds."""
        return {}

    def _state(self) -> dict[str, Any]:
        """What a page needs to know to show this, as JSON."""
        raise NotImplementedError

    def _fallback(self) -> tuple[Image.Image, str]:
        """A picture that stands for this, and its text."""
        raise NotImplementedError

    def to_html(self) -> str:
        """Return HTML that a static page of the book brings to life; elsewhere, a picture."""
        image, alt = self._fallback()
        state = json.dumps({"kind": self.kind, **self._state()}, ensure_ascii=False)
        src = data_uri(image, "JPEG", quality=62)
        return (
            f'<div class="stn-explorable" data-stn-widget="{html.escape(state)}">'
            f'<img alt="{html.escape(alt)}" src="{src}" width="{image.width}" '
            f'height="{image.height}"></div>'
        )

    def to_page(self) -> str:
        """Return a page with this alone, whole: saved as one file, it comes alive from disk.

        Nothing is asked of any host. The page is UTF-8, as wide as the window that shows it.
        """
        # "</script>" within a string of JavaScript would end the script.
        module, kind, pictures, shared = (
            json.dumps(part).replace("</", "<\\/")
            for part in (bundle(self.kind), self.kind, self.page_pictures(), self.page_state())
        )
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{html.escape(type(self).__name__)}</title><body>{self.to_html()}<script>"
            f"import(URL.createObjectURL(new Blob([{module}], {{ type: 'text/javascript' }})))"
            f".then((module) => module.mountPage({kind}, {pictures}, {shared}));</script>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        # Colab reads the metadata; everything else that is kept here is the widget's view.
        data, metadata = bundle
        return {**data, "text/plain": repr(self), "text/html": self.to_html()}, metadata


class Pictured(Explorable):
    """An explorable that shows one of the embedded pictures, or one that is given."""

    _choice = tuple(EMBEDDED)
    _side = SIDE
    largest = LARGEST

    _picture = traitlets.Unicode().tag(sync=True)
    _pictures = traitlets.Dict().tag(sync=True)
    # What the front end shrinks a picture to that the reader brings there.
    _largest = traitlets.Int().tag(sync=True)

    def __init__(self, picture: Picture, **kwargs: Any) -> None:
        self._given: Image.Image | None = None
        name, pictures = self._take(picture)
        super().__init__(_picture=name, _pictures=pictures, _largest=self.largest, **kwargs)

    @classmethod
    def page_pictures(cls) -> dict[str, dict[str, str]]:
        """What all of this kind on one page share: the embedded pictures to choose from."""
        every = embedded_pictures(cls._side)
        return {name: every[name] for name in cls._choice}

    @classmethod
    def page_state(cls) -> dict[str, Any]:
        """What all of this kind on one page share: how large a reader's own picture may be."""
        return {"_largest": cls.largest}

    @traitlets.observe("_pictures")
    def _take_from_front_end(self, change: dict[str, Any]) -> None:
        own = change["new"].get("yours")
        if own and (self._given is None or own["src"] != data_uri(self._given)):
            self._given = from_data_uri(own["src"])

    def _take(self, picture: Picture) -> tuple[str, dict[str, dict[str, str]]]:
        if isinstance(picture, str) and picture in self._choice:
            return picture, self._pictures or self.page_pictures()
        self._given = to_image(picture, self.largest)
        own = {"label": "Your picture", "src": data_uri(self._given)}
        return "yours", {**self.page_pictures(), "yours": own}

    @property
    def picture(self) -> str:
        """The name of the picture that is shown, `"yours"` for one that was given; settable."""
        return self._picture

    @picture.setter
    def picture(self, picture: Picture) -> None:
        name, pictures = self._take(picture)
        # Before the name: the front end looks it up among them.
        self._pictures = pictures
        self._picture = name

    @property
    def image(self) -> Image.Image:
        """The picture that is shown, as a PIL image of 8-bit values."""
        if self._picture == "yours":
            assert self._given is not None
            return self._given
        return embedded_image(self._picture, self._side)

    def _label(self) -> str:
        """The picture in words."""
        return "picture" if self._picture == "yours" else EMBEDDED[self._picture][0]

    def _picture_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"_picture": self._picture}
        if self._picture == "yours":
            state["_pictures"] = {"yours": self._pictures["yours"]}
        return state


def as_array(value: Any) -> np.ndarray | None:
    """What was given as numbers, in float64; None when it is something else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def theta_rows(theta: Any) -> list[list[float]]:
    """Turn what was given as θ into 2×3 floats; raise `TraitError` when it is something else."""
    if isinstance(theta, torch.Tensor):
        theta = theta.detach().cpu().double().numpy()
    try:
        array = np.asarray(theta, dtype=np.float64)
    except (TypeError, ValueError):
        array = None
    if array is not None and array.shape == (1, 2, 3):
        array = array[0]
    if array is None or array.shape != (2, 3):
        given = f"shape {array.shape}" if array is not None and array.ndim else repr(theta)
        raise traitlets.TraitError(
            f"theta must be 2×3 numbers, or a tensor of shape (1, 2, 3), but {given} was given"
        )
    if not np.isfinite(array).all():
        raise traitlets.TraitError(f"theta must be finite, but {array.tolist()} was given")
    # Adding zero turns −0 into 0.
    return (array + 0.0).tolist()


class ThetaTrait(traitlets.TraitType):
    """A trait that holds θ as lists, whatever it was given as: lists travel as JSON."""

    default_value = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]  # noqa: RUF012 (never changed in place)

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        """Return θ as lists; raise `TraitError` when it is something else."""
        return theta_rows(value)


def six_digits(rows: list[list[float]]) -> list[list[float]]:
    """θ to six digits: the same on every machine, whatever its last bits."""
    return [[float(f"{value:.6g}") for value in row] for row in rows]


class PointsTrait(traitlets.TraitType):
    """A trait that holds k² points as lists, whatever they were given as."""

    def __init__(self, least: int, most: int, default: int) -> None:
        self._sides = range(least, most + 1)
        super().__init__(control_points(default, dtype=torch.float64).tolist())

    def validate(self, obj: Any, value: Any) -> list[list[float]]:
        """Return the points as lists; raise `TraitError` when they are something else."""
        array = as_array(value)
        if array is not None and array.ndim == 3 and array.shape[0] == 1:
            array = array[0]
        counts = [side * side for side in self._sides]
        if array is None or array.ndim != 2 or len(array) not in counts or array.shape[1] != 2:
            few = len(counts) == 1
            wanted = counts[0] if few else f"k² (k from {self._sides[0]} to {self._sides[-1]})"
            given = f"shape {array.shape}" if array is not None and array.ndim else repr(value)
            raise traitlets.TraitError(
                f"{self.name} must be {wanted} points (x, y), or a tensor of shape "
                f"(1, {counts[0] if few else 'k²'}, 2), but {given} was given"
            )
        if not (np.abs(array) <= 10).all():
            raise traitlets.TraitError(
                f"{self.name} must lie between −10 and 10, but {array.tolist()} was given"
            )
        return (array + 0.0).tolist()


def shorten(points: list[list[float]]) -> str:
    """Write rows of numbers to six digits, without a number's needless zeros."""
    return ", ".join("[" + ", ".join(f"{v:g}" for v in point) + "]" for point in six_digits(points))
