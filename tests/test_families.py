"""Splines through any points and in pixels; what turns and scales in volumes."""

import math
import re

import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.spatial.transform import Rotation as ScipysRotation
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial import _splines
from stn_tutorial.grids import control_points, regular_grid, thin_plate_spline_grid
from stn_tutorial.transformer import (
    Rotation,
    Rotation3d,
    Similarity3d,
    ThinPlateSpline,
    Translation3d,
)

F64 = torch.float64
IN_PIXELS = {
    "the size's": ((24, 96), None),
    "given": ((30, 30), 0.5),
    "square": ((16, 16), None),
    "high": ((40, 10), None),
}
SCATTERED = torch.tensor([[-0.9, -0.7], [0.8, -0.9], [0.1, 0.05], [-0.6, 0.9], [0.95, 0.6]])
POINTS = {
    "4×4": {},
    "2×10": {"k": (2, 10)},
    "3×2": {"k": (3, 2)},
    "scattered": {"control": SCATTERED},
    "three": {"control": SCATTERED[:3]},
}


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
@pytest.mark.parametrize(("size", "aspect"), IN_PIXELS.values(), ids=IN_PIXELS)
def test_splines_are_scipys_in_pixels(points, size, aspect):
    spline = ThinPlateSpline(**points, aspect=aspect)
    theta = spline.theta(0.1 * torch.randn(2, spline.dof, dtype=F64))
    home = spline.control(theta)
    units = torch.tensor([1, size[0] / size[1] if aspect is None else aspect], dtype=F64)
    own = regular_grid(size, dtype=F64).view(-1, 2)
    for grid, sources in zip(spline.grid(theta, size), theta, strict=True):
        theirs = RBFInterpolator(home * units, sources, kernel="thin_plate_spline", degree=1)
        close(grid.view(-1, 2), torch.from_numpy(theirs(own * units)), 1e-9)
    # Through its points, wherever they are.
    close(spline.points(theta, home, size), theta, 1e-9)
    close(spline.points(theta, own, size).view(2, *size, 2), spline.grid(theta, size), 1e-10)
    assert gradcheck(lambda t: spline.grid(t, (3, 5)), theta.requires_grad_())


def test_a_square_spline_is_the_grids_own():
    theta = ThinPlateSpline(5).theta(0.1 * torch.randn(2, 50, dtype=F64))
    close(ThinPlateSpline(5).grid(theta, (9, 9)), thin_plate_spline_grid(theta, (9, 9)))
    wide = ThinPlateSpline(5, aspect=1).grid(theta, (9, 30))
    close(wide, thin_plate_spline_grid(theta, (9, 30)))
    assert (ThinPlateSpline(5).grid(theta, (9, 30)) - wide).abs().max() > 1e-3
    points = control_points(5, dtype=F64)
    close(
        ThinPlateSpline(control=points).grid(theta, (9, 7)), ThinPlateSpline(5).grid(theta, (9, 7))
    )


def test_a_wide_picture_bends_as_its_square_middle_would():
    """The same points in pixels, the same movements in pixels: the same map in pixels."""
    control = torch.tensor([[-0.5, -0.8], [0.5, -0.7], [0, 0], [-0.4, 0.7], [0.3, 0.9]], dtype=F64)
    movement = 0.1 * torch.randn(1, 5, 2, dtype=F64)
    wide = ThinPlateSpline(control=control)
    in_square = torch.tensor([2.0, 1.0], dtype=F64)  # normalised units, of a 32×64 in a 32×32
    square = ThinPlateSpline(control=control * in_square)
    moved = wide.grid(wide.theta(movement.flatten(1)), (32, 64)) - regular_grid((32, 64))
    theta = square.theta((movement * in_square).flatten(1))
    there = square.grid(theta, (32, 32)) - regular_grid((32, 32))
    close(moved[:, :, 16:48] * in_square, there, 1e-6)


def test_of_all_maps_through_the_points_it_bends_the_least_in_pixels():
    """The bending energy, by differences: that of the spline made for squares is larger."""
    size = (48, 192)
    theta = ThinPlateSpline(4).theta(0.15 * torch.randn(1, 32, dtype=F64))

    def energy(spline):
        # On an output twice as wide and high, so that the tails of both are in.
        own = 2 * regular_grid(size, dtype=F64).view(-1, 2)
        moved = (spline.points(theta, own, size) - own).view(*size, 2) * 100
        xx = moved[1:-1].diff(n=2, dim=1)
        yy = moved[:, 1:-1].diff(n=2, dim=0)
        xy = moved.diff(dim=0).diff(dim=1)
        return (xx**2).sum() + (yy**2).sum() + 2 * (xy**2).sum()

    assert energy(ThinPlateSpline(4)) < energy(ThinPlateSpline(4, aspect=1))


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
def test_a_traced_spline_is_the_same(points):
    """Its system is inverted by an iteration there: to a thousandth of a pixel at least."""
    spline = ThinPlateSpline(**points)
    like = torch.zeros(1, dtype=F64)
    for aspect in (0.1, 0.5, 1.0, 3.0):
        exact = torch.from_numpy(_splines._solved(spline._control, aspect))
        traced = _splines._traced_system(spline._control, aspect, like)
        close(traced, exact, 1e-8)


def test_a_spline_compiled_at_any_shape():
    torch.compiler.reset()
    for spline in (ThinPlateSpline((2, 4)), ThinPlateSpline(control=SCATTERED, aspect=0.7)):
        compiled = torch.compile(
            lambda offsets, U, spline=spline: spline(offsets, U.shape[2:]),
            fullgraph=True,
            backend="aot_eager",
            dynamic=True,
        )
        for n, size in ((3, (8, 9)), (4, (30, 11))):
            offsets, U = 0.1 * torch.randn(n, spline.dof), torch.zeros(n, 1, *size)
            close(compiled(offsets, U), spline(offsets, size), 1e-5)


def test_control_points_say_what_is_wrong():
    for bad, words in (
        (torch.zeros(4, 3), "control must have shape (K, 2) with (x, y) last, but shape (4, 3)"),
        (SCATTERED[:2], "control must hold three points or more that are not all on one line"),
        (torch.arange(8.0).view(4, 2), "control must hold three points or more that are not all"),
        (SCATTERED * math.nan, "control must hold three points or more that are not all on one"),
        (SCATTERED[[0, 1, 2, 0]], "control must hold no point twice"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
            ThinPlateSpline(control=bad)
    for bad in ((2, 1), (2, 3, 4), (2.0, 3)):
        with pytest.raises(ValueError, match=r"^k must be a whole number, 2 or more, or \(rows, c"):
            ThinPlateSpline(bad)
    with pytest.raises(ValueError, match=r"^aspect must be height/width, a number above 0, but 0"):
        ThinPlateSpline(4, aspect=0)
    assert repr(ThinPlateSpline((2, 10))) == "ThinPlateSpline(k=(2, 10))"
    assert (
        repr(ThinPlateSpline(control=SCATTERED, aspect=2)) == "ThinPlateSpline(5 points, aspect=2)"
    )


# --- Volumes ---


def test_rotations_of_volumes_are_scipys():
    vectors = torch.cat([torch.randn(20, 3, dtype=F64), 1e-3 * torch.randn(9, 3, dtype=F64)])
    theirs = torch.from_numpy(ScipysRotation.from_rotvec(vectors.numpy()).as_matrix())
    theta = Rotation3d().theta(vectors)
    close(theta[:, :, :3], theirs)
    assert not theta[:, :, 3].any()
    offsets = torch.cat([torch.full((29, 1), 0.5), vectors, vectors], dim=1)
    close(Similarity3d().theta(offsets), torch.cat([1.5 * theirs, vectors[:, :, None]], dim=2))


def test_gradients_from_no_turn_at_all_and_from_a_small_one():
    for scale in (0.0, 1e-9, 1e-3, 1e-2, 1.0, 3.0):
        vectors = (scale * torch.randn(2, 3, dtype=F64)).requires_grad_()
        assert gradcheck(Rotation3d().theta, vectors)


def test_a_turn_about_z_is_that_of_each_slice():
    turn = torch.tensor([[0.4]], dtype=F64)
    still = torch.zeros(1, 2, dtype=F64)
    deep = Rotation3d()(torch.cat([still, turn], dim=1), (3, 6, 9))
    close(deep[:, 1, :, :, :2], Rotation()(turn, (6, 9)))
    # And a quarter turn about each axis, of volumes whose sides differ, is a turn of the array.
    for axis, dims in enumerate(((2, 3), (4, 2), (3, 4))):
        U = torch.rand(1, 1, 5, 5, 5, dtype=F64)
        vector = torch.zeros(1, 3, dtype=F64)
        vector[0, axis] = math.pi / 2
        V = F.grid_sample(U, Rotation3d()(vector, (5, 5, 5)), align_corners=False)
        close(V, torch.rot90(U, 1, dims), 1e-9)


def test_a_turn_keeps_lengths_in_voxels_or_in_the_unit_given():
    vectors = torch.randn(4, 3, dtype=F64)
    size = (4, 6, 10)
    for make, sides in (
        (Rotation3d(), (10, 6, 4)),
        (Rotation3d((20.0, 6.0, 10.0)), (10, 6, 20)),  # slices that are five voxels thick
    ):
        theta = make.theta_of(vectors, size)[:, :, :3]
        units = torch.tensor(sides, dtype=F64)
        turn = units[:, None] * theta / units
        close(turn @ turn.mT, torch.eye(3, dtype=F64).expand(4, 3, 3), 1e-9)
        close(torch.linalg.det(turn), torch.ones(4, dtype=F64), 1e-9)
    for bad in ((1, 2), (1, 2, 0)):
        with pytest.raises(ValueError, match=r"^extent must be \(depth, height, width\), each abo"):
            Rotation3d(bad)


def test_a_translation_moves_the_volume_along_x_y_and_z():
    U = torch.rand(1, 1, 4, 6, 8)
    for axis, side in ((4, 8), (3, 6), (2, 4)):
        offsets = torch.zeros(1, 3)
        offsets[0, 4 - axis] = 2 / side  # one voxel
        V = F.grid_sample(U, Translation3d()(offsets, (4, 6, 8)), align_corners=False)
        close(V.narrow(axis, 1, side - 1), U.narrow(axis, 0, side - 1), 1e-5)
