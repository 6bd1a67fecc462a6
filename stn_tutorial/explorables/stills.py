"""Drawings that stand where nothing moves: on GitHub, in print, without JavaScript."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from stn_tutorial.affine import transform_points
from stn_tutorial.sampling import sample
from stn_tutorial.viz import ERROR, GRID, INPUT, OUTPUT, THETA

RIM: list[list[float]] = [[-1, -1], [1, -1], [1, 1], [-1, 1]]


def read_by(image: Image.Image, grid: torch.Tensor) -> np.ndarray:
    """What the grid reads of an image, as 8-bit RGB."""
    U = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None].double()
    V = sample(U, grid)[0].permute(1, 2, 0)
    return V.round().clamp(0, 255).to(torch.uint8).numpy()


def still_grid(
    image: Image.Image,
    output: np.ndarray,
    ends: np.ndarray,
    strokes: Sequence[tuple[np.ndarray, str, int]],
    marks: np.ndarray | Sequence[np.ndarray] = (),
) -> Image.Image:
    """Draw the input with lines over it, and the output beside it.

    Args:
        image: the input.
        output: the output, as 8-bit RGB.
        ends: points that must be in view, (n, 2), normalised.
        strokes: lines over the input, each with its points, its colour and its weight.
        marks: points over the input.
    """
    width, height = image.size
    half = np.array([width, height]) / max(width, height)
    ends = ends * half
    low, high = np.minimum(ends.min(0), -half), np.maximum(ends.max(0), half)
    middle, reach = (low + high) / 2, max(1.45, (high - low).max() / 2 * 1.05)
    if reach == 1.45:
        middle = np.zeros(2)
    scale, fine = 66, 3  # pixels in a unit; drawn three times as large, then shrunk: smooth lines
    left_side, right_side = round(2 * 1.45 * scale), round(2 * 1.12 * scale)
    canvas = Image.new("RGB", ((left_side + right_side) * fine, left_side * fine), "white")
    draw = ImageDraw.Draw(canvas)

    def panel(picture: Image.Image, centre: np.ndarray, unit: float, colour: str) -> None:
        corner, opposite = (centre - half * unit).round(), (centre + half * unit).round()
        side = np.maximum(opposite - corner, 1).astype(int)
        canvas.paste(
            picture.resize(tuple(side.tolist()), Image.Resampling.BICUBIC),
            tuple(corner.astype(int).tolist()),
        )
        draw.rectangle([*(corner - 6), *(opposite + 6)], outline=colour, width=7)

    unit = left_side * fine / 2 / reach
    centre = np.full(2, left_side * fine / 2) - middle * unit
    panel(image.convert("RGB"), centre, unit, INPUT)
    for points, colour, weight in strokes:
        places = points * half * unit + centre
        flat = places.ravel().clip(-1e5, 1e5).tolist()
        draw.line(flat, fill="white", width=weight + 5)
        draw.line(flat, fill=colour, width=weight)
    for point in marks:
        x, y = point * half * unit + centre
        for radius, colour in ((15, "white"), (11, THETA)):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    # Over what a line may have left there on its way out of view.
    draw.rectangle([left_side * fine, 0, *canvas.size], fill="white")
    right = np.array([left_side + right_side / 2, left_side / 2]) * fine
    panel(Image.fromarray(output), right, scale * fine, OUTPUT)
    return canvas.resize((canvas.width // fine, canvas.height // fine), Image.Resampling.BOX)


def still_panels(panels: Sequence[torch.Tensor], colours: Sequence[str]) -> Image.Image:
    """Draw small pictures, values to 255, side by side, their pixels as squares."""
    images = []
    for panel in panels:
        array = panel[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
        image = Image.fromarray(array)
        scale = max(1, 192 // max(image.size))
        images.append(
            image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        )
    width = sum(image.width for image in images) + 24 * len(images)
    canvas = Image.new("RGB", (width, max(image.height for image in images) + 24), "white")
    draw = ImageDraw.Draw(canvas)
    left = 12
    for image, colour in zip(images, colours, strict=True):
        canvas.paste(image, (left, 12))
        draw.rectangle(
            [left - 4, 8, left + image.width + 3, image.height + 15], outline=colour, width=4
        )
        left += image.width + 24
    return canvas


def still_window(U: torch.Tensor, V: torch.Tensor, theta: torch.Tensor) -> Image.Image:
    """Draw a frame with the square that θ reads, its upper edge as V's, and V beside it.

    Args:
        U: the frame, square and grey, values in [0, 1].
        V: what is read of it, likewise.
        theta: from V to U, (1, 2, 3).
    """
    panels = [255 * one.double().expand(-1, 3, -1, -1) for one in (U, V)]
    still = still_panels(panels, [INPUT, OUTPUT])
    draw = ImageDraw.Draw(still)
    unit = (192 // U.shape[3]) * U.shape[3] / 2
    corners = torch.tensor([*RIM, RIM[0]], dtype=torch.float64)
    places = transform_points(theta.double(), corners)[0].numpy() * unit + 12 + unit
    draw.line(places.ravel().tolist(), fill=GRID, width=4)
    draw.line(places[:2].ravel().tolist(), fill=OUTPUT, width=4)
    return still


def beside(stills: Sequence[Image.Image]) -> Image.Image:
    """Put drawings of one height side by side."""
    canvas = Image.new("RGB", (sum(one.width for one in stills), stills[0].height), "white")
    left = 0
    for one in stills:
        canvas.paste(one, (left, 0))
        left += one.width
    return canvas


def hatched(output: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Mark a part of an 8-bit RGB picture by strokes."""
    row, column = np.indices(wrong.shape)
    output = output.copy()
    colour = np.array([int(ERROR[k : k + 2], 16) for k in (1, 3, 5)], dtype=np.uint8)
    output[wrong & ((row + column) % 6 < 2)] = colour
    return output
