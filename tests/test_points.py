"""Points along a transform and back; transforms one after the other."""

import re

import cv2
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.optimize import root
from torch import nn
from torch.autograd import gradcheck

from stn_tutorial import affine
from stn_tutorial.grids import affine_grid_3d, regular_grid
from stn_tutorial.sampling import sample
from stn_tutorial.transformer import (
    Affine,
    Affine3d,
    Attention,
    Chain,
    PiecewiseAffine,
    Projective,
    Rotation,
    Rotation3d,
    Similarity,
    Similarity3d,
    SpatialTransformer,
    ThinPlateSpline,
    Transform,
    Translation,
    Translation3d,
)
from stn_tutorial.transformer.inverse import newton, tolerance

F64 = torch.float64


class Lens(Transform):
    """One of a user's own, by its points alone: it has no closed inverse."""

    dof = 1

    def theta(self, offsets):
        return offsets

    def points(self, theta, points, size=None):
        theta, points = self._checked_points(theta, points)
        return points * (1 + theta[:, :, None].abs() * points.square().sum(-1, keepdim=True))


class Pincushion(Lens):
    """One that reaches no further than 0.39 (at θ = 1), and folds back from there."""

    def points(self, theta, points, size=None):
        return 2 * points - super().points(theta, points, size)


MAKERS = {
    "translation": Translation,
    "attention": Attention,
    "rotation": Rotation,
    "similarity": Similarity,
    "affine": Affine,
    "projective": Projective,
    "mesh": PiecewiseAffine,
    "spline": ThinPlateSpline,
    "spline of a line": lambda: ThinPlateSpline((2, 5)),
    "a user's own": Lens,
    "chain": lambda: Chain(Rotation(), ThinPlateSpline(3), Projective()),
    "translation 3-D": Translation3d,
    "rotation 3-D": Rotation3d,
    "similarity 3-D": Similarity3d,
    "affine 3-D": Affine3d,
    "chain 3-D": lambda: Chain(Rotation3d(), Affine3d()),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def drawn(transform, n=3, reach=0.1, dtype=F64):
    """θ of random offsets, with a size that is neither square nor a cube, and its own positions."""
    size = (5, 7, 12)[-transform.axes :]
    offsets = (reach * torch.randn(n, transform.dof, dtype=F64)).to(dtype)
    if transform.axes == 2:
        own = regular_grid(size, dtype=dtype)
    else:
        own = affine_grid_3d(torch.eye(3, 4, dtype=dtype)[None], size)[0]
    return transform.theta_of(offsets, size), size, own.reshape(-1, transform.axes)


@each
def test_a_grid_is_the_points_of_the_regular_grid(make):
    transform = make()
    theta, size, own = drawn(transform)
    grid = transform.grid(theta, size)
    close(transform.points(theta, own, size).view(grid.shape), grid)
    close(transform.points(theta, own.expand(3, -1, -1), size).view(grid.shape), grid)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        moved = transform.points(theta.to(dtype), own.to(dtype), size)
        assert moved.dtype == torch.float32


@each
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_there_and_back(make, dtype):
    transform = make()
    theta, size, own = drawn(transform, reach=0.05, dtype=dtype)  # far from any fold
    there = transform.points(theta, own, size)
    back = transform.inverse_points(theta, there, size)
    assert back.dtype == dtype
    assert (back - own).abs().max() < (1e-4 if dtype == torch.float32 else 1e-9)
    # And the other way: what is stated is how far from the wanted point the map sends the found.
    again = transform.points(theta, transform.inverse_points(theta, own, size), size)
    assert (again - own).abs().max() <= 3 * tolerance(dtype)


@each
def test_gradients_of_points_both_ways(make):
    transform = make()
    theta, size, own = drawn(transform, n=2)
    some = (own[::17] + 0.013).requires_grad_()
    theta.requires_grad_()
    assert gradcheck(lambda t, p: transform.points(t, p, size), (theta, some))
    assert gradcheck(lambda t, p: transform.inverse_points(t, p, size), (theta, some))


@each
@pytest.mark.parametrize("way", ["points", "inverse_points"])
def test_points_say_what_is_wrong(make, way):
    transform = make()
    theta, size, own = drawn(transform)
    call = getattr(transform, way)
    for bad in (own[0], own[:, :1], own[None, None], own.expand(2, -1, -1)):
        with pytest.raises(ValueError, match=r"^(points|theta and points) must have "):
            call(theta, bad, size)
    with pytest.raises(TypeError, match=r"^points must be a torch\.Tensor, but a list was given"):
        call(theta, own.tolist(), size)
    if make is not Lens:
        with pytest.raises(ValueError, match=r"^theta must have shape \(N, "):
            call(theta[:, :-1], own, size)


@each
def test_points_of_no_transforms_and_of_no_points(make):
    transform = make()
    theta, size, own = drawn(transform)
    for way in (transform.points, transform.inverse_points):
        assert way(theta[:0], own, size).shape == (0, *own.shape)
        assert way(theta, own[:0], size).shape == (3, 0, transform.axes)


def test_a_landmark_is_where_its_picture_shows_it():
    """The whole way: a bright dot is read through the transform, and found where it was said."""
    torch.manual_seed(2)
    size, landmark = (96, 128), torch.tensor([[0.21, -0.34]])
    own = regular_grid(size)
    dot = torch.exp(-(own - landmark).square().sum(-1) / 0.005)[None, None]
    for make in (Similarity, Projective, ThinPlateSpline, PiecewiseAffine):
        transform = make()
        offsets = 0.05 * torch.randn(1, transform.dof)
        theta = transform.theta_of(offsets, size)
        V = sample(dot, transform.grid(theta, size))
        said = transform.inverse_points(theta, landmark, size)[0, 0]
        brightest = own.view(-1, 2)[V.argmax()]
        assert ((said - brightest).abs() < 1.5 / torch.tensor([64, 48])).all()


def test_projective_points_are_opencvs():
    torch.manual_seed(1)
    theta = Projective().theta(0.1 * torch.randn(1, 8, dtype=F64))
    points = 2 * torch.rand(9, 2, dtype=F64) - 1
    theirs = cv2.perspectiveTransform(points.numpy()[None], theta[0].numpy())
    close(Projective().points(theta, points), torch.from_numpy(theirs))
    inverse = theta[0].inverse().numpy()
    theirs = cv2.perspectiveTransform(points.numpy()[None], inverse)
    close(Projective().inverse_points(theta, points), torch.from_numpy(theirs), 1e-9)


def test_affine_points_are_affines():
    theta = Affine().theta(0.3 * torch.randn(3, 6, dtype=F64))
    points = torch.randn(3, 5, 2, dtype=F64)
    close(Affine().points(theta, points), affine.transform_points(theta, points))
    expected = affine.transform_points(affine.invert(theta), points)
    close(Affine().inverse_points(theta, points), expected, 1e-9)


def test_inverse_by_an_independent_solver():
    """A spline's inverse at scattered points: SciPy's spline, and SciPy's solver."""
    transform = ThinPlateSpline(4)
    theta = transform.theta(0.05 * torch.randn(1, 32, dtype=F64))
    home = transform.theta(torch.zeros(1, 32, dtype=F64))[0]
    spline = RBFInterpolator(home, theta[0], kernel="thin_plate_spline", degree=1)
    wanted = 1.2 * torch.rand(20, 2, dtype=F64) - 0.6
    found = transform.inverse_points(theta, wanted)[0]
    for one, goal in zip(found, wanted.numpy(), strict=True):
        theirs = root(lambda p, goal=goal: spline(p[None])[0] - goal, goal, tol=1e-12)
        close(one, torch.from_numpy(theirs.x), 1e-8)


def test_far_from_the_identity():
    """A half turn by a spline: the first guess is taken from all over the picture."""
    transform = ThinPlateSpline(4)
    home = transform.theta(torch.zeros(1, 32, dtype=F64))
    theta = -home + 0.05 * torch.randn(1, 16, 2, dtype=F64)
    points = regular_grid((9, 9), dtype=F64).view(-1, 2)
    there = transform.points(theta, points)
    close(transform.inverse_points(theta, there)[0], points, 1e-8)


def test_many_random_bends_are_all_inverted():
    """Where nothing folds, nothing is lost: splines and meshes of up to a third of a cell."""
    own = regular_grid((12, 12), dtype=F64).view(-1, 2)
    for transform in (ThinPlateSpline(4), PiecewiseAffine(4)):
        offsets = (2 * torch.rand(200, 32, dtype=F64) - 1) * 0.16
        theta = transform.theta(offsets)
        back = transform.inverse_points(theta, transform.points(theta, own))
        assert (back - own).abs().max() < 1e-8


def test_what_has_no_inverse_is_nan():
    points = torch.tensor([[0.3, 0.2]], dtype=F64)
    # An affine map that sees one line only; a homography onto a line; a spline onto a point.
    flat = torch.tensor([[-1.0, 0, 0, 0, 0, 0]], dtype=F64)
    assert Affine().inverse_points(Affine().theta(flat), points).isnan().all()
    line = torch.cat([flat, torch.zeros(1, 2)], dim=1)
    assert Projective().inverse_points(Projective().theta(line), points).isnan().all()
    deep = torch.zeros(1, 12, dtype=F64)
    deep[0, 0] = -1
    point = torch.tensor([[0.1, 0.2, 0.3]], dtype=F64)
    assert Affine3d().inverse_points(Affine3d().theta(deep), point).isnan().all()
    for transform in (ThinPlateSpline(3), PiecewiseAffine(3)):
        gathered = torch.zeros(1, 9, 2, dtype=F64)
        assert transform.inverse_points(gathered, points).isnan().all()
    # Of these two one position is out of its reach, one is not.
    far = torch.tensor([[0.9, 0.0], [0.1, 0.2]], dtype=F64)
    back = Pincushion().inverse_points(torch.tensor([[1.0]], dtype=F64), far)[0]
    assert back[0].isnan().all()
    assert back[1].isfinite().all()
    # NaN and infinity in what is wanted raise nothing either.
    odd = torch.tensor([[float("nan"), 0], [float("inf"), 0]], dtype=F64)
    theta = ThinPlateSpline(3).theta(torch.zeros(1, 18, dtype=F64))
    assert ThinPlateSpline(3).inverse_points(theta, odd).isnan().all()


def test_what_was_not_found_gives_no_gradient_of_nan():
    theta = torch.tensor([[1.0]], dtype=F64, requires_grad=True)
    back = Pincushion().inverse_points(theta, torch.tensor([[0.9, 0.0], [0.1, 0.2]], dtype=F64))
    back.nan_to_num(0.0).sum().backward()
    assert theta.grad.isfinite().all()
    assert theta.grad.any()


def test_newton_finds_a_known_root():
    found = newton(lambda p: p + p**3, torch.tensor([[[0.625, -0.101]]], dtype=F64))
    close(found, torch.tensor([[[0.5, -0.1]]], dtype=F64), 1e-7)


def test_points_in_inference_mode_and_under_autocast():
    transform = ThinPlateSpline(3)
    theta, size, own = drawn(transform, dtype=torch.float32)
    expected = transform.inverse_points(theta, own, size)
    with torch.inference_mode():
        close(transform.inverse_points(theta, own, size), expected, 1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(transform.inverse_points(theta, own, size), expected, 1e-5)
        there = transform.points(theta, own, size)
    assert there.dtype == torch.float32
    close(there.double(), transform.points(theta.double(), own.double(), size), 1e-5)


def test_a_grid_alone_has_no_points():
    class GridOnly(Transform):
        dof = 1

        def theta(self, offsets):
            return offsets

        def grid(self, theta, size):
            return regular_grid(size).expand(len(theta), -1, -1, -1)

    transform, message = GridOnly(), "GridOnly defines a grid of its own, and must define points"
    with pytest.raises(NotImplementedError, match=f"^{re.escape(message)}"):
        transform.points(torch.zeros(1, 1), torch.zeros(1, 2))
    with pytest.raises(NotImplementedError, match=f"^{re.escape(message)}"):
        transform.inverse_points(torch.zeros(1, 1), torch.zeros(1, 2))
    assert transform(torch.zeros(2, 1), (3, 4)).shape == (2, 3, 4, 2)
    # It may still stand last in a chain, whose grid asks for no points of the last.
    chain = Chain(Rotation(), transform)
    close(chain(torch.zeros(1, 2), (3, 4))[0], regular_grid((3, 4)))


def test_a_chain_of_affine_maps_is_their_composition():
    """In the order of `affine.compose`: the first is done first to the picture."""
    chain = Chain(Rotation(), Translation(), Affine())
    size = (6, 9)
    offsets = 0.3 * torch.randn(4, 9, dtype=F64)
    theta = chain.theta(offsets, size)
    parts = (
        Rotation().theta(offsets[:, :1], size),
        Translation().theta(offsets[:, 1:3]),
        Affine().theta(offsets[:, 3:]),
    )
    for part, own in zip(parts, chain.thetas(theta), strict=True):
        assert torch.equal(part, own)
    composed = affine.compose(*parts)
    close(chain.grid(theta, size), Affine().grid(composed, size))
    points = torch.randn(5, 2, dtype=F64)
    close(chain.inverse_points(theta, points), Affine().inverse_points(composed, points), 1e-9)


def test_a_chain_reads_once():
    """Two splines: as two readings of a smooth picture, one after the other, up to their blur."""
    size = (128, 128)
    own = regular_grid(size, dtype=F64)
    smooth = (2 * own[..., 0] + torch.sin(3 * own[..., 1]))[None, None]
    chain = Chain(ThinPlateSpline(3), ThinPlateSpline(3))
    offsets = 0.04 * torch.randn(1, 36, dtype=F64)
    V = sample(smooth, chain(offsets, size), padding="border")
    first = sample(smooth, ThinPlateSpline(3)(offsets[:, :18], size), padding="border")
    second = sample(first, ThinPlateSpline(3)(offsets[:, 18:], size), padding="border")
    inside = (slice(None), slice(None), slice(16, -16), slice(16, -16))
    assert (V - second)[inside].abs().max() < 1e-3
    # And what is moved out of the picture and back in is not lost on the way.
    there_and_back = Chain(Translation(), Translation())(
        torch.tensor([[1.5, 0, -1.5, 0]], dtype=F64), size
    )
    close(there_and_back[0], own)


def test_a_chain_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"^Chain expects two transforms or more, but 1 "):
        Chain(Rotation())
    with pytest.raises(TypeError, match=r"^Chain expects Transform objects, but a type was given"):
        Chain(Rotation(), Affine)
    with pytest.raises(ValueError, match=r"^Chain expects transforms of pictures or of volumes"):
        Chain(Rotation(), Affine3d())


def test_a_chain_in_a_transformer():
    class Localise(nn.Module):
        def forward(self, U):
            return U.mean((2, 3))

    module = SpatialTransformer(Localise(), 3, Chain(Similarity(), ThinPlateSpline(3)))
    U = torch.rand(2, 3, 20, 30)
    V, theta = module(U, return_theta=True)
    assert theta.shape == (2, 6 + 18)
    torch.testing.assert_close(V, U, rtol=0, atol=1e-4)
    module(U).square().sum().backward()
    assert (module.regression.bias.grad != 0).all()
    assert "ThinPlateSpline(k=3)" in repr(module)
