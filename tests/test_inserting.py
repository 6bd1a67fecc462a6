"""A transformer put into networks that are there: neutral, trained, copied, saved, compiled."""

import copy
import io

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from stn_tutorial import affine
from stn_tutorial.transformer import (
    ConvolutionalLocalisation,
    FullyConnectedLocalisation,
    Rotation,
    SpatialTransformer,
    insert,
)


def convnext():
    return ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], num_classes=10)


def vit():
    network = models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )
    nn.init.normal_(network.heads.head.weight)  # it starts at zero, where all would agree
    return network


def light(make):
    """A network without the hundred million weights of its dense layers, of which one is left."""
    with torch.device("meta"):
        network = make()
        network.classifier = nn.Linear(network.classifier[0 if make is VGG else 1].in_features, 10)
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return network


VGG = models.vgg11_bn


# Of each: how it is built, and a layer inside with its channels.
NETWORKS = {
    "alexnet": (lambda: light(models.alexnet), "features.3", 64),
    "vgg": (lambda: light(VGG), "features.4", 64),
    "googlenet": (
        lambda: models.googlenet(init_weights=False, aux_logits=False, transform_input=True),
        "conv3",
        64,
    ),
    "resnet": (models.resnet18, "layer2", 64),
    "squeezenet": (models.squeezenet1_1, "features.3", 64),
    "convnext": (convnext, "features.2", 16),
    "vit": (vit, "conv_proj", 3),
    "mobilenet": (models.mobilenet_v3_small, "features.1", 16),
}
each = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def built():
    """Each network once, in evaluation mode, its batch norms having seen something."""
    found = {}

    def of(name):
        if name not in found:
            torch.manual_seed(0)
            network = found[name] = NETWORKS[name][0]()
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            with torch.no_grad():
                network(torch.rand(8, 3, 64, 64))
            network.eval()
        return copy.deepcopy(found[name])

    return of


U = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def look(channels=3):
    torch.manual_seed(2)
    return SpatialTransformer(FullyConnectedLocalisation((channels, 8, 8), (8,))).eval()


def turn(transformer, degrees=30.0):
    """Give the transformer a θ that is not the identity, the same for all."""
    bias = affine.rotation(degrees)[0] - affine.identity()[0]
    transformer.regression.bias.data = bias.flatten()
    return transformer


@each
class TestEachNetwork:
    def test_neutral_at_the_input(self, name, built):
        network = built(name)
        with torch.no_grad():
            before = network(U)
            assert insert(network, look()) is network
            off = (network(U) - before).abs().max().item()
        assert off < 1e-5
        assert before.std() > 1e-4  # or else all would agree

    def test_neutral_before_a_layer(self, name, built):
        network = built(name)
        _, layer, channels = NETWORKS[name]
        with torch.no_grad():
            before = network(U)
            insert(network, look(channels), before=layer)
            assert (network(U) - before).abs().max() < 1e-5

    def test_it_is_used(self, name, built):
        """What could have refuted neutrality: a transformer that turns changes the scores."""
        _, layer, channels = NETWORKS[name]
        for where, count in ((None, 3), (layer, channels)):
            network = built(name)
            with torch.no_grad():
                before = network(U)
                insert(network, turn(look(count)), before=where)
                off = (network(U) - before).abs().max().item()
            assert off > 1e-4 * before.abs().max().item()

    def test_at_the_input_it_is_the_transformer_and_then_the_network(self, name, built):
        network, transformer = built(name), turn(look())
        with torch.no_grad():
            wanted = network(transformer(U))
            torch.testing.assert_close(insert(network, transformer)(U), wanted, rtol=0, atol=0)


@pytest.fixture
def small():
    """A network with a forward of its own, of which every layer's input can be followed."""

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.second = nn.Conv2d(4, 5, 3)
            self.head = nn.Linear(5, 2)

        def forward(self, U):
            return self.head(self.second(self.first(U)).amax(dim=(2, 3)))

    torch.manual_seed(0)
    return Small().eval()


def picture(seed=0):
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


class TestWhatStays:
    def test_class_and_names_stay_and_old_weights_load(self, small):
        old = copy.deepcopy(small.state_dict())
        insert(small, look())
        insert(small, look(4), before="second", name="inside")
        assert type(small).__name__ == "Small"
        new = small.state_dict()
        assert set(old) < set(new)
        assert {key.split(".")[0] for key in set(new) - set(old)} == {"transformer", "inside"}
        missing, unexpected = small.load_state_dict(old, strict=False)
        assert unexpected == []
        assert set(missing) == set(new) - set(old)

    def test_a_layer_may_be_exchanged_afterwards(self, small):
        insert(small, look())
        small.head = nn.Linear(5, 7)
        assert small(picture()).shape == (2, 7)

    def test_a_deep_copy_holds_its_own_transformer(self, small):
        insert(small, turn(look()))
        insert(small, turn(look(4)), before="second", name="inside")
        copied = copy.deepcopy(small)
        wanted = small(picture())
        torch.testing.assert_close(copied(picture()), wanted, rtol=0, atol=0)
        for one in (small.transformer, small.inside):
            one.regression.bias.data.zero_()
        torch.testing.assert_close(copied(picture()), wanted, rtol=0, atol=0)
        copied.transformer.regression.bias.data.zero_()
        copied.inside.regression.bias.data.zero_()
        torch.testing.assert_close(copied(picture()), small(picture()), rtol=0, atol=0)

    def test_state_dict_there_and_back(self, small):
        other = insert(copy.deepcopy(small), look())
        insert(small, turn(look()))
        file = io.BytesIO()
        torch.save(small.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(other(picture()), small(picture()), rtol=0, atol=0)

    def test_a_whole_network_is_saved(self):
        network = insert(models.squeezenet1_1().eval(), turn(look()))
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
        torch.testing.assert_close(other(U), network(U), rtol=0, atol=0)

    def test_modes_and_dtypes_go_along(self, small):
        insert(small, look())
        assert small.train().transformer.training
        assert not small.eval().transformer.training
        assert small.double().transformer.regression.weight.dtype == torch.float64
        assert small(picture().double()).dtype == torch.float64

    def test_it_trains_with_the_network(self, small):
        insert(small, look())
        small(picture()).square().sum().backward()
        assert small.transformer.regression.weight.grad.abs().max() > 0
        assert small.head.weight.grad.abs().max() > 0

    def test_apply_leaves_the_start_alone(self, small):
        insert(small, look())

        def stir(module):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)

        small.apply(stir)
        assert not small.transformer.regression.weight.any()


class TestWhere:
    def test_before_a_layer_it_sees_what_the_layer_would(self, small):
        transformer = turn(look(4))
        with torch.no_grad():
            inside = transformer(small.first(picture()))
            wanted = small.head(small.second(inside).amax(dim=(2, 3)))
            insert(small, transformer, before="second")
            torch.testing.assert_close(small(picture()), wanted, rtol=0, atol=0)

    def test_the_last_one_inserted_looks_first(self, small):
        turned, plain = turn(look(), 90.0), turn(look(), 20.0)
        with torch.no_grad():
            wanted = small(turned(plain(picture())))
            insert(small, turned)
            insert(small, plain, name="first_of_all")
            torch.testing.assert_close(small(picture()), wanted, rtol=0, atol=0)

    def test_several_views(self, small):
        views = SpatialTransformer(FullyConnectedLocalisation((3, 8, 8), (8,)), views=2)
        insert(small, views)
        assert small(picture()).shape == (4, 2)

    def test_other_arguments_pass(self):
        class Asked(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.MaxPool2d(2)

            def forward(self, U, *, factor):
                return factor * self.layer(U)

        network = insert(Asked(), look())
        torch.testing.assert_close(network(picture(), factor=2.0), 2 * network(picture(), factor=1))

    def test_only_keywords(self, small):
        insert(small, look())
        with pytest.raises(TypeError, match="must be called with its input as the first argument"):
            small(U=picture())

    def test_tokens_are_no_picture(self):
        network = insert(vit().eval(), look(), before="encoder")
        with pytest.raises(ValueError, match=r"U must have shape \(N, C, H, W\)"):
            network(U)


class TestCompiled:
    # At the input it runs before what is compiled, and dynamo asks its output for a gradient.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
    @pytest.mark.parametrize("before", [None, "second"])
    def test_compile(self, small, before):
        transformer = turn(look(3 if before is None else 4))
        insert(small, transformer, before)
        compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(picture()), small(picture()))

    @pytest.mark.parametrize("before", [None, "second"])
    def test_export(self, small, before):
        transformer = turn(look(3 if before is None else 4))
        insert(small, transformer, before)
        exported = torch.export.export(small, (picture(),)).module()
        torch.testing.assert_close(exported(picture(1)), small(picture(1)))


class TestBadInput:
    @pytest.mark.parametrize(
        ("wrong", "nearest"),
        [("layer5", "layer"), ("layer2.0.cnv2", "layer2.0.conv2"), ("maxpol", "maxpool")],
    )
    def test_a_layer_that_is_not_there(self, wrong, nearest):
        with pytest.raises(ValueError, match=rf"ResNet has no layer '{wrong}'; did you mean"
                           rf" '{nearest}"):  # fmt: skip
            insert(models.resnet18(), look(), before=wrong)

    def test_nothing_has_changed_then(self, small):
        before = set(small.state_dict())
        with pytest.raises(ValueError, match="has no layer ''"):
            insert(small, look(), before="")
        assert set(small.state_dict()) == before
        small(picture())

    def test_a_name_that_is_taken(self, small):
        insert(small, look())
        with pytest.raises(ValueError, match="it has 'transformer' already"):
            insert(small, look())
        with pytest.raises(ValueError, match="it has 'head' already"):
            insert(small, look(), name="head")
        with pytest.raises(ValueError, match=r"one word without a dot, but 'a\.b'"):
            insert(small, look(), name="a.b")

    def test_no_modules(self, small):
        with pytest.raises(TypeError, match=r"network must be a torch.nn.Module, but a str"):
            insert("resnet18", look())
        with pytest.raises(TypeError, match=r"transformer must be .*, but a Rotation|but a type"):
            insert(small, SpatialTransformer)

    def test_a_sequential(self):
        with pytest.raises(TypeError, match=r"nn\.Sequential\(transformer, \*layers\)"):
            insert(nn.Sequential(nn.Conv2d(3, 4, 3)), look())


def test_any_transform_and_any_localisation_net():
    network = models.squeezenet1_1().eval()
    with torch.no_grad():
        before = network(U)
        turned = SpatialTransformer(ConvolutionalLocalisation(3), transform=Rotation()).eval()
        assert (insert(network, turned)(U) - before).abs().max() < 1e-5
