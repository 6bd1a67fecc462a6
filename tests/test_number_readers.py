"""The readers of house numbers: their layers, that they learn, and the cells that train them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import grey
from benchmarks import house_numbers as benchmark
from stn_tutorial import affine, data, experiments
from stn_tutorial._facts import CERTAINTY, assumptions
from stn_tutorial.experiments import house_numbers as cells
from stn_tutorial.models import (
    NUMBER_FACTS,
    NUMBER_MODELS,
    NUMBER_WIDTHS,
    build_number_reader,
)
from stn_tutorial.results import load_results
from stn_tutorial.training import error_rate
from stn_tutorial.training.recipe import Recipe, make_optimiser
from stn_tutorial.transformer import SpatialTransformer


def transformers(model):
    return [m for m in model.modules() if isinstance(m, SpatialTransformer)]


def shifted(model):
    """Give each transformer a θ that depends on the picture."""
    torch.manual_seed(1)
    for look in transformers(model):
        nn.init.normal_(look.regression.weight, std=0.05)
    return model.eval()


class TestTheNetwork:
    @pytest.mark.parametrize("name", NUMBER_MODELS)
    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_scores_are_classes_before_heads(self, name, batch_norm):
        model = build_number_reader(name, (64, 64), "small", batch_norm=batch_norm).eval()
        U = torch.rand(3, 3, 64, 64)
        assert model(U).shape == (3, 11, 5)
        torch.testing.assert_close(model(U)[:1], model(U[:1]))
        assert F.cross_entropy(model(U), torch.zeros(3, 5, dtype=torch.int64)).isfinite()

    def test_eleven_hidden_layers_of_the_papers_widths(self):
        with torch.device("meta"):
            model = build_number_reader("cnn")
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert [c.out_channels for c in convolutions] == [48, 64, 128, 160, 192, 192, 192, 192]
        assert {c.kernel_size for c in convolutions} == {(5, 5)}
        dense = [m for m in model.modules() if isinstance(m, nn.Linear)]
        assert [d.out_features for d in dense] == [3072, 3072, 3072, 55]
        assert dense[0].in_features == 192 * 4 * 4
        pools = [k for k, stage in enumerate(model.stages)
                 if any(isinstance(m, nn.MaxPool2d) for m in stage)]  # fmt: skip
        assert pools == [0, 2, 4, 6]

    def test_at_128_pixels_too(self):
        with torch.device("meta"):
            model = build_number_reader("st-cnn-multi", (128, 128))
            assert model(torch.rand(2, 3, 128, 128)).shape == (2, 11, 5)

    def test_where_the_transformers_stand(self):
        with torch.device("meta"):
            single, multi = (build_number_reader(n) for n in NUMBER_MODELS[1:])
        assert [len(transformers(stage)) for stage in single.stages] == [1] + 7 * [0]
        assert [len(transformers(stage)) for stage in multi.stages] == 4 * [1] + 4 * [0]
        for model in (single, multi):
            for stage in model.stages:
                assert not any(isinstance(m, SpatialTransformer) for m in list(stage)[1:])
        for look in transformers(multi):
            units = [m.out_features for m in look.localisation.modules()
                     if isinstance(m, nn.Linear)]  # fmt: skip
            assert units == [32, 32]
        (look,) = transformers(single)
        layers = [m for m in look.localisation if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == 4

    @pytest.mark.parametrize("name", NUMBER_MODELS[1:])
    def test_a_new_one_reads_as_the_same_layers_without_transformers(self, name):
        torch.manual_seed(0)
        model = build_number_reader(name, (64, 64), "small").eval()
        U = torch.rand(2, 3, 64, 64)
        x = U - U.mean(dim=(1, 2, 3), keepdim=True)
        for stage in model.stages:
            for layer in stage:
                x = x if isinstance(layer, SpatialTransformer) else layer(x)
        plain = model.dense(x).unflatten(1, (5, 11)).transpose(1, 2)
        torch.testing.assert_close(model(U), plain, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(("name", "count"), list(zip(NUMBER_MODELS, (0, 1, 4), strict=True)))
    def test_looks_are_what_the_forward_pass_uses(self, name, count):
        model = shifted(build_number_reader(name, (64, 64), "small"))
        U = torch.rand(3, 3, 64, 64)
        used = []
        for look in transformers(model):
            look.register_forward_hook(lambda module, given, V: used.append(module.theta(*given)))
        model(U)
        for hook in transformers(model):
            hook._forward_hooks.clear()
        found = model.looks(U)
        assert len(found) == len(used) == count
        for one, other in zip(found, used, strict=True):
            assert one.shape == (3, 2, 3)
            assert torch.equal(one, other)

    def test_the_light_of_a_picture_does_not_matter(self):
        model = build_number_reader("cnn", (64, 64), "small").eval()
        U = 0.5 * torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(model(U), model(U + 0.3), atol=1e-4, rtol=1e-4)

    def test_no_head_sees_the_weights_of_another(self):
        model = build_number_reader("cnn", (64, 64), "small").eval()
        U = torch.rand(2, 3, 64, 64)
        before = model(U)
        with torch.no_grad():
            model.dense[-1].weight[11:22] += 1  # the second head's
        after = model(U)
        assert torch.equal(before[:, :, [0, 2, 3, 4]], after[:, :, [0, 2, 3, 4]])
        assert not torch.allclose(before[:, :, 1], after[:, :, 1])

    def test_dropout_spares_the_first_convolution_and_the_localisation_nets(self):
        with torch.device("meta"):
            model = build_number_reader("st-cnn-multi", dropout=0.5, dense_dropout=0.5)
        drops = [name for name, m in model.named_modules() if isinstance(m, nn.Dropout)]
        assert len(drops) == 7 + 3
        assert not any(name.startswith("stages.0.") or "localisation" in name for name in drops)

    def test_a_tenth_of_the_rate_is_the_localisation_nets_alone(self):
        model = build_number_reader("st-cnn-multi", (64, 64), "small")
        recipe = Recipe(steps=1, localisation_rate=0.1)
        groups = make_optimiser(model, recipe).param_groups
        looks = {id(p) for look in transformers(model) for p in look.parameters()}
        for group in groups:
            inside = {id(p) in looks for p in group["params"]}
            assert inside == {group["factor"] == 0.1}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("st-cnn",), "model must be one of cnn, st-cnn-single, st-cnn-multi"),
            (("cnn", (72, 64)), r"multiples of 16, but \(72, 64\) was given"),
            (("cnn", (48, 48), "small"), "multiples of 32"),
            (("cnn", (64, 64), "wide"), "widths must be one of paper, small"),
        ],
    )
    def test_bad_settings(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            build_number_reader(*arguments)

    def test_a_picture_is_expected(self):
        with pytest.raises(ValueError, match=r"U must have shape \(N, C, H, W\)"):
            build_number_reader("cnn", (64, 64), "small")(torch.rand(3, 64, 64))


@pytest.mark.parametrize("name", NUMBER_MODELS)
def test_every_reader_learns_eight_numbers_by_heart_and_its_transformers_move(name):
    torch.manual_seed(0)
    U, target = data.DrawnNumbers(batch_size=8, seed=2)(0)
    model = build_number_reader(name, (64, 64), "small", batch_norm=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(30):
        loss = F.cross_entropy(model(U), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    for look in transformers(model):
        assert look.regression.weight.abs().max() > 1e-4


def test_facts_are_marked_and_the_assumed_ones_called_so():
    assert {fact.mark for fact in NUMBER_FACTS} <= set(CERTAINTY)
    assert any("5×5 too" in line for line in assumptions(NUMBER_FACTS))
    assert NUMBER_WIDTHS["paper"].pool == 1


class Says(nn.Module):
    """Answers what it was told to, whatever it sees."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.place = answers, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, U):
        said = self.answers[self.place : self.place + len(U)]
        self.place += len(U)
        return F.one_hot(said, 11).transpose(1, 2).float()


def test_judged_by_whole_numbers_digits_and_length():
    labels = torch.full((4, 5), 10)
    labels[0, :2] = torch.tensor([4, 2])
    labels[1, :2] = torch.tensor([1, 7])
    labels[2, :1] = 3
    labels[3, :3] = torch.tensor([5, 0, 5])
    said = labels.clone()
    said[1, 1] = 1  # a digit
    said[2, 1] = 8  # one too many: every digit there is right, the number is not
    numbers = data.HouseNumbers(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), labels)
    found = cells.judge_numbers(Says(said), data.FixedNumbers(numbers, batch_size=3))
    assert found["test_error"] == 50
    assert found["digit_error"] == 12.5  # one of eight
    assert found["by_length"] == {"1": [1, 1], "2": [2, 1], "3": [1, 0], "4": [0, 0], "5": [0, 0]}
    assert found["misread"] == [1, 2]
    assert [data.read_number(torch.tensor(a)) for a in found["answers"]] == ["11", "38"]
    assert error_rate(Says(said), data.FixedNumbers(numbers, batch_size=3)) == 50


class TestCells:
    @pytest.fixture
    def few(self, monkeypatch):
        """A few drawn numbers, so that a cell is a matter of seconds."""
        monkeypatch.setitem(data.house_numbers.DRAWN, "train", 96)
        monkeypatch.setitem(data.house_numbers.DRAWN, "test", 40)
        cells._numbers.cache_clear()
        yield
        cells._numbers.cache_clear()

    def test_one_is_trained_and_stands_in_the_table(self, few, tmp_path):
        (cell,) = experiments.EXPERIMENTS["svhn"].cells(
            columns=["drawn-64"], rows=["st-cnn-multi"], seeds=[0], recipe="modern", steps=3
        )
        result = experiments.run(cell, tmp_path)
        assert result["numbers"] == {"train": 80, "held-out": 16, "test": 40}
        assert sum(count for count, _ in result["by_length"].values()) == 40
        assert result["settings"]["dataset"] == "drawn"
        table = experiments.EXPERIMENTS["svhn"].merge(tmp_path)
        (row,) = table["rows"]
        assert (row["numbers"], row["model"], row["paper"]) == ("drawn-64", "st-cnn-multi", None)
        assert row["test_errors"] == [result["test_error"]]
        assert "drawn-64" in experiments.EXPERIMENTS["svhn"].render(table)
        # Finished: read and not run again.
        assert experiments.run(cell, tmp_path) == result

    def test_the_papers_figures_stand_beside_the_whole_set_alone(self):
        layout = experiments.EXPERIMENTS["svhn"].layout
        assert layout.printed("st-cnn-multi", "whole-64", "svhn") == 3.6
        assert layout.printed("cnn", "whole-128", "svhn") == 5.6
        assert layout.printed("cnn", "part-64", "svhn-part") is None

    def test_names_tell_cells_apart(self):
        todo = cells.number_cells(seeds=(0, 1), steps=10)
        assert len({cell.name for cell in todo}) == len(todo) == 4 * 3 * 2
        assert [cell.seed for cell in todo] == 12 * [0] + 12 * [1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"numbers": "part-32"}, "numbers must be one of part-64"),
            ({"model": "fcn"}, "model must be one of cnn"),
            ({"recipe": "old"}, "recipe must be one of paper"),
            ({"seed": -1}, "seed must be 0 or more"),
            ({"steps": 0}, "steps must be 1 or more"),
        ],
    )
    def test_bad_settings(self, change, message):
        good = {"numbers": "part-64", "model": "cnn", "recipe": "modern", "seed": 0, "steps": 9}
        with pytest.raises(ValueError, match=message):
            cells.NumberCell(**good | change)


class TestWhatTheChapterShows:
    def test_the_places_are_those_of_the_answers(self):
        """The same numbers, and as many of them wrong, as in the table of which they are made."""
        table = [row for row in load_results("svhn")["rows"] if row["numbers"] == "part-64"]
        wanted = {
            (row["model"], row["recipe"], seed): found
            for row in table
            for seed, found in zip(row["seeds"], row["by_length"], strict=True)
        }
        places = load_results("svhn_places")
        for row in places["rows"]:
            found = wanted.pop((row["model"], row["recipe"], row["seed"]))
            for k, own in row["by_length"].items():
                assert found[k] == [own["numbers"], own["wrong"]]
                # One place wrong makes the number wrong; it may also be wrong behind its end.
                assert max(own["wrong_at"]) <= own["wrong"]
                assert len(own["wrong_at"]) == int(k)
        assert not wanted, "run `python -m benchmarks.house_numbers places runs` again"

    def test_a_unit_that_never_opens_is_not_alive(self):
        torch.manual_seed(0)
        model = build_number_reader("st-cnn-multi", widths="small").eval()
        U = torch.rand(40, 3, 64, 64)
        before = benchmark.alive(model, U)
        assert len(before) == 4
        assert all(0 < count <= 32 for count in before)
        last = transformers(model)[2].localisation[-2]  # before its ReLU
        with torch.no_grad():
            last.bias.fill_(-1e4)
        assert benchmark.alive(model, U) == [*before[:2], 0, before[3]]

    def test_windows_that_see_grey_still_learn_their_place(self):
        """One θ for all pictures, and a way for the loss to move it."""
        torch.manual_seed(0)
        model = grey.built("grey", build_number_reader("st-cnn-multi", widths="small"))
        for look in transformers(model):
            nn.init.normal_(look.regression.weight, std=0.1)
        U, target = torch.rand(6, 3, 64, 64), torch.randint(11, (6, 5))
        F.cross_entropy(model(U), target).backward()
        for look, theta in zip(transformers(model), model.looks(U), strict=True):
            assert torch.equal(theta, theta[:1].expand_as(theta))
            assert not torch.equal(theta[:1], affine.identity())
            assert all(p.grad is not None and p.grad.any() for p in look.regression.parameters())

    def test_a_zoom_about_the_middle(self):
        U = torch.zeros(1, 1, 66, 66)
        U[:, :, 3:-3, 3:-3] = 1  # sixty of sixty-six pixels: all that is left
        torch.testing.assert_close(grey.Zoom()(U), torch.ones_like(U), rtol=0, atol=0.51)
        assert grey.Zoom()(U)[:, :, 1:-1, 1:-1].min() > 0.99

    def test_the_parts_of_a_transformer_are_measured_alone(self):
        torch.manual_seed(0)
        model = build_number_reader("st-cnn-multi", widths="small")
        calls = benchmark.alone(model, 2)
        assert list(calls) == [
            f"{part} {k}" for k in range(1, 5) for part in ("localisation", "sampling")
        ]
        for name, call in calls.items():
            model.zero_grad()
            call()
            moved = [p.grad is not None for look in transformers(model) for p in look.parameters()]
            # Sampling alone leaves the nets alone; localisation reaches one of the four.
            assert any(moved) == name.startswith("localisation")
            assert sum(moved) <= len(moved) // 4
