"""Attention that weighs: its equations, an independent library, gradients, guards."""

import copy

import pytest
import torch
import torchvision
from torch.nn import functional as F

from stn_tutorial.attention import CBAM, SoftAttention, SqueezeExcitation


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stirred(module, seed=0):
    """The module in float64, every weight drawn, so that none is at its start."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for weight in module.parameters():
        weight.data.normal_(generator=generator)
    return module


def relu(x):
    return x.clamp(min=0)


def dense(layer, x):
    return x @ layer.weight.T + layer.bias


U = drawn(3, 12, 5, 7, dtype=torch.float64)
MODULES = {
    "SqueezeExcitation": lambda: SqueezeExcitation(12, 4),
    "CBAM": lambda: CBAM(12, 4, kernel=3),
    "SoftAttention": lambda: SoftAttention(12, 6),
}
each = pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)


class TestSqueezeExcitation:
    def test_its_equation(self):
        look = stirred(SqueezeExcitation(12, 4))
        first, _, last = look.excite
        z = U.sum(dim=(2, 3)) / 35
        s = 1 / (1 + torch.exp(-dense(last, relu(dense(first, z)))))
        torch.testing.assert_close(look.factors(U), s)
        torch.testing.assert_close(look(U), torch.einsum("nc,nchw->nchw", s, U))

    def test_agrees_with_torchvision(self):
        look = stirred(SqueezeExcitation(12, 4))
        other = torchvision.ops.SqueezeExcitation(12, 3).double()
        for ours, theirs in ((look.excite[0], other.fc1), (look.excite[2], other.fc2)):
            theirs.weight.data = ours.weight.data[:, :, None, None]
            theirs.bias.data = ours.bias.data
        torch.testing.assert_close(look(U), other(U))

    def test_knows_nothing_of_where(self):
        look = stirred(SqueezeExcitation(12, 4))
        moved = U.roll((2, 3), dims=(2, 3))
        torch.testing.assert_close(look.factors(moved), look.factors(U))

    def test_the_papers_count_of_weights(self):
        # 2 C² / r, as the paper counts them, and the biases.
        count = sum(p.numel() for p in SqueezeExcitation(64, 16).parameters())
        assert count == 2 * 64**2 // 16 + 64 + 4


class TestCBAM:
    def test_its_equations(self):
        look = stirred(CBAM(12, 4, kernel=3))
        first, _, last = look.excite
        both = [
            dense(last, relu(dense(first, z))) for z in (U.mean(dim=(2, 3)), U.amax(dim=(2, 3)))
        ]
        channels = (both[0] + both[1]).sigmoid()
        weighted = U * channels[:, :, None, None]
        summary = torch.stack([weighted.sum(1) / 12, weighted.max(1).values], dim=1)
        padded = F.pad(summary, (1, 1, 1, 1))
        places = torch.empty(3, 5, 7, dtype=torch.float64)
        for row in range(5):
            for column in range(7):
                window = padded[:, :, row : row + 3, column : column + 3]
                score = (window * look.convolution.weight).sum(dim=(1, 2, 3))
                places[:, row, column] = (score + look.convolution.bias).sigmoid()
        torch.testing.assert_close(look.channel_factors(U), channels)
        torch.testing.assert_close(look.place_factors(U), places)
        torch.testing.assert_close(look(U), weighted * places[:, None])

    def test_an_even_kernel_is_refused(self):
        with pytest.raises(ValueError, match="kernel must be odd, but 4"):
            CBAM(12, 4, kernel=4)


class TestSoftAttention:
    def test_its_equations(self):
        look = stirred(SoftAttention(12, 6, query=4))
        h = drawn(3, 4, dtype=torch.float64)
        for n in range(3):
            a = U[n].flatten(1).T  # one row of 12 for each place
            W, b = look.places.weight[:, :, 0, 0], look.places.bias
            e = torch.tanh(a @ W.T + look.asked.weight @ h[n] + b) @ look.score.weight.flatten()
            alpha = torch.exp(e) / torch.exp(e).sum()
            torch.testing.assert_close(look.weights(U, h)[n].flatten(), alpha)
            torch.testing.assert_close(look(U, h)[n], (alpha[:, None] * a).sum(0))

    def test_weights_add_up_to_one_and_stay_within_the_features(self):
        look = stirred(SoftAttention(12, 6))
        torch.testing.assert_close(look.weights(U).sum(dim=(1, 2)), torch.ones(3).double())
        z = look(U)
        assert (z <= U.amax(dim=(2, 3)) + 1e-12).all()
        assert (z >= U.amin(dim=(2, 3)) - 1e-12).all()

    def test_starts_as_the_plain_mean(self):
        torch.testing.assert_close(SoftAttention(12).double()(U), U.mean(dim=(2, 3)))

    def test_one_place_far_above_the_others_takes_all(self):
        look = SoftAttention(2, 1)
        look.places.weight.data[:] = torch.tensor([1.0, 0]).view(1, 2, 1, 1)
        look.places.bias.data.zero_()
        look.score.weight.data.fill_(1000.0)
        picture = torch.zeros(1, 2, 3, 3)
        picture[0, :, 1, 2] = torch.tensor([1.0, 5])
        torch.testing.assert_close(look(picture), torch.tensor([[1.0, 5]]))

    def test_the_places_may_be_put_in_any_order(self):
        look = stirred(SoftAttention(12, 6))
        order = torch.randperm(35, generator=torch.Generator().manual_seed(0))
        mixed = U.flatten(2)[:, :, order].view_as(U)
        torch.testing.assert_close(look(mixed), look(U))

    @pytest.mark.parametrize(
        ("query", "h", "message"),
        [
            (0, drawn(3, 4), "h must be left out where query is 0"),
            (4, drawn(3, 5), r"h must have shape \(N, 4\), but shape \(3, 5\)"),
        ],
    )
    def test_a_wrong_query(self, query, h, message):
        with pytest.raises(ValueError, match=message):
            SoftAttention(12, query=query)(U.float(), h)

    def test_a_missing_query(self):
        with pytest.raises(TypeError, match=r"h must be a torch.Tensor, but a NoneType"):
            SoftAttention(12, query=4)(U.float())


@each
class TestEach:
    def test_gradients(self, make):
        look = stirred(make())
        small = drawn(2, 12, 3, 3, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(look, small)

    def test_every_weight_learns(self, make):
        look = stirred(make())
        look(U).square().sum().backward()
        assert all(bool(p.grad.abs().max() > 0) for p in look.parameters())

    def test_keeps_dtype_and_size(self, make):
        for dtype in (torch.float32, torch.float64):
            V = make().to(dtype)(U.to(dtype))
            assert V.dtype == dtype
            assert tuple(V.shape) in {(3, 12, 5, 7), (3, 12)}

    def test_under_autocast(self, make):
        look = make()
        with torch.autocast("cpu", torch.bfloat16):
            V = look(U.float())
        torch.testing.assert_close(V.float(), look(U.float()), rtol=0.05, atol=0.05)

    def test_compiles(self, make):
        look = stirred(make()).float()
        compiled = torch.compile(look, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(U.float()), look(U.float()))

    def test_a_deep_copy_is_its_own(self, make):
        look = stirred(make())
        other = copy.deepcopy(look)
        other.load_state_dict(look.state_dict())
        torch.testing.assert_close(other(U), look(U), rtol=0, atol=0)

    def test_bad_input(self, make):
        with pytest.raises(ValueError, match=r"U must have 12 channels, but shape \(3, 11, 5, 7\)"):
            make()(U[:, :11].float())
        with pytest.raises(ValueError, match=r"U must have shape \(N, C, H, W\)"):
            make()(U[0].float())
        with pytest.raises(TypeError, match="floating"):
            make()(U.long())


@pytest.mark.parametrize("kind", [SqueezeExcitation, CBAM])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels must be a whole number, 1 or more, but 0"),
        ((8, 0), "reduction must be a whole number, 1 or more, but 0"),
        ((8, 16), "reduction must be at most channels = 8, but 16"),
    ],
)
def test_bad_settings(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(*arguments)


@pytest.mark.parametrize("arguments", [(0,), (8, 0), (8, 4, -1)])
def test_bad_settings_of_soft_attention(arguments):
    with pytest.raises(ValueError, match="must be a whole number"):
        SoftAttention(*arguments)
