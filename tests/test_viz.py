"""The figures draw what they say, in the book's colours, and refuse what they cannot draw."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color, to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import ConnectionPatch

from stn_tutorial import affine, viz
from stn_tutorial.grids import affine_grid


@pytest.fixture(autouse=True)
def _book_style():
    with plt.style.context("stn_tutorial.book"):
        yield
    plt.close("all")


def draw(ax):
    """What a reader's notebook does last; a warning is an error here."""
    ax.figure.canvas.draw()


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# --- Colours ---


def test_colours_are_okabe_and_itos():
    named = (viz.INPUT, viz.OUTPUT, viz.GRID, viz.THETA, viz.ERROR)
    assert named == ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
    # Seen on white and on black: contrast of 2 at least with either.
    for colour in named:
        assert 1.05 / (luminance(colour) + 0.05) > 2
        assert (luminance(colour) + 0.05) / 0.05 > 2


# --- On a phone ---


@pytest.mark.parametrize("label", ["xtick.labelsize", "ytick.labelsize", "axes.labelsize"])
def test_labels_can_be_read_on_a_phone(label):
    # The widest figure, 5.6 inches, fills a column of 358 pixels there.
    points = FontProperties(size=plt.rcParams[label]).get_size_in_points()
    assert points / 72 / 5.6 * 358 > 10


# --- show ---


def test_show():
    U, V = torch.rand(1, 1, 4, 8), torch.rand(1, 3, 6, 3)
    axes = viz.show(U, V, titles=["U", "V"], colours=[viz.INPUT, viz.OUTPUT])
    assert isinstance(axes, np.ndarray)
    assert [ax.get_title() for ax in axes] == ["U", "V"]
    for ax, picture, colour in zip(axes, (U, V), (viz.INPUT, viz.OUTPUT), strict=True):
        drawn = ax.images[0].get_array()
        np.testing.assert_allclose(drawn, picture[0].expand(3, -1, -1).permute(1, 2, 0))
        assert ax.images[0].get_extent() == [-1, 1, 1, -1]  # y grows downwards
        assert list(ax.get_xticks()) == [-1, 0, 1]
        assert any(same_color(p.get_edgecolor(), colour) for p in ax.patches)
        draw(ax)
    # A pixel is a square, although a normalised unit is not.
    assert axes[0].get_aspect() == 0.5


def test_show_in_pixels():
    (ax,) = viz.show(torch.rand(1, 1, 4, 8), pixels=True)
    assert ax.images[0].get_extent() == [-0.5, 7.5, 3.5, -0.5]
    assert ax.get_xlim() == (-0.5, 7.5)
    assert ax.get_ylim() == (3.5, -0.5)
    draw(ax)


def test_show_in_rows():
    pictures = [torch.rand(1, 1, 4, 4) for _ in range(5)]
    axes = viz.show(*pictures, columns=3)
    assert len(axes) == len(axes[0].figure.axes) == 5
    rows = {round(ax.get_position().y0, 3) for ax in axes}
    assert len(rows) == 2
    assert viz.show(pictures[0], titles=["one"]).shape == (1,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_show_takes_what_a_network_returns(dtype):
    picture = torch.tensor([[[[-1.0, 0.5, 2.0]]]]).to(dtype).requires_grad_()
    (ax,) = viz.show(picture)
    assert ax.images[0].get_array()[0, :, 0].tolist() == [0, 0.5, 1]
    draw(ax)


def test_show_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least one picture, but none was given"):
        viz.show()
    good = torch.rand(1, 1, 4, 4)
    with pytest.raises(
        ValueError, match=r"picture 1 must have shape \(1, 1, H, W\) or .*\(2, 1, 4"
    ):
        viz.show(good, torch.rand(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"picture 0 must have .*but shape \(1, 2, 4, 4\) was"):
        viz.show(torch.rand(1, 2, 4, 4))
    with pytest.raises(
        ValueError, match=r"picture 0 must have shape \(N, C, H, W\), but shape \(4"
    ):
        viz.show(good[0, 0])
    with pytest.raises(TypeError, match=r"picture 0 must have a floating dtype, but torch\.uint8"):
        viz.show(good.to(torch.uint8))


# --- draw_grid ---


def test_draw_grid():
    (ax,) = viz.show(torch.rand(1, 1, 8, 8))
    grid = affine_grid(affine.rotation(30), (8, 16))
    viz.draw_grid(ax, grid, lines=5)
    green = [line for line in ax.lines if same_color(line.get_color(), viz.GRID)]
    assert len(green) == 10
    first_row = np.column_stack(green[0].get_data())
    np.testing.assert_allclose(first_row, grid[0, 0])
    # What leaves the picture is still in view.
    reach = grid.abs().max().item()
    assert reach > 1
    assert ax.get_xlim()[1] >= reach
    assert ax.get_ylim()[0] >= reach
    viz.draw_grid(ax, grid.requires_grad_(), dots=True)
    assert len(ax.lines[-1].get_xdata()) == 8 * 16
    draw(ax)


def test_draw_grid_takes_a_single_point():
    (ax,) = viz.show(torch.rand(1, 1, 8, 8))
    viz.draw_grid(ax, affine_grid(affine.identity(), (1, 1)), dots=True)
    draw(ax)


def test_draw_grid_says_what_is_wrong():
    (ax,) = viz.show(torch.rand(1, 1, 8, 8))
    with pytest.raises(
        ValueError, match=r"grid must have shape \(1, H, W, 2\), but .*\(2, 3, 3, 2"
    ):
        viz.draw_grid(ax, torch.zeros(2, 3, 3, 2))
    with pytest.raises(ValueError, match=r"\(N, H, W, 2\).*but shape \(3, 3, 2\) was given"):
        viz.draw_grid(ax, torch.zeros(3, 3, 2))


# --- arrows ---


def test_arrows_go_from_output_to_input():
    in_ax, out_ax = viz.show(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    theta, points = affine.translation(0.5, 0.25), torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    viz.arrows(out_ax, in_ax, theta, points)
    found = out_ax.figure.findobj(ConnectionPatch)
    assert len(found) == 2
    for arrow, start, end in zip(found, [(0, 0), (0.5, 0.5)], [(-0.5, -0.25), (0, 0.25)],
                                 strict=True):  # fmt: skip
        assert arrow.axesA is out_ax
        assert arrow.axesB is in_ax
        assert tuple(arrow.xy1) == start
        assert tuple(arrow.xy2) == end
        assert same_color(arrow.get_edgecolor(), viz.THETA)
    assert same_color(out_ax.lines[0].get_color(), viz.OUTPUT)
    assert same_color(in_ax.lines[0].get_color(), viz.INPUT)
    draw(out_ax)


def test_arrows_say_what_is_wrong():
    in_ax, out_ax = viz.show(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"theta must have shape \(1, 2, 3\), but shape \(2, 2, 3"):
        viz.arrows(out_ax, in_ax, affine.identity(2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"points must have shape \(P, 2\), but shape \(1, 4, 2\)"):
        viz.arrows(out_ax, in_ax, affine.identity(), torch.zeros(1, 4, 2))
    with pytest.raises(TypeError, match=r"points must be a torch\.Tensor, but a list was given"):
        viz.arrows(out_ax, in_ax, affine.identity(), [(0, 0)])


# --- numbers ---


def test_numbers():
    picture = torch.tensor([[[[0.0, 0.25, 0.5], [0.75, 1.0, 2.0]]]])
    (ax,) = viz.show(picture, pixels=True)
    viz.numbers(ax, picture, fmt="{:.2f}")
    texts = {t.get_position(): (t.get_text(), t.get_color()) for t in ax.texts}
    assert texts[(2, 0)] == ("0.50", "white")  # column 2, row 0
    assert texts[(0, 1)] == ("0.75", "black")
    assert len(texts) == 6
    viz.numbers(ax, picture.bfloat16().requires_grad_())
    draw(ax)


def test_numbers_say_what_is_wrong():
    (ax,) = viz.show(torch.rand(1, 1, 2, 2), pixels=True)
    for shape in ((2, 1, 2, 2), (1, 3, 2, 2)):
        with pytest.raises(ValueError, match=r"picture must have shape \(1, 1, H, W\), but"):
            viz.numbers(ax, torch.rand(shape))


def test_style_is_shipped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plt.style.use("stn_tutorial.book")
