"""The book's figures: pictures with coordinates, grids over them, arrows between them.

Set the style once with `plt.style.use("stn_tutorial.book")`. One colour stands for one idea
everywhere: see the constants.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor

from stn_tutorial._checks import check_grid, check_picture, check_shape, check_theta
from stn_tutorial.affine import transform_points

__all__ = ["ERROR", "GRID", "INPUT", "OUTPUT", "THETA", "arrows", "draw_grid", "numbers", "show"]

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
INPUT = "#0072B2"  # U, blue
OUTPUT = "#E69F00"  # V, orange
GRID = "#009E73"  # G, green
THETA = "#CC79A7"  # θ, purple
ERROR = "#D55E00"  # vermilion


def show(
    *pictures: Tensor,
    titles: Sequence[str] = (),
    colours: Sequence[str] = (),
    pixels: bool = False,
    columns: int | None = None,
) -> np.ndarray:
    """Draw pictures side by side, with their coordinates along the edges.

    Args:
        *pictures: each of shape (1, C, H, W), C = 1 or 3, values in [0, 1]; others are clipped.
        titles: one for each picture.
        colours: a frame's colour for each picture: `INPUT` for U, `OUTPUT` for V.
        pixels: label the axes in pixels, centres at whole numbers, rather than normalised.
        columns: pictures in a row; all in one when left out.

    Returns:
        The axes, an array of one `matplotlib.axes.Axes` for each picture.
    """
    if not pictures:
        raise ValueError("show expects at least one picture, but none was given")
    for number, picture in enumerate(pictures):
        check_picture(picture, f"picture {number}")
        if picture.shape[0] != 1 or picture.shape[1] not in (1, 3):
            raise ValueError(
                f"picture {number} must have shape (1, 1, H, W) or (1, 3, H, W), "
                f"but shape {tuple(picture.shape)} was given"
            )
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    tallest = max(p.shape[2] / p.shape[3] for p in pictures)
    panel = 5.6 / max(columns, 2)
    size = (panel * columns, rows * (panel * tallest * 0.86 + 0.42))
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    axes = axes.ravel()
    for ax in axes[len(pictures) :]:
        ax.remove()
    axes = axes[: len(pictures)]
    for k, (ax, picture) in enumerate(zip(axes, pictures, strict=True)):
        _draw(ax, picture, pixels)
        if columns >= 3 and k % columns and not pixels:
            ax.tick_params(labelleft=False)  # said once a row: small panels need the room
        if k < len(titles):
            ax.set_title(titles[k])
        if k < len(colours):
            # A frame round the picture, not the axes: `draw_grid` may widen these.
            left, right, bottom, top = ax.images[0].get_extent()
            ax.add_patch(
                Rectangle(
                    (left, top), right - left, bottom - top,
                    fill=False, edgecolor=colours[k], linewidth=3, clip_on=False, zorder=3,
                )
            )  # fmt: skip
    return axes


def _draw(ax: Axes, picture: Tensor, pixels: bool) -> None:
    """One picture on its axes, each pixel a square."""
    height, width = picture.shape[2:]
    image = picture[0].detach().float().cpu().clamp(0, 1).permute(1, 2, 0)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5) if pixels else (-1, 1, 1, -1)
    ax.imshow(
        image.expand(-1, -1, 3).numpy(), extent=extent, aspect=1 if pixels else height / width
    )
    ax.spines[:].set_visible(False)
    if not pixels:
        ax.set_xticks([-1, 0, 1])
        ax.set_yticks([-1, 0, 1])
    ax.autoscale(False)


def _check_one(name: str, value: Tensor, expected: str) -> None:
    """Raise `ValueError` unless the batch holds one item, since one is all that is drawn."""
    if value.shape[0] != 1:
        raise ValueError(
            f"{name} must have shape {expected}, but shape {tuple(value.shape)} was given"
        )


def draw_grid(ax: Axes, grid: Tensor, *, lines: int = 9, dots: bool = False) -> None:
    """Draw a sampling grid, green, over a picture's axes (normalised).

    Args:
        ax: axes from `show`.
        grid: shape (1, H, W, 2), (x, y) last.
        lines: about how many rows and columns of the grid to draw.
        dots: draw each of the grid's points as well.
    """
    check_grid(grid)
    _check_one("grid", grid, "(1, H, W, 2)")
    points = grid[0].detach().float().cpu().numpy()
    height, width = points.shape[:2]
    rows = torch.linspace(0, height - 1, min(lines, height)).round().long()
    columns = torch.linspace(0, width - 1, min(lines, width)).round().long()
    # Where the grid leaves the picture, the view widens to show it.
    reach = float(np.abs(points).max()) * 1.03
    if reach > 1:
        ax.set(xlim=(-reach, reach), ylim=(reach, -reach))
    # White beneath green: legible on any picture.
    for colour, weight in (("white", 2.6), (GRID, 1.3)):
        for k in rows:
            ax.plot(*points[k].T, color=colour, linewidth=weight, clip_on=False)
        for k in columns:
            ax.plot(*points[:, k].T, color=colour, linewidth=weight, clip_on=False)
    if dots:
        ax.plot(*points.reshape(-1, 2).T, "o", color=GRID, markeredgecolor="white", clip_on=False)


def arrows(out_ax: Axes, in_ax: Axes, theta: Tensor, points: Tensor) -> None:
    """Draw an arrow, purple, from each output position to the input position that it reads.

    Args:
        out_ax: the output's axes from `show` (normalised).
        in_ax: the input's axes from `show` (normalised).
        theta: shape (1, 2, 3), output to input.
        points: output positions, shape (P, 2).
    """
    check_theta(theta)
    _check_one("theta", theta, "(1, 2, 3)")
    check_shape("points", points, "(P, 2)", 2, ndim=2)
    sources = transform_points(theta, points)[0]
    # Both figures' layouts must be settled, or the arrows would miss the axes that move later.
    for target, source in zip(points.tolist(), sources.tolist(), strict=True):
        out_ax.figure.add_artist(
            ConnectionPatch(
                target, source, "data", "data", axesA=out_ax, axesB=in_ax,
                arrowstyle="-|>", color=THETA, linewidth=1.8, mutation_scale=12,
            )
        )  # fmt: skip
        out_ax.plot(
            *target, "o", color=OUTPUT, markersize=8, markeredgecolor="black", clip_on=False
        )
        in_ax.plot(*source, "o", color=INPUT, markersize=8, markeredgecolor="white", clip_on=False)


def numbers(ax: Axes, picture: Tensor, fmt: str = "{:.0f}") -> None:
    """Write each pixel's value on it. For axes from `show(…, pixels=True)` of a small picture.

    Args:
        ax: axes from `show`, in pixels.
        picture: shape (1, 1, H, W).
        fmt: how to write a value.
    """
    check_picture(picture, "picture")
    if tuple(picture.shape[:2]) != (1, 1):
        raise ValueError(
            f"picture must have shape (1, 1, H, W), but shape {tuple(picture.shape)} was given"
        )
    for (row, column), value in np.ndenumerate(picture[0, 0].detach().float().cpu().numpy()):
        shade = "black" if value > 0.55 else "white"
        ax.text(column, row, fmt.format(value), ha="center", va="center", color=shade)
