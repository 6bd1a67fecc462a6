"""The faster convolution computes what PyTorch's own does: values, gradients, layouts, dtypes."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from stn_tutorial.models import build, convolution
from stn_tutorial.models.convolution import Conv2d

CASES = [  # channels, filters, kernel, batch, height, width
    (1, 16, 9, 4, 28, 28),
    (1, 5, 9, 3, 13, 10),
    (3, 4, 2, 2, 5, 7),
    (8, 16, 7, 4, 10, 10),
    (7, 5, 3, 3, 9, 4),
    (6, 3, 7, 2, 7, 7),  # one window
    (6, 3, 1, 2, 4, 5),
]
WAYS = {"few": convolution._FewChannels, "many": convolution._ManyChannels}


def layers(channels, filters, kernel, dtype):
    """Our layer and PyTorch's, with the same weights."""
    ours, theirs = Conv2d(channels, filters, kernel), nn.Conv2d(channels, filters, kernel)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def gradients(convolve, x, weight, bias, towards):
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    y = convolve(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, towards)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_each_way_is_pytorchs(case, way, layout, dtype):
    """Against PyTorch's in float64, so that rounding is ours alone."""
    channels, filters, kernel, batch, height, width = case
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width)
    weight = torch.randn(filters, channels, kernel, kernel)
    bias = torch.randn(filters)
    towards = torch.randn(batch, filters, height - kernel + 1, width - kernel + 1)
    given = [t.to(dtype) for t in (x, weight, bias, towards)]
    exact = gradients(F.conv2d, *(t.double() for t in given))
    given = [t.contiguous(memory_format=layout) if t.ndim == 4 else t for t in given]
    found = gradients(WAYS[way].apply, *given)
    # Relative to the largest; a bfloat16 has 8 bits, so its rounding is 2**-9 at most.
    bound = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-8}[dtype]
    for ours, right in zip(found, exact, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - right).abs().max() <= bound * right.abs().max()


def test_bfloat16_sums_are_not_rounded_on_the_way():
    """As near to the truth as PyTorch's own, where a sum has thousands of terms."""
    torch.manual_seed(1)
    x, weight = torch.rand(16, 8, 10, 10), torch.rand(8, 8, 7, 7)
    towards = torch.rand(16, 8, 4, 4)
    given = [t.bfloat16().contiguous(memory_format=torch.channels_last) for t in (x, weight)]
    given += [torch.zeros(8, dtype=torch.bfloat16), towards.bfloat16()]
    exact = gradients(F.conv2d, *(t.double() for t in given))
    ours = gradients(convolution._ManyChannels.apply, *given)
    theirs = gradients(F.conv2d, *given)
    for a, b, right in zip(ours, theirs, exact, strict=True):
        errors = [(t.double() - right).abs().mean() for t in (a, b)]
        assert errors[0] <= 1.1 * errors[1]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradcheck(way, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64).contiguous(memory_format=layout)
    weight, bias = torch.randn(3, 2, 3, 2).double(), torch.randn(3).double()
    inputs = [t.requires_grad_() for t in (x, weight, bias)]
    assert gradcheck(WAYS[way].apply, inputs)
    assert gradgradcheck(WAYS[way].apply, inputs)
    for chosen in range(3):  # and each gradient on its own
        alone = [t.detach().requires_grad_(k == chosen) for k, t in enumerate(inputs)]
        assert gradcheck(WAYS[way].apply, alone)


@pytest.mark.parametrize("way", WAYS)
def test_vmap(way):
    """Several sets of weights at once, as `torch.func` runs them."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 2, 6, 5), torch.randn(4, 3, 2, 3, 2), torch.randn(4, 3)

    def loss(convolve):
        return lambda weight, bias: convolve(x, weight, bias).square().sum()

    ours, theirs = (
        torch.func.vmap(torch.func.grad(loss(convolve), argnums=(0, 1)))(weight, bias)
        for convolve in (WAYS[way].apply, F.conv2d)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# --- The layer ---


def taken(layer, x, **context):
    """Return the way that the layer takes: the name of its function in the graph."""
    with torch.autocast("cpu", **(context or {"enabled": False})):
        y = layer(x)
    return y.grad_fn and y.grad_fn.name().removeprefix("_").removesuffix("Backward")


def test_where_each_way_is_taken():
    x = torch.randn(2, 1, 28, 28)
    first, second = Conv2d(1, 8, 9), Conv2d(8, 8, 7)
    assert "Convolution" in taken(first, x)  # no gradient towards a picture: PyTorch's
    assert taken(first, x.requires_grad_()) == "FewChannels"
    half = {"dtype": torch.bfloat16}
    assert taken(first, x, **half) == "FewChannels"
    V = torch.randn(2, 8, 10, 10, requires_grad=True)
    last = V.contiguous(memory_format=torch.channels_last)
    assert "Convolution" in taken(second, last)
    assert "Convolution" in taken(second, V, **half)
    assert taken(second, last, **half) == "ManyChannels"
    with torch.no_grad():
        assert taken(second, last, **half) is None
    # Elsewhere than on a CPU it is PyTorch's own.
    assert "Convolution" in taken(first.to("meta"), x.detach().to("meta").requires_grad_())


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_autocast(channels, layout):
    """The same dtypes as PyTorch's, and the same values to bfloat16's rounding."""
    torch.manual_seed(0)
    ours, theirs = layers(channels, 8, 5, torch.float32)
    results = []
    for layer in (ours, theirs):
        layer.to(memory_format=layout)
        x = torch.randn(3, channels, 9, 8, generator=torch.Generator().manual_seed(0))
        x = x.contiguous(memory_format=layout).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        y.float().square().sum().backward()
        results.append([y, x.grad, layer.weight.grad, layer.bias.grad])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 2**-6 * b.abs().max()
    same = [r[0].is_contiguous(memory_format=torch.channels_last) for r in results]
    assert same[0] == same[1]


def test_autocast_leaves_float64_alone():
    layer = Conv2d(1, 2, 3).double()
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, F.conv2d(x, layer.weight, layer.bias))


@pytest.mark.parametrize("channels", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_empty_batch(channels, dtype):
    layer = Conv2d(channels, 4, 3).to(dtype, memory_format=torch.channels_last)
    x = torch.empty(0, channels, 5, 6, dtype=dtype).to(memory_format=torch.channels_last)
    x.requires_grad_()
    y = layer(x)
    assert y.shape == (0, 4, 3, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not layer.weight.grad.any()
    assert not layer.bias.grad.any()


def test_what_does_not_fit_raises_as_pytorchs_does():
    for shape in ((2, 1, 8, 28), (2, 2, 28, 28), (28, 28)):
        x = torch.randn(shape, requires_grad=True)
        for layer in (Conv2d(1, 4, 9), nn.Conv2d(1, 4, 9)):
            with pytest.raises(RuntimeError):
                layer(x)
    x = torch.randn(2, 8, 10, 6).bfloat16().to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError):
        Conv2d(8, 4, 7).bfloat16()(x)
    with pytest.raises(RuntimeError):
        Conv2d(6, 4, 3).bfloat16()(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_in_one_graph(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(Conv2d(1, 8, 5), nn.ReLU(), Conv2d(8, 4, 3))
    net.to(dtype, memory_format=torch.channels_last)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 1, 9, 9).to(dtype).requires_grad_()
    found = [
        (y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()]))
        for y in (net(x), compiled(x))
    ]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_weights_are_pytorchs():
    """Same names, same initial values from the same seed; so old weights load."""
    made = []
    for kind in (Conv2d, nn.Conv2d):
        torch.manual_seed(7)
        made.append(kind(3, 5, 4))
    assert repr(made[0]) == repr(made[1])
    ours, theirs = (layer.state_dict() for layer in made)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["cnn", "st-cnn-tps"])
def test_a_model_learns_the_same(name, monkeypatch):
    """One step of a whole model, with our convolutions and with PyTorch's."""
    U, target = torch.rand(8, 1, 28, 28), torch.arange(8)
    found = []
    for own in (False, True):
        if own:
            monkeypatch.setattr(Conv2d, "forward", nn.Conv2d.forward)
        torch.manual_seed(0)
        model = build(name, batch_norm=True).double()
        if model.transformer is not None:  # off the identity
            nn.init.normal_(model.transformer.regression.weight, std=0.1)
        F.cross_entropy(model(U.double()), target).backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
