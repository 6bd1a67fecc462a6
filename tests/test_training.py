"""The training loop: it learns, it repeats itself, it refuses what it cannot use."""

import pytest
import torch
from torch import nn

from stn_tutorial import training


def classifier(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


@pytest.fixture
def bars():
    """Three easy classes: the first, second or third row of a 4×4 picture is bright."""
    labels = torch.arange(96) % 3
    images = torch.randint(0, 60, (96, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    images[torch.arange(96), 0, labels] += 180
    return images.to(torch.uint8), labels


class TestFit:
    def test_learns(self, bars, capsys):
        model = classifier()
        before = training.accuracy(model, *bars)
        losses = training.fit(model, *bars, epochs=20, seed=0, batch_size=32, learning_rate=0.05)
        assert before < 0.7
        assert training.accuracy(model, *bars) == 1.0
        assert len(losses) == 20
        assert losses[-1] < 0.3 * losses[0]
        assert not model.training

    def test_last_line_is_tidy_and_stderr_silent(self, bars, capsys):
        training.fit(classifier(), *bars, epochs=2, seed=0, batch_size=32)
        shown = capsys.readouterr()
        assert shown.err == ""
        last = shown.out.rsplit("\r", 1)[-1]
        assert last.startswith("2 epochs of 3 steps in ")
        assert last.endswith("\n")

    def test_same_seed_same_weights_and_another_seed_others(self, bars):
        def weights(seed):
            model = classifier()
            training.fit(model, *bars, epochs=2, seed=seed, batch_size=32)
            return model[1].weight.detach()

        assert torch.equal(weights(1), weights(1))
        assert not torch.equal(weights(1), weights(2))

    def test_the_callers_random_numbers_are_left_alone(self, bars):
        torch.manual_seed(5)
        expected = torch.rand(3)
        model = classifier()
        torch.manual_seed(5)
        training.fit(model, *bars, epochs=1, seed=0, batch_size=32)
        assert torch.equal(torch.rand(3), expected)

    def test_augment_sees_floats_and_its_result_is_learned_from(self, bars):
        images, labels = bars
        seen = []

        def blank(U, generator):
            seen.append((U.dtype, tuple(U.shape), float(U.min()) >= 0, float(U.max()) <= 1))
            return torch.zeros_like(U)

        model = classifier()
        training.fit(
            model, images, labels, epochs=30, seed=0, batch_size=32, learning_rate=0.05,
            augment=blank,
        )  # fmt: skip
        assert set(seen) == {(torch.float32, (32, 1, 4, 4), True, True)}
        # From blank pictures only the three classes' frequency, a third each, can be learned.
        flat = training.probabilities(model, torch.zeros(1, 1, 4, 4))
        assert torch.allclose(flat, torch.full((1, 3), 1 / 3), atol=0.1)

    def test_each_image_once_an_epoch(self, bars):
        images, labels = bars
        images = torch.arange(96, dtype=torch.uint8).view(96, 1, 1, 1).repeat(1, 1, 4, 4)
        seen = []

        def note(U, generator):
            seen.extend((U[:, 0, 0, 0] * 255).round().int().tolist())
            return U

        training.fit(classifier(), images, labels, epochs=1, seed=0, batch_size=32, augment=note)
        assert sorted(seen) == list(range(96))
        assert seen != sorted(seen)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda i, t: (i.float(), t), r"images must be uint8.*torch.float32"),
            (lambda i, t: (i[:, 0], t), r"images must be uint8.*\(96, 4, 4\)"),
            (lambda i, t: (i, t[:-1]), r"labels must be int64 of shape \(96,\).*\(95,\)"),
            (lambda i, t: (i, t.float()), r"labels must be int64.*torch.float32"),
            (lambda i, t: (i[:8], t[:8]), r"at least one batch of 32, but 8 were given"),
        ],
    )
    def test_bad_input(self, bars, change, message):
        with pytest.raises(ValueError, match=message):
            training.fit(classifier(), *change(*bars), epochs=1, seed=0, batch_size=32)

    def test_a_loss_that_is_not_finite_stops_it(self, bars):
        def spoil(U, generator):
            return U * float("nan")

        with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 1.*learning_rate"):
            training.fit(classifier(), *bars, epochs=3, seed=0, batch_size=32, augment=spoil)


class TestProbabilities:
    def test_sums_to_one_and_bytes_equal_floats(self, bars):
        images, _ = bars
        model = classifier()
        p = training.probabilities(model, images)
        assert p.shape == (96, 3)
        assert torch.allclose(p.sum(1), torch.ones(96))
        assert torch.allclose(p, training.probabilities(model, images.float() / 255))
        assert not p.requires_grad

    def test_the_size_of_a_batch_changes_nothing(self, bars):
        images, _ = bars
        model = classifier()
        small = training.probabilities(model, images, batch_size=7)
        assert torch.allclose(small, training.probabilities(model, images))

    def test_dropout_is_off(self, bars):
        model = nn.Sequential(nn.Dropout(0.5), classifier()).train()
        once, twice = (training.probabilities(model, bars[0]) for _ in range(2))
        assert torch.equal(once, twice)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"\(N, C, H, W\), but shape \(4, 4\)"):
            training.probabilities(classifier(), torch.zeros(4, 4))


def test_accuracy_known_value():
    class Always(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]))

        def forward(self, U):
            return self.score.expand(len(U), 3)

    labels = torch.tensor([1, 1, 0, 2])
    assert training.accuracy(Always(), torch.zeros(4, 1, 2, 2), labels) == 0.5
