"""Several tables on one engine: a layout each, a loss and an error of one's own, several heads."""

from dataclasses import asdict, dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stn_tutorial import experiments
from stn_tutorial.experiments import RECIPES, Cell, Layout, Work, merge, render, run
from stn_tutorial.experiments.named import Experiment
from stn_tutorial.training import Recipe, error_rate, train

RECIPE = Recipe(steps=60, batch_size=12, learning_rate=0.5)


class Heads(nn.Module):
    """Two classifiers of 6×6 pictures side by side: (N, 3, 2)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.both = nn.Linear(36, 6)

    def forward(self, U):
        return self.both(U.flatten(1)).view(-1, 3, 2)


def bars(step):
    """One of the first three rows is bright, and one of the last three."""
    generator = torch.Generator().manual_seed(step)
    target = torch.randint(3, (12, 2), generator=generator)
    U = torch.rand(12, 1, 6, 6, generator=generator) * 0.3
    for head in range(2):
        U[torch.arange(12), 0, target[:, head] + 3 * head] += 0.7
    return U, target


class TestHeads:
    def test_are_trained_and_judged_together(self):
        model, held_out = Heads(), [bars(1000 + k) for k in range(5)]
        assert error_rate(model, held_out) > 60
        train(model, bars, RECIPE)
        assert error_rate(model, held_out) < 5

    def test_a_picture_is_right_when_all_heads_are(self):
        class Same(nn.Module):
            weight = nn.Parameter(torch.zeros(1))

            def forward(self, U):
                return U

        scores = torch.zeros(4, 3, 2)
        scores[:, 1] = 1  # says class 1, always
        target = torch.tensor([[1, 1], [1, 0], [2, 1], [0, 2]])
        model = Same()
        model.register_parameter("w", nn.Parameter(torch.zeros(1)))
        assert error_rate(model, [(scores, target)]) == 75.0
        assert error_rate(model, [(scores[..., 0], target[:, 0])]) == 50.0

    def test_the_loss_is_the_mean_of_all_heads(self):
        U, target = bars(0)
        scores = Heads()(U)
        each = [F.cross_entropy(scores[..., k], target[:, k]) for k in range(2)]
        history = train(Heads(), bars, replace(RECIPE, steps=1))
        assert history[0]["loss"] == pytest.approx((sum(each) / 2).item(), rel=1e-6)

    def test_a_target_without_an_axis_or_of_another_length(self):
        for wrong in (torch.tensor(1), torch.zeros(11, 2, dtype=torch.int64)):
            with pytest.raises(ValueError, match=r"int64 \(12,\), or \(12, heads\)"):
                train(Heads(), lambda step, wrong=wrong: (bars(step)[0], wrong), RECIPE)

    def test_a_loss_of_ones_own(self):
        def summed(scores, target):
            return 2 * F.cross_entropy(scores, target)

        one, two, three = Heads(), Heads(), Heads()
        train(one, bars, replace(RECIPE, steps=5), loss=summed)
        train(two, bars, replace(RECIPE, steps=5, learning_rate=1.0))
        train(three, bars, replace(RECIPE, steps=5))
        torch.testing.assert_close(one.both.weight, two.both.weight)
        assert not torch.allclose(one.both.weight, three.both.weight)


@dataclass(frozen=True)
class Rows:
    """A cell of another table than the paper's first."""

    model: str
    seed: int
    rows: str = "two bars"
    recipe: str = "modern"
    steps: int = 4
    dataset: str = "bars"

    @property
    def name(self):
        return f"bars_{self.model}_{self.steps}_seed{self.seed}"

    @property
    def title(self):
        return f"bars {self.model} seed {self.seed}"

    def of_any_length(self):
        return self.name.replace(f"_{self.steps}_", "_*_")

    def settings(self):
        return asdict(self) | {"recipe_settings": {"rate": 0.5}}

    def prepare(self, device):
        return Work(
            model=Heads(),
            recipe=replace(RECIPE, steps=self.steps),
            batches=bars,
            choose_by=[bars(1000)],
            judge=lambda model: {"test_error": 12.5, "heads": [1.0, 2.0]},
            facts={"width": 1, "parameters": 222},
            error=lambda model, batches: 42.0,
            loss=F.cross_entropy,
        )


LAYOUT = Layout(
    key="rows",
    columns=("two bars",),
    rows=("plain", "a row with a long name"),
    paper={"plain": {"two bars": 10.0}},
    source="a paper",
    paper_data=("bars",),
    measure="whole-picture error in %",
    kept=("heads",),
)


class TestLayout:
    def test_two_tables_in_one_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("STN_TUTORIAL_DATASET", "digits")
        result = run(Rows("plain", 0), tmp_path)
        assert result["held_out_error"] == 42.0
        run(Rows("plain", 1), tmp_path)
        run(Cell("R", "fcn", "modern", 0, 2, "digits"), tmp_path)
        (theirs,) = merge(tmp_path)["rows"]
        assert theirs["distortion"] == "R"
        assert len(theirs["misread"]) == 1
        table = merge(tmp_path, layout=LAYOUT)
        (row,) = table["rows"]
        assert (row["rows"], row["model"], row["seeds"]) == ("two bars", "plain", [0, 1])
        assert (row["heads"], row["paper"]) == ([[1.0, 2.0]] * 2, 10.0)
        assert "misread" not in row
        assert table["paper"] == {"plain": {"two bars": 10.0}}
        text = render(table, LAYOUT).splitlines()
        assert text[0].endswith("whole-picture error in %, mean ± spread (n)")
        assert text[2].split() == ["plain", "12.50", "±", "0.00", "(2)", "10.0"]
        assert text[-1] == "paper: a paper"
        other = Experiment("bars", LAYOUT, lambda **_: [])
        assert other.merge(tmp_path) == table
        assert other.render(table) == render(table, LAYOUT)
        assert (other.rows, other.columns) == (LAYOUT.rows, LAYOUT.columns)

    def test_the_papers_figure_stands_beside_its_own_data_only(self):
        assert LAYOUT.printed("plain", "two bars", "bars") == 10.0
        assert LAYOUT.printed("plain", "two bars", "stripes") is None
        assert LAYOUT.printed("a row with a long name", "two bars", "bars") is None

    @pytest.mark.parametrize("paper", [{"simple": {"two bars": 1.0}}, {"plain": {"bars": 1.0}}])
    def test_a_misspelt_figure(self, paper):
        with pytest.raises(ValueError, match="paper must name the table's rows and columns"):
            replace(LAYOUT, paper=paper)

    def test_no_two_tables_share_a_column(self):
        places = [
            (e.layout.key, column) for e in experiments.EXPERIMENTS.values() for column in e.columns
        ]
        assert len(places) == len(set(places))


def test_default_steps_of_other_recipes():
    own = {"mine": replace(RECIPES["modern"], cpu_steps=7)}
    assert experiments.default_steps("mine", "cpu", own) == 7
    with pytest.raises(ValueError, match="recipe must be one of mine"):
        experiments.default_steps("modern", "cpu", own)
