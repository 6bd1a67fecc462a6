"""Each transform, each localisation net, and `SpatialTransformer` with every one of them."""

import copy
import functools
import io
import itertools
import math
import pickle
import re

import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial import affine, transformer
from stn_tutorial.grids import affine_grid, affine_grid_3d, control_points, regular_grid
from stn_tutorial.transformer import (
    Affine,
    Affine3d,
    Attention,
    Chain,
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    PiecewiseAffine,
    Projective,
    Rotation,
    Rotation3d,
    SharedLocalisation,
    Similarity,
    Similarity3d,
    SpatialTransformer,
    ThinPlateSpline,
    Transform,
    Translation,
    Translation3d,
)

F64 = torch.float64


class Swirl(Transform):
    """One of a user's own: turned by an angle that grows towards the middle."""

    dof = 1

    def theta(self, offsets):
        return offsets

    def grid(self, theta, size):
        x, y = regular_grid(size, dtype=theta.dtype, device=theta.device).unbind(-1)
        angle = theta[:, :, None] * (1 - (x**2 + y**2).sqrt()).clamp(min=0)
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


class Mirror(Transform):
    """Another, with the least that a class needs: θ is affine, and so is the grid."""

    dof = 1

    def theta(self, offsets):
        rows = torch.tensor([[1.0, 0, 0], [0, 0, 0]], dtype=offsets.dtype)
        return affine.identity(len(offsets), dtype=offsets.dtype) - offsets[:, :, None] * rows


FLAT = {
    "translation": (Translation, 2, (2, 3)),
    "attention": (Attention, 3, (2, 3)),
    "rotation": (Rotation, 1, (2, 3)),
    "rotation 4:3": (lambda: Rotation(0.75), 1, (2, 3)),
    "similarity": (Similarity, 4, (2, 3)),
    "similarity 4:3": (lambda: Similarity(0.75), 4, (2, 3)),
    "affine": (Affine, 6, (2, 3)),
    "projective": (Projective, 8, (3, 3)),
    "piecewise affine": (PiecewiseAffine, 32, (16, 2)),
    "thin-plate spline": (ThinPlateSpline, 32, (16, 2)),
    "thin-plate spline of 9": (lambda: ThinPlateSpline(3), 18, (9, 2)),
    "thin-plate spline of a line": (lambda: ThinPlateSpline((2, 5)), 20, (10, 2)),
    "thin-plate spline 4:3": (lambda: ThinPlateSpline(3, aspect=0.75), 18, (9, 2)),
    "chain": (lambda: Chain(Rotation(), ThinPlateSpline(3), Projective()), 27, (33,)),
    "a user's own": (Swirl, 1, (1,)),
    "another of a user's": (Mirror, 1, (2, 3)),
}
DEEP = {
    "affine 3-D": (Affine3d, 12, (3, 4)),
    "translation 3-D": (Translation3d, 3, (3, 4)),
    "rotation 3-D": (Rotation3d, 3, (3, 4)),
    "rotation 3-D of 3:2:1": (lambda: Rotation3d((3, 2, 1)), 3, (3, 4)),
    "similarity 3-D": (Similarity3d, 7, (3, 4)),
    "chain 3-D": (lambda: Chain(Rotation3d(), Translation3d()), 6, (24,)),
}
ALL = {**FLAT, **DEEP}
MAKERS = {name: make for name, (make, _, _) in ALL.items()}
# For what takes long: each class of the package once.
ONCE = {name: make for name, make in MAKERS.items() if isinstance(make, type) and make is not Swirl}
ONCE.pop("another of a user's")
# Of six points: a compiler takes a constant's size that is by chance also the picture's for the
# same, and compiles once more when the picture's changes (nine points beside a side of nine).
ONCE["chain"] = lambda: Chain(Rotation(), ThinPlateSpline((2, 3)), Projective())

each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
each_once = pytest.mark.parametrize("make", ONCE.values(), ids=ONCE)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def in_pixels(gap):
    """The greatest difference between two grids, in pixels of a picture of the grid's own size."""
    return (gap.abs() * torch.tensor(gap.shape[1:-1]).flip(0) / 2).max()


def picture(transform, n=2, channels=1, side=8, **options):
    """Not square, so that no axis is taken for another: (n, channels, side, side + 1)."""
    depth = [side - 2] if transform.axes == 3 else []
    return torch.rand(n, channels, *depth, side, side + 1, **options)


class Localise(nn.Module):
    """Three numbers of any picture or volume."""

    def forward(self, U):
        flat = U.flatten(1)
        return torch.stack([flat.mean(1), flat.amax(1), flat[:, :5].sum(1)], dim=1)


def look(transform, reach=0.1, **settings):
    """A transformer that has learned something: another θ for each picture."""
    module = SpatialTransformer(Localise(), 3, transform, **settings)
    with torch.no_grad():
        module.regression.weight.normal_(std=reach / 3)
        module.regression.bias.normal_(std=reach)
    return module


# --- Transforms ---


@pytest.mark.parametrize(("make", "dof", "shape"), ALL.values(), ids=ALL)
def test_offsets_theta_and_grid_have_their_shapes(make, dof, shape):
    transform = make()
    assert transform.dof == dof
    size = (4, 5, 6)[-transform.axes :]
    for dtype in (torch.float32, F64):
        for n in (3, 1, 0):
            offsets = 0.1 * torch.randn(n, dof, dtype=dtype)
            theta = transform.theta_of(offsets, size)
            assert theta.shape == (n, *shape)
            grid = transform(offsets, size)
            assert grid.shape == (n, *size, transform.axes)
            assert theta.dtype == grid.dtype == dtype
            assert torch.equal(grid, transform.grid(theta, size))
    assert not list(transform.parameters())
    assert not transform.state_dict()


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_zero_offsets_are_the_identity_bit_for_bit(make, dtype):
    transform = make()
    size = (4, 27, 33)[-transform.axes :]
    grid = transform(torch.zeros(2, transform.dof, dtype=dtype), size)
    assert grid.dtype == (F64 if dtype == F64 else torch.float32)
    if transform.axes == 2:
        own = regular_grid(size, dtype=grid.dtype)
    else:
        own = affine_grid_3d(torch.eye(3, 4, dtype=grid.dtype)[None], size)[0]
    assert torch.equal(grid, own.expand_as(grid))


@each
def test_every_transform_has_a_gradient(make):
    transform = make()
    offsets = (0.1 * torch.randn(2, transform.dof, dtype=F64)).requires_grad_()
    size = (2, 3, 4)[-transform.axes :]
    assert gradcheck(lambda o: transform(o, size), offsets)
    # From zero, where each begins, every offset moves something.
    start = torch.zeros(1, transform.dof, dtype=F64, requires_grad=True)
    weights = torch.randn(1, *size, transform.axes, dtype=F64)
    slope = torch.autograd.grad((transform(start, size) * weights).sum(), start)[0]
    assert (slope != 0).all()


@each
def test_every_transform_says_what_is_wrong(make):
    transform = make()
    size = (4, 5, 6)[-transform.axes :]
    good = torch.zeros(2, transform.dof)
    calls = [lambda o: transform(o, size)]
    if make not in (Swirl, Mirror):
        calls.append(transform.theta)
    for call in calls:
        for bad in (good[0], torch.zeros(2, transform.dof + 1), torch.zeros(2, 2 * transform.dof)):
            message = (
                f"offsets must have shape (N, {transform.dof}), "
                f"but shape {tuple(bad.shape)} was given"
            )
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                call(bad)
        with pytest.raises(
            TypeError, match=r"^offsets must have a floating dtype, but torch\.int6"
        ):
            call(good.long())
        with pytest.raises(
            TypeError, match=r"^offsets must be a torch\.Tensor, but a list was given"
        ):
            call(good.tolist())
    with pytest.raises(ValueError, match=r"^size must be \(.*height, width\).* but 28 was given$"):
        transform(good, 28)


def test_settings_say_what_is_wrong():
    for make in (Rotation, Similarity):
        for bad in (0, -1.5, math.nan, math.inf, (28, 28), "1"):
            message = f"aspect must be height/width, a number above 0, but {bad!r} was given"
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                make(bad)
        assert repr(make(0.75)) == f"{make.__name__}(aspect=0.75)"
    for make, words in ((PiecewiseAffine, ""), (ThinPlateSpline, ", or (rows, columns)")):
        for bad in (1, 2.0, True, "4"):
            message = f"k must be a whole number, 2 or more{words}, but {bad!r} was given"
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                make(bad)
        assert repr(make(5)) == f"{make.__name__}(k=5)"
    with pytest.raises(NotImplementedError, match=r"^Transform must define theta\(offsets\)$"):
        Transform().theta(torch.zeros(1, 1))


def test_theta_known_values():
    """No two offsets may be taken for each other."""
    one = torch.tensor([[0.5, 2, 3, 4, 5, 6, 7, 8]])
    assert Translation().theta(one[:, :2]).tolist() == [[[1, 0, -0.5], [0, 1, -2]]]
    assert Attention().theta(one[:, :3]).tolist() == [[[1.5, 0, 2], [0, 1.5, 3]]]
    assert Similarity().theta(one[:, :4]).tolist() == [[[1.5, -2, 3], [2, 1.5, 4]]]
    assert Similarity(0.5).theta(one[:, :4]).tolist() == [[[1.5, -1, 3], [4, 1.5, 4]]]
    assert Affine().theta(one[:, :6]).tolist() == [[[1.5, 2, 3], [4, 6, 6]]]
    assert Projective().theta(one).tolist() == [[[1.5, 2, 3], [4, 6, 6], [7, 8, 1]]]
    twelve = torch.arange(12.0)[None]
    expected = [[[1, 1, 2, 3], [4, 6, 6, 7], [8, 9, 11, 11]]]
    assert Affine3d().theta(twelve).tolist() == expected
    for make in (PiecewiseAffine, ThinPlateSpline):
        theta = make(2).theta(one)
        assert theta.tolist() == [[[-0.5, 1], [4, 3], [4, 7], [8, 9]]]


@given(st.floats(-400, 400), st.floats(0.2, 5))
def test_rotation_turns_the_picture_as_affine_rotation_does(degrees, aspect):
    height, width = 1000, round(1000 / aspect)
    turn = affine.rotation(degrees, dtype=F64)
    offsets = torch.tensor([[math.radians(degrees)]], dtype=F64)
    close(Rotation().theta(offsets), turn)
    corrected = affine.correct_aspect(turn, (height, width))
    close(Rotation(height / width).theta(offsets), corrected, 1e-9)


@given(
    st.floats(-180, 180), st.floats(0.3, 3), st.floats(-1, 1), st.floats(-1, 1), st.floats(0.2, 5)
)
def test_similarity_is_a_rotation_a_scaling_and_a_shift(degrees, scale, x, y, aspect):
    cos, sin = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    theta = Similarity(aspect).theta(torch.tensor([[cos - 1, sin, x, y]], dtype=F64))
    # What the picture does: it is moved last, and so the shift is read first.
    turned = affine.compose(affine.rotation(degrees, dtype=F64), affine.scaling(scale, dtype=F64))
    height = 10_000
    turned = affine.correct_aspect(turned, (height, round(height / aspect)))
    shift = torch.tensor([[[0, 0, x], [0, 0, y]]], dtype=F64)
    torch.testing.assert_close(theta, turned + shift, rtol=1e-3, atol=1e-9)


@given(st.floats(0.2, 5), st.floats(-1, 1), st.floats(-1, 1))
def test_attention_is_a_translation_and_then_a_scaling(s, x, y):
    theta = Attention().theta(torch.tensor([[s - 1, x, y]], dtype=F64))
    parts = (affine.translation(-x, -y, dtype=F64), affine.scaling(1 / s, dtype=F64))
    close(theta, affine.compose(*parts))
    close(theta, affine.crop((x - s, y - s, x + s, y + s), dtype=F64))


@given(st.floats(0.2, 5), st.floats(-1, 1), st.floats(-1, 1))
def test_attention_at_a_fixed_scale_chooses_the_place_alone(s, x, y):
    look = Attention(scale=s)
    assert look.dof == 2
    assert repr(look) == f"Attention(scale={s:g})"
    offsets = torch.tensor([[x, y]], dtype=F64)
    close(look.theta(offsets), Attention().theta(torch.tensor([[s - 1, x, y]], dtype=F64)))
    assert torch.autograd.gradcheck(look.theta, offsets.requires_grad_())


@pytest.mark.parametrize("scale", [0, -1, math.inf, math.nan, "half"])
def test_attention_at_no_scale(scale):
    with pytest.raises(ValueError, match="scale must be a number above 0, but"):
        Attention(scale=scale)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_translation_moves_the_picture_as_affine_translation_does(x, y):
    theta = Translation().theta(torch.tensor([[x, y]], dtype=F64))
    close(theta, affine.translation(x, y, dtype=F64))


@pytest.mark.parametrize("make", [PiecewiseAffine, ThinPlateSpline])
@pytest.mark.parametrize("k", [2, 4, 6])
def test_control_points_that_move_affinely_are_affine(make, k):
    offsets = 0.3 * torch.randn(3, 6, dtype=F64)
    theta = Affine().theta(offsets)
    points = control_points(k, dtype=F64)
    movements = affine.transform_points(theta, points) - points
    close(make(k)(movements.flatten(1), (9, 7)), Affine()(offsets, (9, 7)))


def test_smaller_families_lie_in_larger_ones():
    """A rotation is a similarity, that is affine, that is projective, that a volume can do too."""
    turn = 0.4 * torch.randn(3, 1, dtype=F64)
    size = (6, 5)
    grid = Rotation(1.2)(turn, size)
    still = torch.zeros(3, 2, dtype=F64)
    similar = torch.cat([turn.cos() - 1, turn.sin(), still], dim=1)
    close(Similarity(1.2)(similar, size), grid)
    theta = Similarity(1.2).theta(similar)
    offsets = (theta - torch.eye(2, 3)).flatten(1)
    close(Affine()(offsets, size), grid)
    close(Projective()(torch.cat([offsets, still], dim=1), size), grid)
    deep = torch.zeros(3, 3, 4, dtype=F64)
    deep[:, :2, :2], deep[:, :2, 3] = theta[:, :, :2] - torch.eye(2), theta[:, :, 2]
    volume = Affine3d()(deep.flatten(1), (3, *size))
    close(volume[:, 1, :, :, :2], grid)
    assert volume[..., 2].unique().numel() == 3


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_pixels(make, dtype):
    """A transform on its own, under autocast and fed with what a layer there gives."""
    transform = make()
    offsets = (0.1 * torch.randn(2, transform.dof)).to(dtype)
    size = (4, 224, 224)[-transform.axes :]
    exact = transform(offsets.double(), size) if make is not Mirror else None
    with torch.autocast("cpu", dtype=dtype):
        grids = transform(offsets, size), transform(offsets.float(), size)
    for grid in grids:
        assert grid.dtype == torch.float32
        if exact is not None:
            assert in_pixels(grid - exact) < 2e-4


# --- SpatialTransformer with each of them ---


@each
def test_a_new_transformer_returns_the_picture(make):
    transform = make()
    U = picture(transform, channels=3, side=27)
    V = SpatialTransformer(Localise(), 3, transform)(U)
    assert (V - U).abs().max() <= 1e-5


@each
def test_reads_where_the_grid_says_at_the_input_and_on_feature_maps(make):
    transform = make()
    for channels in (1, 16):
        U = picture(transform, channels=channels, dtype=F64)
        module = look(transform).double()
        V, theta = module(U, return_theta=True)
        assert torch.equal(theta, module.theta(U))
        offsets = module.regression(module.localisation(U))
        grid = transform(offsets, U.shape[2:])
        close(V, F.grid_sample(U, grid, align_corners=False))
        assert (V - U).abs().max() > 1e-3
    # Between two layers, with a size of its own.
    size = (3, 5, 4)[-transform.axes :]
    layer = (nn.Conv2d if transform.axes == 2 else nn.Conv3d)(1, 4, 3, padding=1)
    net = nn.Sequential(layer, look(transform, size=size))
    V = net(picture(transform))
    assert V.shape == (2, 4, *size)
    V.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@each
def test_every_transformer_has_a_gradient(make):
    transform = make()
    module = look(transform).double()
    U = picture(transform, n=1, side=4, dtype=F64).requires_grad_()
    bias = module.regression.bias

    def read(U, bias):
        state = {"regression.bias": bias}
        return torch.func.functional_call(module, state, (U,))

    assert gradcheck(read, (U, bias), atol=1e-5)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_every_grid_alone(make, dtype, monkeypatch):
    """In pixels at 224: what the last layer said is rounded once, and no more."""
    seen = []

    def keep(U, grid, *args, **kwargs):
        seen.append(grid)
        return real(U, grid, *args, **kwargs)

    real = F.grid_sample
    monkeypatch.setattr(F, "grid_sample", keep)
    transform = make()
    module = look(transform, size=(2, 224, 224)[-transform.axes :])
    said = []
    module.regression.register_forward_hook(lambda layer, args, out: said.append(out))
    U = picture(transform)
    with torch.autocast("cpu", dtype=dtype):
        V, theta = module(U, return_theta=True)
    assert said[0].dtype == torch.float32  # the last layer too stands outside autocast
    assert theta.dtype == V.dtype == torch.float32
    if make is not Mirror:
        exact = transform.grid(transform.theta_of(said[0].double(), U.shape[2:]), module.size)
        assert in_pixels(seen[0] - exact) < 2e-4


@pytest.mark.parametrize("make", [Rotation, Similarity, Affine, Projective, Affine3d])
def test_no_matrix_product_rounds_a_map_of_few_numbers(make):
    """Where float32 products may be made of bfloat16, PyTorch's own grid is half a pixel off."""
    transform = make()
    offsets, size = 0.1 * torch.randn(4, transform.dof), (2, 64, 64)[-transform.axes :]
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        grid = transform(offsets, size)
    finally:
        torch.set_float32_matmul_precision(before)
    assert (grid - transform(offsets.double(), size)).abs().max() * 112 < 2e-4


@each_once
def test_every_transformer_on_the_meta_device(make):
    transform = make()
    with torch.device("meta"):
        module = SpatialTransformer(Localise(), 3, transform)
        V, theta = module(picture(transform), return_theta=True)
    assert V.device.type == theta.device.type == "meta"
    assert V.shape == picture(transform).shape


@each
def test_every_transformer_takes_an_empty_batch(make):
    transform = make()
    module = SpatialTransformer(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), 3, transform)
    module(picture(transform))
    V, theta = module(picture(transform, n=0), return_theta=True)
    assert V.shape == picture(transform, n=0).shape
    assert theta.shape[0] == 0
    V.sum().backward()
    assert not module.regression.weight.grad.any()


@each
def test_every_transformer_can_be_copied_pickled_and_loaded(make):
    transform = make()
    module, U = look(transform, mode="nearest", padding="border"), picture(transform)
    V = module(U)
    clone = copy.deepcopy(module)
    assert torch.equal(clone(U), V)
    assert torch.equal(pickle.loads(pickle.dumps(module))(U), V)
    with torch.no_grad():
        clone.regression.bias += 1
    assert torch.equal(module(U), V)
    other = look(make(), mode="nearest", padding="border")
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    assert sorted(module.state_dict()) == ["regression.bias", "regression.weight"]
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(other(U), V)


def test_evaluation_first_and_training_after():
    """What the spline kept in inference mode serves training too."""
    module, U = look(ThinPlateSpline(3)), torch.rand(2, 1, 13, 11)
    with torch.inference_mode():
        V = module.eval()(U)
    module.train()(U).square().sum().backward()
    assert module.regression.bias.grad.any()
    assert torch.equal(module(U), V)


def test_volumes():
    """One sees a volume, the other pictures, and each says so."""
    flat, deep = look(Affine()), look(Affine3d())
    with pytest.raises(ValueError, match=r"^U must have shape \(N, C, H, W\), but shape \(2, 1, 6"):
        flat(picture(Affine3d()))
    with pytest.raises(
        ValueError, match=r"^U must have shape \(N, C, D, H, W\), but shape \(2, 1,"
    ):
        deep(picture(Affine()))
    with pytest.raises(
        ValueError, match=r"^U must have at least one voxel, but shape \(2, 1, 0, 4"
    ):
        deep(torch.zeros(2, 1, 0, 4, 4))
    with pytest.raises(
        ValueError, match=r"^size must be \(depth, height, width\), three.*\(4, 4\)"
    ):
        look(Affine3d(), size=(4, 4))
    with pytest.raises(
        ValueError, match=r"^mode must be one of nearest, bilinear, but 'bicubic' w"
    ):
        look(Affine3d(), mode="bicubic")
    # A quarter turn about the z axis, in each of its slices.
    U = torch.rand(1, 1, 3, 5, 5)
    module = SpatialTransformer(Localise(), 3, Affine3d())
    module.regression.bias.data = torch.tensor([-1.0, -1, 0, 0, 1, -1, 0, 0, 0, 0, 0, 0])
    torch.testing.assert_close(module(U), torch.rot90(U, 1, (3, 4)), rtol=0, atol=1e-5)


def test_a_class_is_no_transform():
    for bad, name in ((Affine, "Affine"), ("affine", "str"), (nn.Identity(), "Identity")):
        message = f"transform must be a Transform object, as Affine() is, but {name} was given"
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            SpatialTransformer(Localise(), 3, bad)


def test_a_users_mistakes_are_named():
    class TooFew(Swirl):
        def grid(self, theta, size):
            return super().grid(theta, size)[:1]

    class Turned(Swirl):
        def grid(self, theta, size):
            return super().grid(theta, size).transpose(1, 2)

    class Words(Swirl):
        def grid(self, theta, size):
            return "grid"

    U = picture(Swirl())
    for bad, shape in ((TooFew, (1, 8, 9, 2)), (Turned, (2, 9, 8, 2))):
        message = f"the transform's grid must have shape (2, 8, 9, 2), but shape {shape} was given"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            look(bad())(U)
    with pytest.raises(
        TypeError, match=r"^the transform's grid must be a torch\.Tensor, but a str"
    ):
        look(Words())(U)


# --- Localisation nets ---


def test_fully_connected_localisation():
    net = FullyConnectedLocalisation(784)
    assert [layer.out_features for layer in net if isinstance(layer, nn.Linear)] == [32, 32, 32]
    assert net.features == 32
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 32)
    net = FullyConnectedLocalisation(48, widths=(5, 7))
    assert net.features == 7
    assert net(torch.rand(0, 3, 4, 4)).shape == (0, 7)
    with pytest.raises(
        ValueError, match=r"^widths must name at least one layer, but none was give"
    ):
        FullyConnectedLocalisation(784, ())


@pytest.mark.parametrize("size", [(28, 28), (29, 33), (60, 60), [42, 42]], ids=str)
def test_convolutional_localisation(size):
    net = ConvolutionalLocalisation(3, size, filters=4, features=6)
    assert net.features == 6
    assert net(torch.rand(2, 3, *size)).shape == (2, 6)
    assert ConvolutionalLocalisation(1, size).features == 20


def test_convolutional_localisation_says_what_is_wrong():
    for small in ((27, 28), (28, 27), (1, 1)):
        message = f"size must be at least (28, 28), but {small} was given"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            ConvolutionalLocalisation(1, small)
    with pytest.raises(
        ValueError, match=r"^size must be \(height, width\), two.*but 28 was given$"
    ):
        ConvolutionalLocalisation(1, 28)


class Classifier(nn.Module):
    """Straightened first, then classified by the very layers that helped to straighten."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2)
        )
        shared = SharedLocalisation(self.first, (1, 8, 9), features=5)
        self.look = SpatialTransformer(shared, shared.features)
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(4 * 6 * 7, 3))

    def forward(self, U):
        return self.last(self.first(self.look(U)))


def test_shared_layers_are_counted_once_and_stay_shared():
    net = Classifier()
    own = sum(p.numel() for p in net.parameters())
    parts = (net.first, net.look.localisation[2], net.look.regression, net.last)
    assert own == sum(p.numel() for part in parts for p in part.parameters())
    assert net.look.localisation[0] is net.first
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.look.localisation[0] is other.first
        assert other.first is not net.first
    other = Classifier()
    other.load_state_dict(net.state_dict())
    U = torch.rand(2, 1, 8, 9)
    assert torch.equal(other.eval()(U), net.eval()(U))


def test_shared_layers_learn_from_both_paths():
    net = Classifier().eval()  # the same statistics and no chance, so that the paths add up
    with torch.no_grad():
        net.look.regression.weight.normal_(std=0.1)
    U = torch.rand(2, 1, 8, 9)
    weight = net.first[0].weight

    def slope(localise, classify):
        """The gradient that reaches the shared layers by the paths that are left open."""
        net.zero_grad()
        features = net.look.localisation(U)
        shut = features if localise else features.detach()
        V = F.grid_sample(
            U,
            net.look.grid(net.look.transform.theta(net.look.regression(shut)), U.shape[2:]),
            align_corners=False,
        )
        state = {k: v if classify else v.detach() for k, v in net.first.named_parameters()}
        out = net.last(torch.func.functional_call(net.first, state, (V,)))
        return torch.autograd.grad(out.square().sum(), weight)[0]

    both, one, other = slope(True, True), slope(True, False), slope(False, True)
    assert one.abs().max() > 1e-6
    assert other.abs().max() > 1e-6
    torch.testing.assert_close(both, one + other, rtol=1e-3, atol=1e-6)
    net.zero_grad()
    net(U).square().sum().backward()
    torch.testing.assert_close(weight.grad, both, rtol=1e-3, atol=1e-6)


def test_the_trial_of_shared_layers_leaves_no_trace():
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.BatchNorm2d(4))
    )
    layers[1].eval()  # frozen for good, inside layers that train
    layers[2][0].eval()
    modes = [module.training for module in layers.modules()]
    assert len(set(modes)) == 2
    before = copy.deepcopy(layers.state_dict())
    net = SharedLocalisation(layers, (1, 8, 9))
    assert [module.training for module in layers.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in layers.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in layers.parameters())
    assert net(torch.rand(2, 1, 8, 9)).shape == (2, 32)
    with pytest.raises(RuntimeError, match="channels"):
        SharedLocalisation(layers, (3, 8, 9))
    assert [module.training for module in layers.modules()] == modes


def test_shared_layers_of_any_kind():
    assert SharedLocalisation(nn.Flatten(), (1, 4, 4), 3)(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    double = SharedLocalisation(nn.Conv2d(1, 2, 3).double(), (1, 4, 4)).double()
    assert double(torch.rand(2, 1, 4, 4, dtype=F64)).dtype == F64
    deep = SharedLocalisation(nn.Conv3d(1, 2, 3), torch.Size((1, 4, 4, 5)))
    U = torch.rand(2, 1, 4, 4, 5)
    assert (SpatialTransformer(deep, 32, Affine3d())(U) - U).abs().max() < 1e-5
    for bad in ((28, 28), (1, 0, 4), 28, (1, 2.5, 3)):
        message = (
            "shape must be (channels, height, width), three positive whole numbers, "
            f"but {bad!r} was given"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            SharedLocalisation(nn.Flatten(), bad)


NETS = {
    "fully connected": lambda: FullyConnectedLocalisation(784),
    "convolutional": lambda: ConvolutionalLocalisation(1, (28, 28)),
    "shared": lambda: SharedLocalisation(nn.Conv2d(1, 4, 5), (1, 28, 28)),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_every_net_learns_from_the_second_step_on(make):
    net = make()
    module = SpatialTransformer(net, net.features, Attention())
    U = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        assert (module(U) - U).abs().max() <= 1e-4
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4)
    for _ in range(2):
        optimiser.zero_grad()
        module(U).square().sum().backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


# --- Compiled and exported ---


class Several(nn.Module):
    """A transformer with each transform, in one module: a compiler's start takes long."""

    def __init__(self, names):
        super().__init__()
        self.parts = nn.ModuleDict({name.replace(" ", "-"): look(ONCE[name]()) for name in names})

    def forward(self, U):
        return {name: part(U, return_theta=True) for name, part in self.parts.items()}


FLAT_ONCE = [name for name in ONCE if name in FLAT]
SEVERAL = {"pictures": FLAT_ONCE, "volumes": [name for name in ONCE if name in DEEP]}
# Apart, since a compilation that meets its float starts over, with all that it has done.
PROJECTIVE = ["projective", "chain"]
OTHERS = [name for name in FLAT_ONCE if name not in PROJECTIVE]


def varied(module):
    """Other batches, and then other sizes too."""
    (first, *_) = module.parts.values()
    yield from (picture(first.transform, n=n) for n in (2, 5, 1))
    yield picture(first.transform, n=3, side=11)


def test_the_next_tests_meet_every_transform():
    theirs = {getattr(transformer, name) for name in transformer.__all__}
    theirs = {c for c in theirs if isinstance(c, type) and issubclass(c, Transform)} - {Transform}
    assert {type(make()) for make in ONCE.values()} == theirs
    assert sorted(itertools.chain(*SEVERAL.values())) == sorted(ONCE)


@pytest.mark.parametrize(
    "names", [OTHERS, PROJECTIVE, SEVERAL["volumes"]], ids=lambda names: names[-1]
)
def test_without_a_graph_break_at_any_size(names):
    """One graph for all sizes, forward and backward, and the same numbers."""
    torch.compiler.reset()
    module = Several(names)
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=backend, dynamic=True)
    first, *_, larger = varied(module)
    graphs = []
    for U in (first, larger):
        results = []
        for run in (module, compiled):
            seen = run(U)
            loss = sum(V.square().sum() for V, _ in seen.values())
            biases = [part.regression.bias for part in module.parts.values()]
            results.append((seen, torch.autograd.grad(loss, biases)))
        close(*results, 1e-4)
        graphs.append(backend.frame_count)
    assert graphs[0] == graphs[1]  # nothing was compiled anew


@functools.cache
def exported(kind):
    """A program for batches and pictures of any size, made once for the next two tests."""
    torch.manual_seed(0)
    module = Several(SEVERAL[kind]).eval()
    U = next(varied(module))
    axes = {axis: torch.export.Dim(f"side{axis}", min=4) for axis in range(2, U.ndim)}
    axes[0] = torch.export.Dim("N")
    return module, torch.export.export(module, (U,), dynamic_shapes=(axes,))


@pytest.mark.parametrize("kind", SEVERAL)
def test_every_transformer_can_be_exported(kind):
    module, program = exported(kind)
    run = program.module()
    for U in varied(module):
        close(run(U), module(U), 1e-5)


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnxruntime_agrees(kind):
    """Of volumes too: ONNX has their `GridSample` from operator set 20 on, and so has the run."""
    module, program = exported(kind)
    stored = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False).model_proto
    session = onnxruntime.InferenceSession(
        stored.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    for U in varied(module):
        theirs = map(torch.from_numpy, session.run(None, {given.name: U.numpy()}))
        ours = [tensor.detach() for pair in module(U).values() for tensor in pair]
        close(list(theirs), ours, 1e-4)


# --- CUDA ---


@needs_cuda
@each_once
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_every_transformer_on_cuda(make, dtype):
    """As on the CPU, forward and backward."""
    transform = make()
    module, U = look(transform).to(dtype), picture(transform, channels=2, dtype=dtype)
    results = []
    for device in ("cpu", "cuda"):
        V, theta = module.to(device)(U.to(device), return_theta=True)
        slope = torch.autograd.grad(V.square().sum(), module.regression.bias)[0]
        results.append((V.cpu(), theta.cpu(), slope.cpu()))
    close(*results, 1e-3 if dtype == torch.float32 else 1e-9)


@needs_cuda
@each_once
def test_autocast_on_cuda_in_pixels(make):
    transform = make()
    size = (2, 224, 224)[-transform.axes :]
    offsets = (0.1 * torch.randn(2, transform.dof)).bfloat16()
    exact = transform(offsets.double(), size)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        grid = transform(offsets.cuda(), size)
        V = SpatialTransformer(Localise(), 3, transform).cuda()(picture(transform).cuda())
    assert grid.dtype == V.dtype == torch.float32
    assert (grid.cpu() - exact).abs().max() * 112 < 2e-4


@needs_cuda
def test_spline_on_cuda_after_the_cpu():
    """What is kept for one device is not handed to the other."""
    offsets = 0.1 * torch.randn(2, 32)
    grids = [ThinPlateSpline()(offsets.to(d), (9, 9)) for d in ("cpu", "cuda", "cpu", "cuda")]
    assert [grid.device.type for grid in grids] == ["cpu", "cuda", "cpu", "cuda"]
    torch.testing.assert_close(grids[0], grids[1].cpu(), rtol=0, atol=1e-5)


def test_affine_grids_are_torchs():
    """`SpatialTransformer` takes the package's own affine grid, and PyTorch's would do the same."""
    offsets = 0.2 * torch.randn(3, 6, dtype=F64)
    theta = Affine().theta(offsets)
    expected = F.affine_grid(theta, [3, 1, 7, 5], align_corners=False)
    close(Affine()(offsets, (7, 5)), expected)
    close(affine_grid(theta, (7, 5)), expected)
    offsets = 0.2 * torch.randn(3, 12, dtype=F64)
    theirs = F.affine_grid(Affine3d().theta(offsets), [3, 1, 4, 7, 5], align_corners=False)
    close(Affine3d()(offsets, (4, 7, 5)), theirs)
