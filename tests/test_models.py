"""The paper's classifiers: their layers, their sizes, and that each of them learns."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stn_tutorial import models
from stn_tutorial._facts import CERTAINTY, assumptions
from stn_tutorial.models import MODELS, build, count_parameters, size_table
from stn_tutorial.transformer import Affine, Projective, SpatialTransformer, ThinPlateSpline

SIDES = (28, 42, 60)
TRANSFORMERS = [name for name in MODELS if name.startswith("st-")]


def kinds(module):
    return [type(layer).__name__ for layer in module]


def test_names():
    plain = ["fcn", "cnn"]
    transformed = [f"st-{name}-{t}" for name in plain for t in ("affine", "projective", "tps")]
    assert list(MODELS) == plain + transformed


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_scores(name, side, batch_norm):
    model = build(name, (side, side), batch_norm=batch_norm, dropout=0.2 * batch_norm)
    U = torch.rand(3, 1, side, side)
    assert model(U).shape == (3, 10)
    model.eval()
    torch.testing.assert_close(model(U)[:1], model(U[:1]))


# --- Sizes ---


@pytest.mark.parametrize("side", SIDES)
def test_models_of_one_canvas_have_about_the_same_size(side):
    table = size_table((side, side))
    assert tuple(table) == MODELS
    counts = [row["parameters"] for row in table.values()]
    assert all(abs(count - 400_000) <= 0.0309 * 400_000 for count in counts), table
    assert max(counts) / min(counts) < 1.046
    for name, row in table.items():
        model = build(name, (side, side))
        assert row["parameters"] == count_parameters(model)
        assert row["width"] == models.width(name, (side, side))
        assert (row["transformer"] > 0) == name.startswith("st-")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", MODELS)
def test_width_is_the_nearest(name, side):
    """The nearest multiple of 8; or, if none is within 4 %, the nearest of all."""
    kind, transform = models.digits._parts(name, side)
    pooled = side // (2 if side >= 42 else 1)
    fixed = count_parameters(models.digits._transformer(kind, transform, side)) if transform else 0
    off = {
        width: abs(
            count_parameters(models.digits.CLASSIFIERS[kind](pooled, width)) + fixed - 400_000
        )
        for width in range(80, 456)
        if abs(width - models.width(name, (side, side))) <= 8
    }
    eights = {width: count for width, count in off.items() if width % 8 == 0}
    best = min(eights, key=eights.get)
    if eights[best] > 0.04 * 400_000:
        assert (kind, bool(transform), side) == ("cnn", True, 60)
        best = min(off, key=off.get)
    assert models.width(name, (side, side)) == best


def test_known_widths():
    found = {side: [models.width(name, (side, side)) for name in MODELS] for side in SIDES}
    assert found == {
        28: [352, 88, 328, 328, 328, 88, 88, 88],
        42: [448, 88, 400, 400, 400, 88, 88, 88],
        60: [320, 88, 248, 248, 240, 84, 84, 84],
    }


def test_known_counts():
    """By hand, on 28×28: 784u + u + u² + u + 10u + 10, and 82f + 49f² + f + 40f + 10."""
    u, f = models.width("fcn"), models.width("cnn")
    assert count_parameters(build("fcn")) == 784 * u + u + u * u + u + 10 * u + 10
    assert count_parameters(build("cnn")) == 82 * f + 49 * f * f + f + 40 * f + 10
    table = size_table()
    # 784·32 + 32, twice 32·32 + 32, and the affine layer's 32·6 + 6.
    assert table["st-fcn-affine"]["transformer"] == 25_120 + 2 * 1_056 + 198
    # 25·20 + 20, 25·20·20 + 20, 20·20 + 20 (all that 28×28 leaves is 1×1), and 20·6 + 6.
    assert table["st-cnn-affine"]["transformer"] == 520 + 10_020 + 420 + 126
    assert table["st-cnn-projective"]["transformer"] - table["st-cnn-affine"]["transformer"] == 42
    assert table["st-cnn-tps"]["transformer"] - table["st-cnn-affine"]["transformer"] == 26 * 21


def test_a_width_of_ones_own():
    """By hand, as above; the localisation net is the paper's at any width."""
    assert count_parameters(build("fcn", units=256)) == 785 * 256 + 257 * 256 + 2570
    assert count_parameters(build("cnn", units=32)) == 82 * 32 + 49 * 32 * 32 + 32 + 40 * 32 + 10
    table = size_table()["st-cnn-affine"]
    model = build("st-cnn-affine", units=32)
    assert count_parameters(model.transformer) == table["transformer"]
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(ValueError, match="at least 1 is expected, but 0 was given"):
        build("fcn", units=0)


def test_count_parameters_counts_what_is_trained():
    layer = nn.Linear(3, 2)
    assert count_parameters(layer) == 8
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6


# --- Layers ---


def test_layers_are_the_papers():
    fcn, cnn = build("fcn").classifier, build("cnn").classifier
    assert kinds(fcn) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert fcn[1].out_features == fcn[3].out_features
    once = ["Conv2d", "MaxPool2d", "ReLU"]  # the paper's ReLU comes first; it is the same
    assert kinds(cnn) == [*once, *once, "Flatten", "Linear"]
    assert [cnn[k].kernel_size for k in (0, 3)] == [(9, 9), (7, 7)]
    for k in (0, 3):
        assert cnn[k].stride == (1, 1)
        assert cnn[k].padding == (0, 0)
    assert cnn[0].out_channels == cnn[3].out_channels


@pytest.mark.parametrize("name", ["cnn", "st-cnn-affine"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_pooling_before_the_relu_is_the_same(name, batch_norm, monkeypatch):
    """Values and gradients, bit for bit, and the names of the weights; whole plateaus too."""
    U = torch.rand(8, 1, 28, 28).round(decimals=1) * (torch.rand(8, 1, 28, 28) > 0.7)
    found = []
    for swapped in (True, False):
        if not swapped:
            monkeypatch.setattr(models.digits, "pooled_first", lambda layers: layers)
        torch.manual_seed(0)
        model = build(name, batch_norm=batch_norm)
        first = next(kind for kind in kinds(model.classifier) if kind in ("ReLU", "MaxPool2d"))
        assert first == ("MaxPool2d" if swapped else "ReLU")
        scores = model(U)
        F.cross_entropy(scores, torch.arange(8)).backward()
        found.append({"": scores} | {k: p.grad for k, p in model.named_parameters()})
        found[-1] |= model.state_dict(prefix="state ")
    assert list(found[0]) == list(found[1])
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize(("side", "left"), [(28, 2), (42, 1), (60, 3)])
def test_arithmetic_of_the_convolutions(side, left):
    model = build("cnn", (side, side))
    V = model.classifier[:6](model.pool(torch.rand(1, 1, side, side)))
    assert V.shape[2:] == (left, left)


@pytest.mark.parametrize("name", MODELS)
def test_larger_canvases_are_pooled_after_the_transformer(name):
    assert isinstance(build(name).pool, nn.Identity)
    model = build(name, (42, 42)).eval()
    assert model.pool.kernel_size == 2
    U = torch.rand(2, 1, 42, 42)
    if model.transformer is not None:
        assert model.transformer(U).shape == U.shape
    # At the start the transformer changes nothing, so all see the same pooled picture.
    expected = model.classifier(F.avg_pool2d(U, 2))
    torch.testing.assert_close(model(U), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_transformer_starts_at_the_identity(name):
    model = build(name, batch_norm=True)
    U = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model.transformer(U), U, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transforms(name):
    kind = {"affine": Affine, "projective": Projective, "tps": ThinPlateSpline}
    transformer = build(name).transformer
    assert isinstance(transformer, SpatialTransformer)
    assert type(transformer.transform) is kind[name.rpartition("-")[2]]
    dof = {"affine": 6, "projective": 8, "tps": 32}
    assert transformer.regression.out_features == dof[name.rpartition("-")[2]]
    convolutions = [m for m in transformer.localisation.modules() if isinstance(m, nn.Conv2d)]
    if "cnn" in name:
        assert [(m.out_channels, m.kernel_size) for m in convolutions] == [(20, (5, 5))] * 2
    else:
        assert not convolutions
        dense = [m for m in transformer.localisation.modules() if isinstance(m, nn.Linear)]
        assert [m.out_features for m in dense] == [32, 32, 32]


@pytest.mark.parametrize("name", MODELS)
def test_batch_norm_and_dropout_are_added_and_nothing_else(name):
    plain, modern = build(name), build(name, batch_norm=True, dropout=0.25)
    added = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)

    def layers(model):
        return [m for m in model.modules() if not list(m.children())]

    left = [m for m in layers(modern) if not isinstance(m, added)]
    assert [repr(m) for m in left] == [repr(m) for m in layers(plain)]
    norms = [m for m in layers(modern) if isinstance(m, added[:2])]
    relus = [m for m in layers(plain) if isinstance(m, nn.ReLU)]
    assert len(norms) == len(relus)
    assert kinds(modern.classifier)[-2:] == ["Dropout", "Linear"]
    assert modern.classifier[-2].p == 0.25
    for module in modern.modules():
        if isinstance(module, nn.Sequential):
            order = [kind for kind in kinds(module) if kind != "MaxPool2d"]
            assert all(
                order[k - 1].startswith("BatchNorm") for k, v in enumerate(order) if v == "ReLU"
            )


# --- Learning ---


@pytest.mark.parametrize("name", MODELS)
def test_each_part_gets_a_gradient(name):
    torch.manual_seed(0)
    model = build(name)
    if model.transformer is not None:  # off the identity, where the regression's weights are zero
        nn.init.normal_(model.transformer.regression.weight, std=0.1)
    U, target = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
    F.cross_entropy(model(U), target).backward()
    for parameter in model.parameters():
        assert parameter.grad.abs().max() > 0


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build("st-cnn-tps").parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


# --- Bad input ---


def test_says_what_is_wrong():
    for call in (build, models.width):
        with pytest.raises(
            ValueError, match=r"model must be one of fcn, cnn, .*but 'vgg' was given"
        ):
            call("vgg")
    for size in ((20, 20), (28, 30), (27, 28)):
        with pytest.raises(ValueError, match=r"size must be a square of 21 pixels a side or more"):
            build("cnn", size)
    with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
        size_table(28)
    with pytest.raises(ValueError, match=r"U must have shape \(N, C, H, W\)"):
        build("cnn")(torch.rand(28, 28))


def test_assumptions_are_named():
    assert all(fact.mark in CERTAINTY for fact in models.FACTS)
    said = " ".join(assumptions(models.FACTS))
    for what in ("400 thousand (as we understand", "32 units", "odd last row", "same width"):
        assert what in said
    assert "ReLU" not in said
