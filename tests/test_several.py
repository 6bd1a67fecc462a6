"""Transformers side by side and in series: known values, gradients, starts, guards, compilation."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stn_tutorial import affine, grids
from stn_tutorial.training import Recipe, train
from stn_tutorial.training.recipe import make_optimiser
from stn_tutorial.training.watch import CollapsedTransformerWarning
from stn_tutorial.transformer import (
    Affine,
    Affine3d,
    Attention,
    Chain,
    FullyConnectedLocalisation,
    ParallelTransformer,
    PiecewiseAffine,
    Projective,
    Rotation,
    SeriesTransformer,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
    crowding,
    tiling,
)

FAMILIES = (
    *(Affine, Attention, Projective, Similarity, Translation, Rotation, ThinPlateSpline),
    *(PiecewiseAffine, lambda: Chain(Attention(), Rotation())),
)


def net(shape=(2, 9, 7), width=8):
    return FullyConnectedLocalisation(shape, (width,))


def parallel(count=2, each=True, shape=(2, 9, 7), seed=0, **settings):
    torch.manual_seed(seed)
    nets = [net(shape) for _ in range(count)] if each else net(shape)
    return ParallelTransformer(nets, count, **settings)


def stirred(module, scale=0.3, seed=0):
    """Give the last layers weights, so that θ depends on the input."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "regression" in name:
            nn.init.normal_(parameter, std=scale)
    return module


def series(*transforms, shape=(2, 9, 7), seed=0, **settings):
    torch.manual_seed(seed)
    steps = [SpatialTransformer(net(shape), transform=one) for one in transforms]
    return SeriesTransformer(steps, **settings)


U = torch.rand(3, 2, 9, 7, generator=torch.Generator().manual_seed(0))


class TestTiling:
    @pytest.mark.parametrize("count", range(1, 12))
    def test_each_point_of_the_picture_lies_in_one_window(self, count):
        theta = tiling(count)
        assert theta.shape == (count, 2, 3)
        assert theta.dtype == torch.float32
        # At random, so that none lies on an edge.
        at = 2 * torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) - 1
        # Where a window shows a point: inside ±1 for exactly one of them.
        shown = (at - theta[:, None, :, 2]) / theta[:, [0, 1], [0, 1]][:, None]
        assert ((shown.abs() < 1).all(dim=-1).sum(dim=0) == 1).all()
        areas = theta[:, 0, 0] * theta[:, 1, 1]
        torch.testing.assert_close(areas.sum(), torch.tensor(1.0))
        assert (theta[:, [0, 1], [1, 0]] == 0).all()

    def test_known_values(self):
        assert tiling(1).tolist() == affine.identity().tolist()
        rows = [[[0.5, 0, x], [0, 0.5, y]] for y in (-0.5, 0.5) for x in (-0.5, 0.5)]
        assert tiling(4).tolist() == rows
        three = tiling(3)
        torch.testing.assert_close(three[2], affine.crop((-1, 0, 1, 1))[0])

    def test_square_windows(self):
        theta = tiling(2, side=0.5)
        assert theta.tolist() == [[[0.5, 0, x], [0, 0.5, 0]] for x in (-0.5, 0.5)]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0,), "count must be a whole number, 1 or more, but 0 was given"),
            ((2.0,), "count must be a whole number"),
            ((2, 0.0), r"side must be a share of the picture's, above 0, but 0\.0 was given"),
            ((2, float("nan")), "side must be a share"),
            ((2, "half"), "side must be a share"),
        ],
    )
    def test_guards(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            tiling(*arguments)


class TestCrowding:
    def test_known_values(self):
        centres = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [0.0, 3.0]]])
        assert crowding(centres, 1.0).item() == pytest.approx(0.5625 / 3)
        assert crowding(centres[:, :2], 0.5).item() == 0
        assert crowding(torch.zeros(4, 2, 2), 0.1).item() == 1
        assert crowding(torch.zeros(4, 1, 2), 0.1).item() == 0
        assert crowding(torch.zeros(0, 2, 2), 0.1).item() == 0

    def test_is_the_mean_over_pictures(self):
        centres = torch.rand(5, 4, 3, dtype=torch.float64)
        each = [crowding(one[None], 0.8) for one in centres]
        torch.testing.assert_close(crowding(centres, 0.8), torch.stack(each).mean())

    def test_gradients(self):
        torch.manual_seed(0)
        centres = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda c: crowding(c, 1.5), centres)
        assert torch.autograd.gradgradcheck(lambda c: crowding(c, 1.5), centres)

    def test_parts_what_is_near_and_not_what_is_one(self):
        near = torch.tensor([[[0.0, 0.0], [0.1, 0.0]]], requires_grad=True)
        crowding(near, 1.0).backward()
        # A step down the gradient takes the first to the left, the second to the right.
        assert near.grad[0, 0, 0] > 0 > near.grad[0, 1, 0]
        one = torch.zeros(1, 2, 2, requires_grad=True)
        crowding(one, 1.0).backward()
        assert (one.grad == 0).all()

    @pytest.mark.parametrize("distance", [0.0, -1.0, float("nan"), float("inf"), "near"])
    def test_a_distance_that_is_none(self, distance):
        with pytest.raises(ValueError, match="distance must be a number above 0"):
            crowding(torch.zeros(1, 2, 2), distance)

    def test_a_wrong_shape(self):
        with pytest.raises(ValueError, match=r"centres must have shape \(N, K, axes\)"):
            crowding(torch.zeros(2, 2), 1.0)


class TestParallel:
    @pytest.mark.parametrize("each", [True, False])
    @pytest.mark.parametrize("join", ["channels", "stack"])
    def test_is_the_input_several_times_at_first(self, each, join):
        look = parallel(3, each, join=join)
        views = look(U)
        expected = [U, U, U]
        if join == "channels":
            torch.testing.assert_close(views, torch.cat(expected, dim=1))
        else:
            torch.testing.assert_close(views, torch.stack(expected, dim=1))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_is_its_transformers_one_by_one(self, family):
        look = stirred(parallel(2, transform=family(), size=(5, 6)))
        views, thetas = look(U, return_theta=True)
        alone = [one(U, return_theta=True) for one in look.transformers]
        assert torch.equal(views, torch.cat([V for V, _ in alone], dim=1))
        assert all(torch.equal(a, b) for a, (_, b) in zip(thetas, alone, strict=True))
        assert not torch.equal(thetas[0], thetas[1])

    def test_of_different_families(self):
        look = stirred(parallel(2, transform=[Rotation(), ThinPlateSpline(3)]))
        views, thetas = look(U, return_theta=True)
        assert views.shape == (3, 4, 9, 7)
        assert [t.shape[1:] for t in thetas] == [(2, 3), (9, 2)]

    def test_one_net_for_all_is_run_once(self):
        look = stirred(parallel(3, each=False))
        runs = []
        look.localisation.register_forward_hook(lambda *_: runs.append(1))
        thetas = look.thetas(U)
        assert len(runs) == 1
        features = look.localisation(U)
        for one, theta in zip(look.transformers, thetas, strict=True):
            offsets = one.regression(features)
            assert torch.equal(theta, Affine().theta(offsets))
        names = {name.split(".")[0] for name in look.state_dict()}
        assert names == {"localisation", "transformers"}
        weights = sum(p.numel() for p in look.parameters())
        assert weights == 126 * 8 + 8 + 3 * (8 * 6 + 6)

    def test_chosen_channels(self):
        look = stirred(parallel(2, channels=[(1,), (0, 1)]))
        views, thetas = look(U, return_theta=True)
        first, second = look.transformers
        assert torch.equal(views[:, :1], first.sample(U[:, 1:], thetas[0]))
        assert torch.equal(views[:, 1:], second.sample(U, thetas[1]))
        # The nets look at all of U.
        other = U.clone()
        other[:, 0] = 1 - other[:, 0]
        assert not torch.equal(look.thetas(other)[0], thetas[0])

    def test_the_centres_are_where_the_middle_reads(self):
        look = stirred(parallel(2, transform=[Projective(), ThinPlateSpline(3)], size=(5, 7)))
        thetas = look.thetas(U)
        centres = look.centres(thetas)
        grids_ = look.grids(U)
        # 5×7 has a middle pixel, whose centre is the output's.
        expected = torch.stack([g[:, 2, 3] for g in grids_], dim=1)
        torch.testing.assert_close(centres, expected, atol=1e-6, rtol=0)

    def test_volumes(self):
        torch.manual_seed(0)
        V = torch.rand(2, 1, 4, 5, 6)
        nets = [FullyConnectedLocalisation((1, 4, 5, 6), (8,)) for _ in range(2)]
        start = torch.eye(3, 4).repeat(2, 1, 1)
        start[:, 0, 3] = torch.tensor([-0.5, 0.5])
        look = ParallelTransformer(nets, 2, Affine3d(), start=start)
        views, thetas = look(V, return_theta=True)
        assert views.shape == (2, 2, 4, 5, 6)
        right = torch.tensor([[-0.5, 0, 0], [0.5, 0, 0]])
        torch.testing.assert_close(look.centres(thetas)[0], right)

    @pytest.mark.parametrize("each", [True, False])
    def test_gradients(self, each):
        look = stirred(parallel(2, each, transform=[Affine(), Attention()])).double()
        picture = torch.rand(2, 2, 9, 7, dtype=torch.float64, requires_grad=True)
        biases = [one.regression.bias for one in look.transformers]

        def both(picture, *_):
            views, thetas = look(picture, return_theta=True)
            return views.sum(), crowding(look.centres(thetas), 1.0)

        assert torch.autograd.gradcheck(both, (picture, *biases), eps=1e-7, atol=1e-4)

    def test_dtypes_and_autocast(self):
        look = stirred(parallel(2))
        assert look.sample(U.double(), look.thetas(U)).dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            views, thetas = look(U, return_theta=True)
        assert views.dtype == U.dtype
        assert all(theta.dtype == torch.float32 for theta in thetas)

    def test_an_empty_batch(self):
        views, thetas = parallel(2)(U[:0], return_theta=True)
        assert views.shape == (0, 4, 9, 7)
        assert thetas[0].shape == (0, 2, 3)

    def test_can_be_copied_saved_and_printed(self):
        look = stirred(parallel(2, start=tiling(2)))
        file = io.BytesIO()
        torch.save(look.state_dict(), file)
        file.seek(0)
        other = parallel(2, seed=5)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(U), look(U))
        assert torch.equal(copy.deepcopy(look)(U), look(U))
        assert "count=2, join='channels'" in repr(look)


class TestStart:
    @pytest.mark.parametrize(
        "family",
        [Affine, Projective, ThinPlateSpline, PiecewiseAffine, lambda: Chain(Affine(), Rotation())],
    )
    def test_families_that_show_any_window(self, family):
        look = parallel(3, transform=family(), start=tiling(3), size=(5, 6))
        expected = [grids.affine_grid(theta[None], (5, 6)) for theta in tiling(3)]
        for grid, right in zip(look.grids(U), expected, strict=True):
            torch.testing.assert_close(grid, right.expand_as(grid), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("family", [Attention, Similarity])
    def test_families_that_show_square_ones(self, family):
        look = parallel(2, transform=family(), start=tiling(2, 0.5))
        for theta, right in zip(look.thetas(U), tiling(2, 0.5), strict=True):
            torch.testing.assert_close(theta, right.expand_as(theta))
        with pytest.raises(ValueError, match=rf"start must be windows that a {family.__name__}"):
            parallel(2, transform=family(), start=tiling(2))

    def test_a_rotation_shows_no_window(self):
        with pytest.raises(ValueError, match="windows that a Rotation can show"):
            parallel(2, transform=Rotation(), start=tiling(2))
        # A turn it finds, though it is not linear in its offset.
        turns = affine.rotation(torch.tensor([20.0, -35.0]))
        look = parallel(2, transform=Rotation(), start=turns, shape=(2, 8, 8))
        square = torch.rand(1, 2, 8, 8)
        for theta, right in zip(look.thetas(square), turns, strict=True):
            torch.testing.assert_close(theta[0], right)

    def test_depends_on_no_picture_and_learns_from_the_first_step(self):
        look = parallel(2, start=tiling(2))
        assert torch.equal(look.thetas(U)[0], look.thetas(1 - U)[0])
        look(U).square().sum().backward()
        for one in look.transformers:
            assert one.regression.weight.grad.abs().max() > 0

    def test_comes_back(self):
        look = stirred(parallel(2, start=tiling(2)))
        look.reset_parameters()
        torch.testing.assert_close(look.thetas(U)[1][0], tiling(2)[1])
        plain = stirred(parallel(2))
        plain.reset_parameters()
        torch.testing.assert_close(plain.thetas(U)[1][0], affine.identity()[0])

    def test_an_initialiser_leaves_it_alone(self):
        def initialise(module):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight)
                nn.init.ones_(module.bias)

        network = nn.Sequential(parallel(2, start=tiling(2)), nn.Flatten(), nn.Linear(252, 3))
        before = network[0].transformers[0].localisation[1].weight.clone()
        network.apply(initialise)
        torch.testing.assert_close(network[0].thetas(U)[1][0], tiling(2)[1])
        assert not torch.equal(network[0].transformers[0].localisation[1].weight, before)
        learned = stirred(parallel(2, start=tiling(2)))
        learned.apply(initialise)
        assert (learned.transformers[0].regression.bias == 1).all()


class TestDiversity:
    """Why a start of their own is needed: the claim of the class, with what would refute it."""

    @staticmethod
    def described(start, seed=0):
        """Two windows, one localisation net, one network of each view, the mean of both."""
        torch.manual_seed(seed)
        look = ParallelTransformer(net(), 2, start=start, join="stack")
        describe = nn.Sequential(nn.Flatten(), nn.Linear(126, 16), nn.ReLU())
        score = nn.Linear(16, 3)

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.look, self.describe, self.score = look, describe, score

            def forward(self, U):
                views = self.look(U)
                each = self.describe(views.flatten(0, 1)).unflatten(0, views.shape[:2])
                return self.score(each.mean(dim=1))

        return Network()

    @staticmethod
    def batch(step):
        generator = torch.Generator().manual_seed(step)
        target = torch.randint(3, (16,), generator=generator)
        V = torch.rand(16, 2, 9, 7, generator=generator) * 0.3
        V[torch.arange(16), 0, 2 * target] += 0.7
        return V, target

    def train(self, start):
        network = self.described(start)
        recipe = Recipe(steps=30, batch_size=16, optimiser="adamw", learning_rate=0.01)
        train(network, self.batch, recipe)
        first, second = network.look.thetas(U)
        return first, second

    def test_what_starts_alike_stays_alike(self):
        first, second = self.train(None)
        assert (first - affine.identity()).abs().max() > 0.01  # it has learned something
        assert torch.equal(first, second)

    def test_and_what_does_not_does_not(self):
        first, second = self.train(tiling(2))
        assert (first - second).abs().max() > 0.5


class TestSeries:
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_is_the_identity_at_first(self, count):
        V, thetas = series(*[Affine() for _ in range(count)])(U, return_theta=True)
        torch.testing.assert_close(V, U)
        assert len(thetas) == count

    def test_of_one_step_is_that_step(self):
        look = stirred(series(Affine()))
        assert torch.equal(look(U), look.transformers[0](U))

    @pytest.mark.parametrize("first", FAMILIES)
    def test_is_read_along_the_chain_of_its_steps(self, first):
        look = stirred(series(first(), Affine(), size=(5, 6)))
        V, thetas = look(U, return_theta=True)
        chain = Chain(*[step.transform for step in look.transformers])
        grid = chain.grid(torch.cat([t.flatten(1) for t in thetas], dim=1), (5, 6))
        torch.testing.assert_close(V, F.grid_sample(U, grid, align_corners=False))

    def test_affine_steps_compose_as_matrices_do(self):
        look = stirred(series(Affine(), Affine(), Affine()))
        thetas = look.thetas(U)
        composed = affine.compose(*thetas)
        expected = grids.affine_grid(composed, (9, 7))
        torch.testing.assert_close(look.grid(thetas, (9, 7)), expected)

    def test_a_step_sees_what_those_before_it_have_made(self):
        look = stirred(series(Rotation(), Attention()))
        thetas = look.thetas(U)
        between = look.transformers[0].sample(U, thetas[0])
        assert torch.equal(look.transformers[1].theta(between), thetas[1])
        assert not torch.equal(look.transformers[1].theta(U), thetas[1])

    def test_what_the_first_step_cut_off_comes_back(self):
        """Beside two modules in a row, which lose it."""
        look = series(Attention(), Attention())
        closer = Attention().theta(torch.tensor([[-0.5, 0.0, 0.0]]))
        further = Attention().theta(torch.tensor([[1.0, 0.0, 0.0]]))
        one = U[:1]
        back = look.sample(one, [closer, further])
        torch.testing.assert_close(back, one)
        twice = look.transformers[1].sample(look.transformers[0].sample(one, closer), further)
        assert (twice - one).abs().max() > 0.3

    def test_one_step_several_times_has_one_set_of_weights(self):
        torch.manual_seed(0)
        step = SpatialTransformer(net(), transform=Attention())
        look = stirred(SeriesTransformer([step, step, step]))
        assert len(list(look.parameters())) == len(list(step.parameters()))
        thetas = look.thetas(U)
        assert torch.equal(thetas[1], step.theta(step.sample(U, thetas[0])))
        assert not torch.equal(thetas[0], thetas[1])

    def test_gradients(self):
        look = stirred(series(Affine(), Attention())).double()
        picture = torch.rand(2, 2, 9, 7, dtype=torch.float64, requires_grad=True)
        biases = [one.regression.bias for one in look.transformers]
        assert torch.autograd.gradcheck(
            lambda picture, *_: look(picture).sum(), (picture, *biases), eps=1e-7, atol=1e-4
        )

    def test_the_first_step_learns_through_the_second(self):
        look = series(Affine(), Affine())
        look(U).square().sum().backward()
        assert all(one.regression.weight.grad.abs().max() > 0 for one in look.transformers)

    def test_an_average_over_the_area(self):
        wide = torch.rand(2, 2, 8, 8)
        look = series(Affine(), Affine(), shape=(2, 8, 8), size=(4, 4), antialias=True)
        torch.testing.assert_close(look(wide), F.avg_pool2d(wide, 2))

    def test_volumes_fill_and_print(self):
        V = torch.rand(2, 1, 4, 5, 6)
        step = SpatialTransformer(
            FullyConnectedLocalisation((1, 4, 5, 6), (8,)), transform=Affine3d()
        )
        look = SeriesTransformer([step, step], fill=0.5)
        torch.testing.assert_close(look(V), V)
        away = torch.eye(3, 4).repeat(2, 1, 1)
        away[:, 0, 3] = 9
        assert (look.sample(V, [away]) == 0.5).all()
        assert "fill=0.5" in repr(look)
        assert [grid.shape for grid in look.grids(V)] == [(2, 4, 5, 6, 3)]


class TestInATraining:
    @pytest.mark.parametrize(
        "look",
        [
            parallel(2, shape=(1, 6, 6)),
            parallel(2, each=False, shape=(1, 6, 6)),
            series(Affine(), Affine(), shape=(1, 6, 6)),
        ],
    )
    def test_the_localisation_rate_is_for_all_of_its_weights(self, look):
        model = nn.Sequential(look, nn.Flatten(), nn.Linear(36, 3))
        recipe = Recipe(steps=1, localisation_rate=0.1)
        classifier, transformers = make_optimiser(model, recipe).param_groups
        assert (classifier["factor"], transformers["factor"]) == (1.0, 0.1)
        assert set(transformers["params"]) == set(look.parameters())

    @pytest.mark.parametrize("each", [True, False])
    def test_a_collapse_is_seen(self, each):
        start = tiling(2)
        start[1, 0, 2] = 9.0  # the second one reads past the picture
        look = parallel(2, each, shape=(1, 6, 6), start=start)
        model = nn.Sequential(look, nn.Flatten(), nn.Linear(72, 3))

        def batch(step):
            generator = torch.Generator().manual_seed(step)
            return torch.rand(12, 1, 6, 6, generator=generator), torch.zeros(12, dtype=torch.int64)

        with pytest.warns(CollapsedTransformerWarning, match=r"the transformer '0\.1'"):
            train(model, batch, Recipe(steps=1, batch_size=12))


class Compiled(nn.Module):
    def __init__(self, look):
        super().__init__()
        self.look = look

    def forward(self, U):
        views, thetas = self.look(U, return_theta=True)
        return views, torch.cat([theta.flatten(1) for theta in thetas], dim=1)


LOOKS = {
    "parallel": lambda: parallel(2, size=(5, 6), start=tiling(2)),
    "one net": lambda: parallel(2, each=False, transform=ThinPlateSpline(3), size=(5, 6)),
    "channels": lambda: parallel(2, channels=[(0,), (1,)], join="stack"),
    "series": lambda: series(Affine(), Projective()),
}


@pytest.mark.parametrize("name", LOOKS)
def test_compiles_and_exports(name):
    torch._dynamo.reset()
    model = Compiled(stirred(LOOKS[name]())).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    exported = torch.export.export(
        model, (U,), dynamic_shapes={"U": {0: torch.export.Dim("n", min=2)}}
    ).module()
    for n in (3, 2, 5):
        V = torch.rand(n, 2, 9, 7)
        for other in (compiled, exported):
            for ours, theirs in zip(model(V), other(V), strict=True):
                torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: parallel(0), ValueError, "count must be a whole number, 1 or more"),
        (
            lambda: ParallelTransformer([net()], 2),
            ValueError,
            "localisation must be one Module, or 2 of them in a sequence, but 1 were given",
        ),
        (
            lambda: ParallelTransformer(net(), 2, [Affine()] * 3),
            ValueError,
            "transform must be one Transform, or 2 of them in a sequence, but 3 were given",
        ),
        (lambda: parallel(2, transform=Affine), TypeError, "must be a Transform object"),
        (lambda: ParallelTransformer(nn.Flatten(), 2), TypeError, "features must be how many"),
        (lambda: parallel(2, join="sum"), ValueError, "join must be one of channels, stack"),
        (lambda: parallel(2, channels=[(0,)]), ValueError, "channels must name one or more for"),
        (lambda: parallel(2, channels=[(0,), ()]), ValueError, "channels must name one or more"),
        (lambda: parallel(2, channels=[(0,), (-1,)]), ValueError, "channels must be a whole"),
        (
            lambda: parallel(2, channels=[(0,), (0, 1)], join="stack"),
            ValueError,
            "channels must be as many for each transformer",
        ),
        (
            lambda: parallel(2, start=tiling(3)),
            ValueError,
            r"start must have shape \(2, 2, 3\), but shape \(3, 2, 3\) was given",
        ),
        (lambda: parallel(2, start=[1.0]), TypeError, "start must be a torch.Tensor"),
        (lambda: parallel(2, transform=[Affine(), Affine3d()]), ValueError, "but both were given"),
        (lambda: parallel(2)(U[0]), ValueError, r"U must have shape \(N, C, H, W\)"),
        (lambda: parallel(2, channels=[(0,), (2,)])(U), ValueError, "U must have a channel 2"),
        (lambda: parallel(2).sample(U, [affine.identity()]), ValueError, "thetas must be 2, but 1"),
        (lambda: parallel(2).centres([]), ValueError, "thetas must be 2, but 0 were given"),
        (
            lambda: ParallelTransformer(nn.Sequential(net(), nn.Linear(8, 5)), 2, features=4)(U),
            ValueError,
            r"localisation must return shape \(N, features\) = \(3, 4\), but \(3, 5\)",
        ),
        (lambda: SeriesTransformer([]), ValueError, "one SpatialTransformer or more, but none"),
        (lambda: SeriesTransformer([net()]), TypeError, "steps must be SpatialTransformers, but a"),
        (
            lambda: SeriesTransformer([SpatialTransformer(net(), views=2)]),
            ValueError,
            "one view each and no size of their own, but views=2 and size=None were given",
        ),
        (lambda: series(Affine(), Affine3d()), ValueError, "but both were given"),
        (lambda: series(Affine(), size=(0, 3)), ValueError, "size must be"),
        (lambda: series(Affine(), mode="area"), ValueError, "mode must be one of"),
        (lambda: series(Affine()).grid([], (3, 3)), ValueError, "thetas must be 1 to 1, but 0"),
        (lambda: series(Affine())(U[0]), ValueError, r"U must have shape \(N, C, H, W\)"),
    ],
)
def test_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
