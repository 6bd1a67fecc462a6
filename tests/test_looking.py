"""Zeiler and Fergus's instruments: by their definition, by hand, through real networks, guards."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from stn_tutorial import affine
from stn_tutorial.models import deconvnet, occlusion_map
from stn_tutorial.transformer import FullyConnectedLocalisation, SpatialTransformer, insert


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(8 * 9, 4),
    ).double()  # fmt: skip


class TestOcclusionMap:
    def test_is_what_covering_by_hand_gives(self):
        network, U = small().eval(), drawn(2, 3, 17, 17)
        classes = torch.tensor([3, 1])
        found = occlusion_map(network, U, classes, side=5, stride=4, fill=0.25, batch_size=7)
        assert found.shape == (2, 4, 4)
        assert found.dtype == torch.float32
        for n, row, column in ((0, 0, 0), (0, 3, 1), (1, 2, 3)):
            covered = U[n : n + 1].clone()
            covered[:, :, 4 * row : 4 * row + 5, 4 * column : 4 * column + 5] = 0.25
            sure = network(covered).softmax(dim=1)[0, classes[n]]
            torch.testing.assert_close(found[n, row, column], sure.float())

    def test_finds_the_one_place_that_matters(self):
        class Corner(nn.Module):
            def forward(self, U):
                return torch.stack([10 * U[:, 0, 2, 6], 0 * U[:, 0, 0, 0]], dim=1)

        found = occlusion_map(Corner(), torch.ones(1, 1, 9, 9), torch.tensor([0]), side=1)
        assert found.shape == (1, 9, 9)
        low = (found[0] < 0.9).nonzero()
        assert low.tolist() == [[2, 6]]
        assert found[0, 2, 6] == 0.5

    def test_leaves_pictures_and_mode_alone(self):
        network, U = small().train(), drawn(1, 3, 17, 17)
        kept = U.clone()
        occlusion_map(network, U, torch.tensor([0]), side=9, stride=8)
        assert network.training
        assert torch.equal(U, kept)

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"side": 18}, ValueError, "side must be at most 17, the picture's, but 18"),
            ({"side": 0}, ValueError, "side must be a whole number"),
            ({"side": 3, "stride": 0}, ValueError, "stride must be a whole number"),
            ({"side": 3, "batch_size": 0}, ValueError, "batch_size must be a whole number"),
            ({"side": 3, "classes": torch.zeros(2).long()}, ValueError, r"shape \(1,\)"),
            ({"side": 3, "classes": torch.zeros(1)}, TypeError, "int64 tensor, but torch.float32"),
            ({"side": 3, "classes": [0]}, TypeError, "int64 tensor, but list"),
        ],
    )
    def test_bad_input(self, settings, error, message):
        settings = {"classes": torch.zeros(1, dtype=torch.int64), **settings}
        with pytest.raises(error, match=message):
            occlusion_map(small(), drawn(1, 3, 17, 17), **settings)


class TestDeconvnet:
    @pytest.mark.parametrize("channel", range(8))
    def test_is_what_the_paper_defines(self, channel):
        """Unpool by the switches, rectify, filter: with PyTorch's own transposed operations."""
        network, U = small(), drawn(2, 3, 17, 17)
        first, last = network[0], network[3]
        a = F.conv2d(U, first.weight, first.bias).relu()
        pooled, switches = F.max_pool2d(a, 2, return_indices=True)
        top = F.conv2d(pooled, last.weight, last.bias, stride=2).relu()
        kept = torch.zeros_like(top)
        for n in range(2):
            at = top[n, channel].argmax()
            kept[n, channel].view(-1)[at] = top[n, channel].view(-1)[at]
        down = F.conv_transpose2d(kept, last.weight, stride=2)
        # What the strided convolution did not read gets nothing.
        down = F.pad(down, (0, pooled.shape[3] - down.shape[3], 0, pooled.shape[2] - down.shape[2]))
        down = F.max_unpool2d(down, switches, 2, output_size=a.shape).relu()
        wanted = F.conv_transpose2d(down, first.weight)
        torch.testing.assert_close(deconvnet(network, U, "4", channel), wanted)

    def test_it_is_not_the_gradient(self):
        network, U = small(), drawn(1, 3, 17, 17).requires_grad_()
        top = network[:5](U)
        channel = int(top.amax(dim=(0, 2, 3)).argmax())
        (gradient,) = torch.autograd.grad(top[0, channel].max() ** 2 / 2, U)
        assert not torch.allclose(deconvnet(network, U, "4", channel), gradient)

    def test_sees_only_the_receptive_field(self):
        network, U = small(), drawn(1, 3, 17, 17)
        top = network[:5](U)
        channel = int(top.amax(dim=(0, 2, 3)).argmax())
        row, column = divmod(int(top[0, channel].argmax()), 3)
        # 3 cells of 2 + 2 pixels; cells start at 4 r.
        shown = deconvnet(network, U, "4", channel)[0].abs().sum(0) > 0
        inside = torch.zeros(17, 17, dtype=torch.bool)
        inside[4 * row : 4 * row + 8, 4 * column : 4 * column + 8] = True
        assert shown.any()
        assert not (shown & ~inside).any()

    def test_scales_with_the_picture_without_biases(self):
        network, U = small(), drawn(1, 3, 17, 17)
        for layer in (network[0], network[3]):
            layer.bias.data.zero_()
        once, twice = (deconvnet(network, f * U, "4", 2) for f in (1, 2))
        torch.testing.assert_close(twice, 2 * once)

    def test_a_silent_channel_shows_nothing(self):
        network = small()
        network[3].bias.data[1] = -1000.0
        assert not deconvnet(network, drawn(1, 3, 17, 17), "4", 1).any()

    def test_leaves_the_network_alone(self):
        network = small().train()
        before = network(drawn(1, 3, 17, 17))
        deconvnet(network, drawn(1, 3, 17, 17), "4", 0)
        assert network.training
        assert isinstance(network[1], nn.ReLU)
        assert all(p.requires_grad for p in network.parameters())
        torch.testing.assert_close(network(drawn(1, 3, 17, 17)), before, rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("make", "layer"),
        [(models.squeezenet1_1, "features.7"), (models.resnet18, "layer3.0.bn2")],
    )
    def test_through_torchvisions_networks(self, make, layer):
        torch.manual_seed(0)
        U = torch.rand(2, 3, 64, 64)
        shown = deconvnet(make(), U, layer, 3)
        assert shown.shape == U.shape
        assert shown.isfinite().all()
        assert shown.any()

    def test_a_layer_whose_output_is_written_into(self):
        """ResNet adds the shortcut in place: what counts is what the layer itself gave."""
        torch.manual_seed(0)
        network, U = models.resnet18().eval(), torch.rand(1, 3, 64, 64)
        kept = []
        network.layer1[0].bn2.register_forward_hook(lambda m, a, out: kept.append(out.clone()))
        network(U)
        shut = copy_with_bias(network, "layer1.0.bn2", 5, -kept[0][0, 5].max().item() - 1)
        assert not deconvnet(shut, U, "layer1.0.bn2", 5).any()

    def test_goes_through_a_transformer_with_theta_held(self):
        network = models.squeezenet1_1().double().eval()
        U = drawn(1, 3, 64, 64)
        look = SpatialTransformer(FullyConnectedLocalisation((3, 8, 8), (8,))).double()
        torch.manual_seed(0)
        nn.init.normal_(look.regression.weight, std=0.05)
        look.regression.bias.data = (affine.rotation(30) - affine.identity()).double().flatten()
        V, theta = look(U, return_theta=True)
        shown = deconvnet(network, V.detach(), "features.6", 7)
        inside = U.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(look.sample(inside, theta.detach()), inside, shown)
        found = deconvnet(insert(network, look), U, "features.6", 7)
        assert found.any()
        torch.testing.assert_close(found, wanted)

    @pytest.mark.parametrize(
        ("network", "layer", "channel", "message"),
        [
            (small(), "44", 0, r"Sequential has no layer '44'; did you mean '4'\?"),
            (small(), "4", 8, "channel must be from 0 to 7, but 8"),
            (small(), "4", -1, "channel must be from 0 to 7, but -1"),
            (small(), "6", 0, r"must give a feature map \(N, C, H, W\), but it gives \(1, 4\)"),
            (nn.Sequential(nn.Conv2d(3, 4, 3)).double(), "0", 0, "but none was found"),
        ],
    )
    def test_bad_input(self, network, layer, channel, message):
        with pytest.raises(ValueError, match=message):
            deconvnet(network, drawn(1, 3, 17, 17), layer, channel)

    def test_a_layer_that_does_not_run(self):
        network = models.googlenet(init_weights=False, aux_logits=True)
        network.unused = nn.ReLU()
        with pytest.raises(ValueError, match="layer 'unused' did not run"):
            deconvnet(network, torch.rand(1, 3, 64, 64), "unused", 0)


def copy_with_bias(network, layer, channel, change):
    network.get_submodule(layer).bias.data[channel] += change
    return network
