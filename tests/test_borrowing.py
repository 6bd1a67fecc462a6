"""`SpatialTransformer` in a network of one's own: what one looks at, and what one warps."""

import copy
import math

import cv2
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial import affine
from stn_tutorial.data import letter_f
from stn_tutorial.sampling import sample
from stn_tutorial.transformer import (
    Affine,
    Affine3d,
    Attention,
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    Projective,
    Rotation,
    Rotation3d,
    SharedLocalisation,
    Similarity,
    Similarity3d,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
)

F64 = torch.float64


class Localise(nn.Module):
    """Three numbers of any tensor."""

    features = 3

    def forward(self, U):
        flat = U.flatten(1)
        return torch.stack([flat.mean(1), flat.amax(1), flat[:, :2].sum(1)], dim=1)


def look(transform=None, reach=0.1, **settings):
    """A transformer that has learned something: another θ for each picture."""
    module = SpatialTransformer(Localise(), transform=transform, **settings)
    with torch.no_grad():
        module.regression.weight.normal_(std=reach / 3)
        module.regression.bias.normal_(std=reach)
    return module


def always(transform, *offsets, **settings):
    """A transformer with these offsets whatever it sees."""
    module = SpatialTransformer(Localise(), transform=transform, **settings)
    module.regression.bias.data = torch.tensor([float(o) for o in offsets])
    return module


# --- Looking at one tensor, warping another ---


def test_forward_is_theta_and_sample():
    module, U = look(Projective(), size=(5, 7), padding="border"), torch.rand(3, 2, 8, 9)
    V, theta = module(U, return_theta=True)
    assert torch.equal(V, module.sample(U, module.theta(U)))
    assert torch.equal(theta, module.theta(U))
    with pytest.raises(TypeError, match="return_theta must be True or False"):
        module(U, U)  # a second tensor is not taken for `return_theta`


def test_features_are_seen_and_a_picture_is_warped():
    module = look(Affine())
    features, picture = torch.rand(2, 16, 4, 5), torch.rand(2, 3, 20, 24, dtype=F64)
    theta = module.theta(features)
    V = module.sample(picture, theta, size=(10, 11))
    assert V.shape == (2, 3, 10, 11)
    grid = F.affine_grid(theta, (2, 3, 10, 11), align_corners=False)
    torch.testing.assert_close(V, sample(picture, grid), rtol=0, atol=1e-5)
    # Gradients go both ways: to the features that were seen, and to the picture.
    module = module.double()
    features, picture = features.double().requires_grad_(), picture.requires_grad_()
    module.sample(picture, module.theta(features)).square().sum().backward()
    assert features.grad.any()
    assert picture.grad.any()


def test_anything_may_be_seen_where_the_size_is_said():
    module = look(Rotation())
    vector = torch.rand(2, 40)
    theta = module.theta(vector, (28, 56))
    offsets = module.regression(module.localisation(vector))
    assert torch.equal(theta, Rotation(0.5).theta(offsets))
    with pytest.raises(ValueError, match=r"^U must have shape \(N, C, H, W\), but shape \(2, 40\)"):
        module.theta(vector)
    with pytest.raises(ValueError, match=r"^size must be \(height, width\).*but 28 was given"):
        module.theta(vector, 28)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.int16])
def test_masks_keep_their_labels_and_their_dtype(dtype):
    torch.manual_seed(1)
    module = look(Similarity(), reach=0.3)
    U = torch.rand(2, 3, 16, 18)
    top = 2**53 - 1 if dtype == torch.int64 else 2
    mask = torch.randint(0, top, (2, 1, 16, 18)).to(dtype)
    theta = module.theta(U)
    seen = module.sample(mask, theta, mode="nearest")
    assert seen.dtype == dtype
    grid = module.grid(theta, (16, 18))
    assert torch.equal(seen.double(), sample(mask.double(), grid.double(), "nearest"))
    for mode in ("bilinear", "bicubic"):
        with pytest.raises(TypeError, match=r"^what is no floating tensor \(a mask\) is read with"):
            module.sample(mask, theta, mode=mode)
    with pytest.raises(ValueError, match=r"^U must have 4 axes, but shape \(1, 16, 18\) was given"):
        module.sample(mask[0], theta, mode="nearest")


def test_several_views_of_each_picture_and_back():
    module = look(Affine(), views=3)
    U = torch.rand(2, 3, 8, 9)
    V, theta = module(U, return_theta=True)
    assert V.shape == (6, 3, 8, 9)
    assert theta.shape == (6, 2, 3)
    single = look(Affine())
    again = single.sample(U.repeat_interleave(3, 0), theta)
    torch.testing.assert_close(V, again, rtol=0, atol=1e-6)
    torch.testing.assert_close(single.sample(U, theta), V)  # K for each, known from θ alone
    # And those of one picture are its own.
    own = single.sample(U[1:], theta[3:]).unflatten(0, (1, 3))
    torch.testing.assert_close(V.unflatten(0, (2, 3))[1:], own)
    V.square().sum().backward()
    assert (module.regression.bias.grad != 0).all()
    new = SpatialTransformer(Localise(), transform=ThinPlateSpline(3), views=4)
    torch.testing.assert_close(new(U), U.repeat_interleave(4, 0), rtol=0, atol=1e-5)


def test_views_of_volumes_and_of_empty_batches():
    module = look(Affine3d(), views=2)
    U = torch.rand(2, 1, 4, 5, 6)
    V, theta = module(U, return_theta=True)
    one = look(Affine3d()).sample(U.repeat_interleave(2, 0), theta)
    torch.testing.assert_close(V, one, rtol=0, atol=1e-6)
    empty = look(Affine(), views=3)
    assert empty.sample(torch.zeros(0, 1, 4, 5), torch.zeros(0, 2, 3)).shape == (0, 1, 4, 5)


def test_numbers_of_theta_that_do_not_fit():
    module, U = look(Affine()), torch.rand(2, 1, 4, 5)
    for count in (0, 1, 3):
        with pytest.raises(ValueError, match=f"K for each, but {count} for 2 were given$"):
            module.sample(U, affine.identity(count))
    for bad in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=r"^views must be a whole number, 1 or more, but "):
            SpatialTransformer(Localise(), views=bad)


@pytest.mark.parametrize("views", [1, 3])
def test_gradients_of_views_a_fill_and_an_average(views):
    module = look(Affine(), views=views, size=(3, 2), fill=0.3, antialias=True).double()
    U = torch.rand(1, 2, 6, 6, dtype=F64, requires_grad=True)
    theta = module.theta(U.detach()).detach().requires_grad_()
    assert gradcheck(lambda U, t: module.sample(U, t), (U, theta), atol=1e-5)


# --- What lies outside ---


def test_fill_is_seen_outside():
    module = always(Translation(), 1, 0, fill=(0.25, 0.5, 0.75))  # half the picture to the right
    U = torch.rand(2, 3, 4, 8)
    V = module(U)
    torch.testing.assert_close(V[..., 4:], U[..., :4], rtol=0, atol=1e-6)
    expected = torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(V[..., :4], expected)
    assert (always(Translation(), 5, 0, fill=-1)(U) == -1).all()
    mask = torch.ones(2, 1, 4, 8, dtype=torch.long)
    seen = module.sample(mask, module.theta(U), mode="nearest", fill=255)
    assert seen[..., :4].unique().tolist() == [255]
    assert seen[..., 4:].unique().tolist() == [1]


def test_fill_is_opencvs():
    U = torch.rand(1, 1, 9, 11, dtype=F64)
    module = look(Affine(), reach=0.4, fill=0.7).double()
    V, theta = module(U, return_theta=True)
    M = affine.to_pixels(theta, (9, 11), (9, 11))[0].detach().numpy()
    x, y = torch.meshgrid(torch.arange(11.0), torch.arange(9.0), indexing="xy")
    at = [(M[r, 0] * x.numpy() + M[r, 1] * y.numpy() + M[r, 2]).astype("float32") for r in (0, 1)]
    theirs = cv2.remap(
        U[0, 0].numpy(), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0.7
    )
    # OpenCV reads at 32 positions between two pixels: a picture of slope 1 is then 1/32 off.
    assert (V[0, 0].detach() - torch.from_numpy(theirs)).abs().max() < 1 / 16


def test_fill_says_what_is_wrong():
    for bad in ("white", [1, "2"], object()):
        with pytest.raises(TypeError, match=r"^fill must be a number, or one for each channel, bu"):
            look(fill=bad)
    with pytest.raises(ValueError, match=r"^fill takes the place of padding='zeros', but 'border'"):
        look(fill=1, padding="border")
    with pytest.raises(ValueError, match=r"but 2 numbers were given for 3 channels$"):
        look(fill=(1, 2))(torch.rand(1, 3, 4, 4))
    module, U = look(fill=1), torch.rand(1, 3, 4, 4)
    # A padding of the call's own takes the place of the module's fill.
    bordered = module.sample(U, affine.translation(3.0, 0.0), padding="border")
    torch.testing.assert_close(bordered, U[..., :1].expand_as(U))


# --- Averages ---


def test_antialias_is_the_mean_of_each_pixels_area():
    U = torch.rand(2, 3, 32, 32)
    small = SpatialTransformer(Localise(), size=(8, 8), antialias=True)(U)
    torch.testing.assert_close(small, F.avg_pool2d(U, 4), rtol=0, atol=1e-5)
    points = SpatialTransformer(Localise(), size=(8, 8))(U)
    assert (points - F.avg_pool2d(U, 4)).abs().mean() > 0.05
    same = SpatialTransformer(Localise(), antialias=True)(U)
    torch.testing.assert_close(same, U, rtol=0, atol=1e-5)
    # Where a side is no multiple, and where one side alone shrinks.
    odd = SpatialTransformer(Localise(), size=(7, 32), antialias=True, padding="border")
    ramp = torch.linspace(0, 1, 32).view(32, 1).expand(1, 1, 32, 32)
    V = odd(ramp)
    assert (V.mean() - 0.5).abs() < 1e-3
    mean = F.interpolate(ramp, size=(7, 32), mode="area")
    assert (V - mean).abs().max() < 0.02


def test_antialias_of_a_turned_picture():
    """Against a mean over 16×16 positions: a sixteenth of the error of reading single points."""
    torch.manual_seed(3)
    U = torch.rand(1, 1, 128, 128)
    settings = {"size": (32, 32), "padding": "border"}
    theta = affine.rotation(20)
    exact = look(Affine(), **settings).sample(U, theta, size=(512, 512))
    exact = F.avg_pool2d(exact, 16)
    error = {}
    for antialias in (False, True):
        V = look(Affine(), antialias=antialias, **settings).sample(U, theta)
        error[antialias] = (V - exact).square().mean().sqrt()
    assert error[True] < error[False] / 5


def test_antialias_leaves_labels_alone():
    module = always(Affine(), *[0] * 6, size=(4, 4), antialias=True)
    mask = torch.randint(0, 2, (1, 1, 16, 16)) * 200
    seen = module.sample(mask, affine.identity(), mode="nearest")
    assert set(seen.unique().tolist()) <= {0, 200}
    volume = torch.rand(1, 1, 8, 8, 8)
    deep = SpatialTransformer(Localise(), transform=Affine3d(), size=(4, 4, 4), antialias=True)
    torch.testing.assert_close(deep(volume), F.avg_pool3d(volume, 2), rtol=0, atol=1e-5)


# --- The start, and starting again ---


def kaiming(module):
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.ones_(module.bias)


def reset(module):
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


@pytest.mark.parametrize("initialise", [kaiming, reset])
def test_a_start_at_the_identity_survives_apply(initialise):
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        SpatialTransformer(FullyConnectedLocalisation((2, 8, 8)), transform=Similarity()),
        nn.Flatten(),
        nn.Linear(128, 3),
    )
    before = copy.deepcopy(net.state_dict())
    assert net.apply(initialise) is net
    U = torch.rand(2, 2, 8, 8)
    assert (net[1](U) - U).abs().max() < 1e-5
    changed = [name for name, value in net.state_dict().items() if (value != before[name]).any()]
    assert "0.weight" in changed
    assert any(name.startswith("1.localisation") for name in changed)
    assert not any(name.startswith("1.regression") for name in changed)


def test_what_was_learned_is_changed_and_can_be_reset():
    module = look(Affine())
    with torch.no_grad():
        module.apply(lambda m: m.weight.mul_(2) if isinstance(m, nn.Linear) else None)
    assert (module.theta(torch.rand(1, 1, 4, 4)) - torch.eye(2, 3)).abs().max() > 0.01
    module.reset_parameters()
    assert torch.equal(module.theta(torch.rand(1, 1, 4, 4)), torch.eye(2, 3)[None])
    with torch.device("meta"):
        hollow = look(Affine())
    hollow = hollow.apply(kaiming).to_empty(device="cpu")
    hollow.reset_parameters()
    assert not hollow.regression.weight.any()


def test_features_are_those_of_the_net():
    net = FullyConnectedLocalisation(784, (5, 7))
    assert SpatialTransformer(net).regression.in_features == 7
    assert SpatialTransformer(nn.Flatten(), 20).regression.in_features == 20
    torchvisions = nn.Sequential()
    torchvisions.features = nn.Flatten()  # layers, as in VGG
    for net, given in ((nn.Flatten(), None), (torchvisions, None), (nn.Flatten(), Rotation())):
        with pytest.raises(TypeError, match=r"^features must be how many numbers the localisation"):
            SpatialTransformer(net, given)


# --- Pictures that are not square ---


@pytest.mark.parametrize("size", [(28, 56), (56, 28), (30, 30)], ids=str)
def test_a_turn_is_no_shear(size):
    """Against OpenCV, in pixels: by 20° about the middle."""
    U = letter_f(size).double()
    turn = math.radians(20)
    module = always(Rotation(), turn).double()
    V, theta = module(U, return_theta=True)
    middle = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    M = torch.from_numpy(cv2.getRotationMatrix2D(middle, 20, 1.0))[None]
    torch.testing.assert_close(theta.detach(), affine.from_opencv(M, size, size), rtol=0, atol=1e-7)
    similar = always(Similarity(), math.cos(turn) - 1, math.sin(turn), 0, 0).double()
    torch.testing.assert_close(similar(U), V, rtol=0, atol=1e-5)
    # To an output of another shape: the same turn of the input, then the resizing.
    half = always(Rotation(), turn, size=(28, 28)).double()
    assert torch.equal(half.theta(U), theta)


def test_the_grid_alone_takes_the_outputs_shape():
    turn = torch.tensor([[0.3]])
    for size in ((28, 56), (7, 5)):
        grid = Rotation()(turn, size)
        assert torch.equal(grid, Rotation(size[0] / size[1])(turn, size))
    assert torch.equal(Rotation().theta(turn), Rotation(1).theta(turn))
    assert repr(Rotation()) == "Rotation()"


# --- Half precision ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_last_layer_stands_outside_autocast(dtype):
    """A turn by 20° beside random offsets: within 0.02 of 224 pixels, where it was 0.37."""
    torch.manual_seed(0)
    module = look(Affine(), reach=0.1)
    turn = affine.rotation(20) - affine.identity()
    module.regression.bias.data += turn.flatten()
    U = torch.rand(4, 1, 224, 224)
    with torch.no_grad():
        exact = module.grid(module.theta(U), (224, 224))
        with torch.autocast("cpu", dtype=dtype):
            grid = module.grid(module.theta(U), (224, 224))
        assert (grid - exact).abs().max() * 112 < 0.02
        # A module that is itself in half precision: what its stored weights say, to rounding.
        half = copy.deepcopy(module).to(dtype)
        stored = copy.deepcopy(half).float()
        features = half.localisation(U.to(dtype))
        gap = half.regression(features) - stored.regression(features.float())
        assert half.regression(features).dtype == torch.float32
        assert gap.abs().max() * 112 < 1e-3


# --- Layout in memory ---


@pytest.mark.parametrize("settings", [{}, {"views": 2}, {"antialias": True, "size": (4, 5)}])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_channels_last_stays(settings, padding):
    module = look(Affine(), padding=padding, **settings)
    U = torch.rand(2, 3, 8, 9)
    last = U.contiguous(memory_format=torch.channels_last)
    V = module(last)
    assert V.is_contiguous(memory_format=torch.channels_last)
    assert not V.is_contiguous()
    torch.testing.assert_close(V, module(U), rtol=0, atol=1e-6)
    assert module(U).is_contiguous()


# --- Localisation nets take any size ---

NETS = {
    "fully connected": lambda: FullyConnectedLocalisation((2, 28, 28)),
    "convolutional": lambda: ConvolutionalLocalisation(2, (28, 28)),
    "convolutional, larger": lambda: ConvolutionalLocalisation(2, (60, 40)),
    "shared": lambda: SharedLocalisation(nn.Conv2d(2, 4, 5), (2, 28, 28)),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize("size", [(28, 28), (224, 224), (33, 57), (60, 40), (9, 7)], ids=str)
def test_the_nets_take_any_size(make, size):
    net = make()
    U = torch.rand(3, 2, *size)
    features = net(U)
    assert features.shape == (3, net.features)
    V = SpatialTransformer(net)(U)
    torch.testing.assert_close(V, U, rtol=0, atol=1e-4)
    last = net(U.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, features, rtol=1e-4, atol=1e-5)


def test_a_pooled_input_is_the_mean():
    """Twice the size is seen as the mean of its four, and what fits is seen as it was before."""
    net = FullyConnectedLocalisation((1, 8, 8))
    U = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(net(U), net(F.avg_pool2d(U, 2)))
    plain = FullyConnectedLocalisation(64)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(plain(U[..., :8, :8]), net(U[..., :8, :8]))
    net = ConvolutionalLocalisation(1, (29, 33))
    U = torch.rand(2, 1, 29, 33)
    with torch.no_grad():
        assert torch.equal(net(U), nn.Sequential(*list(net)[1:])(F.avg_pool2d(U, 2)))
    deep = FullyConnectedLocalisation((1, 4, 4, 4))
    assert deep(torch.rand(2, 1, 9, 8, 7)).shape == (2, 32)
    with pytest.raises(ValueError, match=r"^U must have 2 axes after its channels, but shape"):
        ConvolutionalLocalisation(1)(torch.rand(1, 1, 28, 28, 28))
    with pytest.raises(ValueError, match=r"^inputs must be \(channels, height, width\)"):
        FullyConnectedLocalisation((28, 28))


def test_more_than_one_setting_is_shown():
    words = repr(look(Attention(), fill=(1, 2), antialias=True, views=2, size=(3, 4)))
    assert "size=(3, 4), mode='bilinear', padding='zeros', fill=(1, 2), antialias=True" in words
    assert "views=2" in words
    assert "extent=(3.0, 2.0, 1.0)" in repr(Similarity3d((3, 2, 1)))
    assert repr(Rotation3d()) == "Rotation3d()"
