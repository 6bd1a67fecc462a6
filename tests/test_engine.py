"""The engine of long runs: it trains as it says, and ends the same however often it is killed.

Run as a script, this file is the process that is killed, or one of two that train together.
"""

import contextlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stn_tutorial import training
from stn_tutorial.training import Execution, Recipe, train
from stn_tutorial.transformer import (
    Affine3d,
    FullyConnectedLocalisation,
    SharedLocalisation,
    SpatialTransformer,
    ThinPlateSpline,
)

SGD = Recipe(steps=20, batch_size=12, learning_rate=0.1)
ADAMW = replace(SGD, steps=40, optimiser="adamw", learning_rate=0.01, schedule="one-cycle")


def network(seed=0, dropout=0.0, transform=None):
    """A transformer, a dropout and a classifier of 6×6 pictures."""
    torch.manual_seed(seed)
    return nn.Sequential(
        SpatialTransformer(FullyConnectedLocalisation(36, (8,)), 8, transform),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(36, 3),
    )


def bars(step):
    """Three easy classes: one of the first three rows is bright."""
    generator = torch.Generator().manual_seed(step)
    target = torch.randint(3, (12,), generator=generator)
    U = torch.rand(12, 1, 6, 6, generator=generator) * 0.3
    U[torch.arange(12), 0, target] += 0.7
    return U, target


def weights(model):
    return torch.cat([value.detach().flatten() for value in model.state_dict().values()])


class Stop(Exception):
    pass


def stopping_at(last):
    def batch(step):
        if step == last:
            raise Stop
        return bars(step)

    return batch


def interrupted(recipe, path, last, every=4, **changes):
    with pytest.raises(Stop):
        train(network(), stopping_at(last), recipe, every=every, checkpoint=path, **changes)


class TestRecipe:
    def test_is_ready_for_json(self):
        assert Recipe(**json.loads(json.dumps(asdict(ADAMW)))) == ADAMW

    def test_the_papers_rates(self):
        paper = Recipe(steps=150_000)
        rates = [paper.rate(step) for step in (0, 49_999, 50_000, 99_999, 100_000, 149_999)]
        assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], rel=1e-12)

    def test_one_cycle(self):
        recipe = Recipe(steps=1000, schedule="one-cycle", warmup=0.2, learning_rate=5.0)
        rates = [recipe.rate(step) for step in range(1000)]
        assert rates[0] == pytest.approx(0.2)
        assert rates[100] == pytest.approx(2.6)
        assert rates[200] == max(rates) == 5.0
        assert rates[600] == pytest.approx(2.5)
        assert 0 < rates[999] < 1e-4
        assert rates[:201] == sorted(rates[:201])
        assert rates[200:] == sorted(rates[200:], reverse=True)

    @pytest.mark.parametrize("warmup", [0.0, 1.0])
    def test_one_cycle_with_one_half(self, warmup):
        recipe = Recipe(steps=10, schedule="one-cycle", warmup=warmup)
        rates = [recipe.rate(step) for step in range(10)]
        assert rates == sorted(rates, reverse=warmup == 0)

    def test_scaled(self):
        short = Recipe(steps=150_000).scaled(1500)
        assert (short.steps, short.drop_every) == (1500, 500)
        assert short.rate(500) == pytest.approx(1e-3)
        assert Recipe(steps=150_000).scaled(1).drop_every == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"steps": 0}, "steps must be a whole number, 1 or more, but 0 was given"),
            ({"steps": 2.0}, "steps must be a whole number.*2.0"),
            ({"batch_size": True}, "batch_size must be a whole number.*True"),
            ({"learning_rate": -1}, "learning_rate must be a number, 0 or more, but -1"),
            ({"learning_rate": math.inf}, "learning_rate.*inf"),
            ({"learning_rate": math.nan}, "learning_rate.*nan"),
            ({"learning_rate": "0.1"}, "learning_rate.*'0.1'"),
            ({"warmup": 1.5}, "warmup must be a number, from 0 to 1, but 1.5 was given"),
            ({"optimiser": "adam"}, "optimiser must be one of sgd, adamw, but 'adam' was given"),
            ({"schedule": "cosine"}, "schedule must be one of steps, one-cycle"),
            ({"optimiser": "adamw", "momentum": 0.9}, "momentum is SGD's.*adamw.*0.9"),
        ],
    )
    def test_bad_settings(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(SGD, **change)

    def test_bad_execution(self):
        with pytest.raises(ValueError, match="precision must be one of float32, auto, bfloat16"):
            Execution(precision="half")
        with pytest.raises(ValueError, match="compile must be one of default, reduce-overhead"):
            Execution(compile="fast")


class TestTrain:
    def test_learns(self, capsys):
        model = network()
        held_out = [bars(step) for step in range(1000, 1010)]
        before = training.error_rate(model, held_out)
        history = train(
            model, bars, replace(ADAMW, steps=100), every=40,
            evaluate=lambda model: training.error_rate(model, held_out),
        )  # fmt: skip
        assert before > 30
        assert history[-1]["error"] == training.error_rate(model, held_out) < 5
        assert [record["step"] for record in history] == [40, 80, 100]
        assert history[-1]["loss"] < 0.5 * history[0]["loss"]
        assert 0 < history[0]["seconds"] < history[1]["seconds"] < history[2]["seconds"]
        assert not model.training

    def test_last_line_is_tidy_and_stderr_silent(self, capsys):
        train(network(), bars, SGD, evaluate=lambda model: 12.345)
        shown = capsys.readouterr()
        assert shown.err == ""
        last = shown.out.rsplit("\r", 1)[-1]
        assert re.match(r"20 steps of 12 in \d+ s \(", last)
        assert last.endswith(", error 12.35 %\n") or last.endswith(", error 12.34 %\n")
        assert last.count("\n") == 1

    def test_is_the_loop_one_would_write(self):
        """SGD with all its settings, against the formulas and not against `torch.optim`."""
        recipe = replace(
            SGD, momentum=0.9, weight_decay=0.01, localisation_rate=0.5, label_smoothing=0.1,
            drop_every=8,
        )  # fmt: skip
        model, ours = network(), network()
        history = train(model, bars, recipe)
        velocity = {name: 0 for name, _ in ours.named_parameters()}
        losses = []
        for step in range(20):
            U, target = bars(step)
            logs = ours(U).log_softmax(1)
            loss = -(0.9 * logs[torch.arange(12), target] + 0.1 * logs.mean(1)).mean()
            losses.append(loss.item())
            ours.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, w in ours.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + w.grad + 0.01 * w
                    rate = 0.1 * 0.1 ** (step // 8) * (0.5 if name.startswith("0.") else 1)
                    w -= rate * velocity[name]
        torch.testing.assert_close(weights(model), weights(ours), rtol=1e-5, atol=1e-6)
        assert history[-1]["loss"] == pytest.approx(sum(losses) / 20, rel=1e-5)

    def test_adamw_decays_the_weights_themselves(self):
        recipe = replace(ADAMW, steps=1, weight_decay=0.5, schedule="steps")
        plain, decayed = network(), network()
        train(plain, bars, replace(recipe, weight_decay=0.0))
        train(decayed, bars, recipe)
        shrunk = weights(plain) - 0.01 * 0.5 * weights(network())
        torch.testing.assert_close(weights(decayed), shrunk)

    def test_a_shared_layer_is_the_classifiers(self):
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        localisation = SharedLocalisation(first, (1, 6, 6), 4)
        model = nn.Sequential(
            SpatialTransformer(localisation, 4), first, nn.Flatten(), nn.Linear(32, 3)
        )
        start = {name: value.clone() for name, value in model.state_dict().items()}
        train(model, bars, replace(SGD, localisation_rate=0.0))
        moved = {name for name, value in model.state_dict().items() if (value != start[name]).any()}
        assert moved == {
            *("0.localisation.0.0.weight", "0.localisation.0.0.bias"),  # the same as the next two
            *("1.0.weight", "1.0.bias", "3.weight", "3.bias"),
        }

    def test_a_transformer_alone_is_all_inside(self):
        model = nn.Sequential(network()[0], nn.Flatten(), nn.LazyLinear(3))
        model(bars(0)[0])
        optimiser = training.recipe.make_optimiser(model, replace(SGD, localisation_rate=0.1))
        assert [len(g["params"]) for g in optimiser.param_groups] == [2, 4]
        optimiser = training.recipe.make_optimiser(model[0], replace(SGD, localisation_rate=0.1))
        assert [(len(g["params"]), g["factor"]) for g in optimiser.param_groups] == [(4, 0.1)]

    def test_frozen_weights_stay(self):
        model = network()
        model[3].requires_grad_(False)
        start = model[3].weight.clone()
        train(model, bars, SGD)
        assert torch.equal(model[3].weight, start)

    def test_same_seed_same_weights(self):
        def trained(seed):
            model = network(seed, dropout=0.5)
            train(model, bars, SGD)
            return weights(model)

        assert torch.equal(trained(1), trained(1))
        assert not torch.equal(trained(1), trained(2))

    def test_looking_up_changes_nothing(self):
        seldom = network(dropout=0.5)
        train(seldom, bars, SGD)
        often = network(dropout=0.5)
        modes = []
        history = train(
            often, bars, SGD, every=3,
            evaluate=lambda model: training.error_rate(model, [bars(99)]),
            on_record=lambda record: modes.append((record["step"], often.training)),
        )  # fmt: skip
        assert torch.equal(weights(seldom), weights(often))
        assert modes == [(step, False) for step in (3, 6, 9, 12, 15, 18, 20)]
        assert len(history) == 7

    def test_evaluates_without_gradients(self):
        seen = []

        def evaluate(model):
            seen.append((model.training, torch.is_grad_enabled()))
            return 50

        history = train(network(), bars, SGD, evaluate=evaluate)
        assert seen == [(False, False)]
        assert history[0]["error"] == 50.0

    def test_reads_no_value_between_records(self):
        """Each reading would make a GPU wait: there must be as many in 10 steps as in 20."""

        class Count(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.readings = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.readings += func is torch.ops.aten._local_scalar_dense.default
                return func(*args, **(kwargs or {}))

        def readings(steps):
            batches = [bars(step) for step in range(steps)]
            with Count() as count:
                train(network(), lambda step: batches[step], replace(SGD, steps=steps))
            return count.readings

        assert 0 < readings(10) == readings(20)

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            (lambda step: (bars(0)[0][:5], bars(0)[1][:5]), r"\(12, …\).*but.*\(5, 1, 6, 6\)"),
            (lambda step: (bars(0)[0], bars(0)[1].int()), "int64.*torch.int32"),
            (lambda step: ((bars(0)[0] * 255).byte(), bars(0)[1]), "floating.*torch.uint8"),
            (lambda step: (bars(0)[0].to("meta"), bars(0)[1]), "on cpu, but.*on meta"),
            (lambda step: (bars(0)[0], None), "NoneType"),
        ],
    )
    def test_bad_batch(self, batch, message):
        with pytest.raises(ValueError, match=r"batch\(step\) must give.*" + message):
            train(network(), batch, SGD)

    def test_bad_arguments(self, monkeypatch):
        with pytest.raises(ValueError, match="every must be a whole number, 1 or more, but 0"):
            train(network(), bars, SGD, every=0)
        for model in (nn.Flatten(), nn.Linear(3, 3).requires_grad_(False)):
            with pytest.raises(ValueError, match="weights to train, but it has none"):
                train(model, bars, SGD)
        monkeypatch.setenv("WORLD_SIZE", "5")
        with pytest.raises(ValueError, match="multiple of the 5 processes, but 12 was given"):
            train(network(), bars, SGD)


class TestExecution:
    def test_on_a_cpu_auto_is_float32(self):
        plain, auto = network(), network()
        train(plain, bars, SGD)
        train(auto, bars, SGD, execution=Execution(precision="auto"))
        assert torch.equal(weights(plain), weights(auto))

    @pytest.mark.parametrize("real", [True, False])
    def test_on_a_gpu_bfloat16_only_where_it_is_real(self, monkeypatch, real):
        def supported(including_emulation=True):
            return real or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        gpu = torch.device("cuda", 0)
        expected = torch.bfloat16 if real else torch.float16
        assert training.recipe.autocast_dtype(Execution(precision="auto"), gpu) == expected
        assert training.recipe.autocast_dtype(Execution(precision="float16"), gpu) == torch.float16
        bfloat16 = Execution(precision="bfloat16")
        assert training.recipe.autocast_dtype(bfloat16, torch.device("cpu")) == torch.bfloat16
        if real:
            assert training.recipe.autocast_dtype(bfloat16, gpu) == torch.bfloat16
        else:
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
            with pytest.raises(ValueError, match=r"Tesla T4 does not compute in bfloat16.*float16"):
                training.recipe.autocast_dtype(bfloat16, gpu)
        assert training.recipe.autocast_dtype(Execution(), gpu) == torch.float32

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_mixed_precision(self, monkeypatch, tmp_path, dtype):
        """As on a GPU, but on the CPU: the layers in 16 bits, weights and evaluation in 32."""
        monkeypatch.setattr(training.engine, "autocast_dtype", lambda execution, device: dtype)
        seen = []

        def run(model, batch=bars):
            model[3].register_forward_hook(lambda m, i, o: seen.append((m.training, o.dtype)))
            return train(
                model, batch, ADAMW, every=8, checkpoint=tmp_path / "run.pt",
                evaluate=lambda model: training.error_rate(model, [bars(99)]),
            )  # fmt: skip

        whole = network()
        history = run(whole)
        assert set(seen) == {(True, dtype), (False, torch.float32)}
        assert weights(whole).dtype == torch.float32
        assert history[-1]["loss"] < 0.8 * history[0]["loss"]
        assert torch.load(tmp_path / "run.pt")["scaler"].keys() == (
            torch.amp.GradScaler("cpu", enabled=dtype == torch.float16).state_dict().keys()
        )
        (tmp_path / "run.pt").unlink()
        with pytest.raises(Stop):
            run(network(), stopping_at(20))
        resumed = network()
        run(resumed)
        assert torch.equal(weights(resumed), weights(whole))

    def test_a_checkpoint_may_go_on_in_another_precision(self, monkeypatch, tmp_path):
        interrupted(SGD, tmp_path / "run.pt", 10)
        monkeypatch.setattr(training.engine, "autocast_dtype", lambda *_: torch.float16)
        history = train(network(), bars, SGD, every=4, checkpoint=tmp_path / "run.pt")
        assert [record["step"] for record in history] == [4, 8, 12, 16, 20]

    def test_channels_last(self):
        def model():
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 4), nn.Flatten())

        strides = []
        plain, last = model(), model()
        last[0].register_forward_hook(lambda m, i, o: strides.append(o.stride()))
        train(plain, bars, SGD)
        train(last, bars, SGD, execution=Execution(channels_last=True))
        assert set(strides[:20]) == {(64, 1, 16, 4)}
        torch.testing.assert_close(weights(plain), weights(last), rtol=1e-4, atol=1e-5)

    def test_compile(self, monkeypatch):
        """What is handed to `torch.compile`; without the compiler, which is slow."""
        modes = []

        def compiled(module, *, mode):
            modes.append(mode)
            return real(module, backend="eager")

        real = torch.compile
        monkeypatch.setattr(torch, "compile", compiled)
        plain, fast = network(), network()
        train(plain, bars, SGD, every=5)
        train(fast, bars, SGD, every=5, execution=Execution(compile="reduce-overhead"))
        assert modes == ["reduce-overhead"]
        assert torch.equal(weights(plain), weights(fast))


class TestErrorRate:
    def test_known_value(self):
        class Always(nn.Module):
            def __init__(self):
                super().__init__()
                self.score = nn.Parameter(torch.tensor([0.0, 1.0, 0.0]))

            def forward(self, U):
                return self.score.expand(len(U), 3)

        batches = [(torch.zeros(3, 1, 2, 2), torch.tensor([1, 1, 0]))]
        batches += [(torch.zeros(1, 1, 2, 2), torch.tensor([1]))]
        assert training.error_rate(Always(), batches) == 25.0

    def test_is_in_evaluation_mode_and_leaves_no_trace(self):
        model = network(dropout=0.5).train()
        state = torch.get_rng_state()
        once, twice = (training.error_rate(model, [bars(0)]) for _ in range(2))
        assert once == twice
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
        model.eval()
        training.error_rate(model, [bars(0)])
        assert not model.training

    def test_nothing_to_judge(self):
        with pytest.raises(ValueError, match="at least one picture"):
            training.error_rate(network(), iter(()))


class TestCollapse:
    def warned(self, model, U=None, batch=None, **settings):
        """Return the warnings of a run that moves nothing."""
        batch = batch or (bars if U is None else lambda step: (U, torch.zeros(len(U)).long()))
        size = 12 if U is None else len(U)
        recipe = Recipe(steps=4, batch_size=size, learning_rate=0.0, **settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(model, batch, recipe, every=1)
        assert all(w.category is training.CollapsedTransformerWarning for w in caught)
        return [str(w.message) for w in caught]

    @pytest.mark.parametrize(
        ("theta", "what"),
        [
            ([[1, 0, 5], [0, 1, 0]], "100% of the inputs it reads almost only what lies outside"),
            ([[9, 0, 0], [0, 9, 0]], "almost only what lies outside"),
            ([[math.nan] * 3] * 2, "almost only what lies outside"),
            ([[0.05, 0, 0], [0, 0.05, 0]], "100% of the inputs it reads less than 1.0%"),
            ([[1, 1, 0], [1, 1, 0]], "it reads less than 1.0%"),
            ([[0.6, -0.4, 0.2], [0.4, 0.6, -0.1]], None),
            ([[-1, 0, 0], [0, 1, 0]], None),
            ([[1.5, 0, 0], [0, 1.5, 0]], None),
        ],
    )
    def test_is_noticed_once(self, theta, what):
        model = network()
        model[0].regression.bias.data += (torch.tensor(theta) - torch.eye(2, 3)).flatten()
        if math.isnan(theta[0][0]):
            assert what in training.watch._collapsed(model, bars(0)[0])["0"]
            return
        found = self.warned(model, localisation_rate=0.5)
        if what is None:
            assert found == []
        else:
            assert len(found) == 1
            assert "the transformer '0' has collapsed by step 1: " in found[0]
            assert what in found[0]
            assert "localisation_rate lower than 0.5" in found[0]
            assert "padding='border'" in found[0]

    def test_a_few_lost_pictures_are_none(self):
        """What is noticed is a transformer, not an input."""

        class Mean(nn.Module):
            features = 1

            def forward(self, U):
                return U.mean((1, 2, 3))[:, None]

        model = nn.Sequential(SpatialTransformer(Mean(), 1), nn.Flatten(), nn.Linear(36, 3))
        model[0].regression.weight.data[2] = 5.0
        bright = torch.zeros(10, 1, 6, 6)
        bright[:4] = 1
        assert self.warned(model, bright) == []
        bright[:6] = 1
        assert len(self.warned(model, bright)) == 1

    @pytest.mark.parametrize("transform", [ThinPlateSpline(3)])
    def test_splines(self, transform):
        model = network(transform=transform)
        assert self.warned(model) == []
        model[0].regression.bias.data = -transform.theta(torch.zeros(1, 18)).flatten() * 0.97
        assert "less than 1.0%" in self.warned(model)[0]

    def test_volumes(self):
        torch.manual_seed(0)
        look = SpatialTransformer(FullyConnectedLocalisation(64, (4,)), 4, Affine3d())
        model = nn.Sequential(look, nn.Flatten(), nn.Linear(64, 3))
        U = torch.rand(4, 1, 4, 4, 4)
        assert self.warned(model, U) == []
        look.regression.bias.data[10] = -0.9995  # the last axis is squashed
        assert "reads less than 0.1%" in self.warned(model, U)[0]

    @pytest.mark.parametrize("size", [(1, 1), (1, 6)])
    def test_an_output_of_one_pixel_has_no_area(self, size):
        look = SpatialTransformer(FullyConnectedLocalisation(36, (4,)), 4, size=size)
        model = nn.Sequential(look, nn.Flatten(), nn.Linear(size[0] * size[1], 3))
        assert self.warned(model) == []

    def test_every_transformer_is_looked_at_with_its_own_input(self):
        torch.manual_seed(0)
        second = SpatialTransformer(FullyConnectedLocalisation(32, (4,)), 4)
        model = nn.Sequential(
            network()[0], nn.Conv2d(1, 2, 3), second, nn.Flatten(), nn.Linear(32, 3)
        )
        second.regression.bias.data[5] = -8
        found = self.warned(model)
        assert len(found) == 1
        assert "'2'" in found[0]

    def test_given_its_input_by_name(self):
        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.look, self.classify = network()[0], nn.Linear(36, 3)

            def forward(self, U):
                return self.classify(self.look(U=U, return_theta=True)[0].flatten(1))

        model = Named()
        model.look.regression.bias.data[2] = 5
        assert "'look'" in self.warned(model)[0]

    def test_too_high_a_rate(self):
        """Not staged: the transformer is thrown out of the picture by its own steps."""
        with pytest.warns(training.CollapsedTransformerWarning, match="outside"):
            train(network(), bars, replace(SGD, localisation_rate=300.0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(network(), bars, SGD)


class TestCheckpoint:
    def test_goes_on_where_it_was(self, tmp_path, capsys):
        path = tmp_path / "new folder" / "run.pt"
        whole = network()
        expected = train(whole, bars, ADAMW, every=4)
        interrupted(ADAMW, path, 19)
        capsys.readouterr()
        drawn = []
        model = network(seed=7)  # whose own weights are of no account
        history = train(
            model, lambda step: drawn.append(step) or bars(step), ADAMW, every=4, checkpoint=path
        )
        assert drawn == list(range(16, 40))
        assert torch.equal(weights(model), weights(whole))
        assert [(r["step"], r["loss"]) for r in history] == [
            (r["step"], r["loss"]) for r in expected
        ]
        out = capsys.readouterr().out
        assert out.startswith(f"going on from step 16, which {path} holds\n")
        assert os.listdir(path.parent) == ["run.pt"]

    def test_a_finished_run_is_not_run_again(self, tmp_path, capsys):
        path = tmp_path / "run.pt"
        first = network()
        expected = train(first, bars, SGD, checkpoint=path)
        line = capsys.readouterr().out.rsplit("\r", 1)[-1]
        again = network(seed=7)
        assert train(again, stopping_at(0), SGD, checkpoint=str(path)) == expected
        assert torch.equal(weights(first), weights(again))
        assert not again.training
        assert capsys.readouterr().out.endswith(line)

    def test_holds_what_is_safe_to_load(self, tmp_path):
        train(network(), bars, SGD, every=10, checkpoint=tmp_path / "run.pt")
        saved = torch.load(tmp_path / "run.pt", weights_only=True)
        assert Recipe(**saved["recipe"]) == SGD
        assert [record["step"] for record in json.loads(json.dumps(saved["history"]))] == [10, 20]

    def test_of_another_recipe(self, tmp_path):
        path = tmp_path / "run.pt"
        interrupted(SGD, path, 10)
        before = path.read_bytes()
        with pytest.raises(
            ValueError,
            match=r"run.pt is of another recipe: steps 20 and not 30; momentum 0.0 and not 0.9. "
            "Delete it to begin anew, or name another file",
        ):
            train(network(), bars, replace(SGD, steps=30, momentum=0.9), checkpoint=path)
        assert path.read_bytes() == before

    def test_of_another_model(self, tmp_path):
        interrupted(SGD, tmp_path / "run.pt", 10)
        with pytest.raises(ValueError, match=r"run.pt is of another model: (?s:.*)size mismatch"):
            train(network(transform=ThinPlateSpline(3)), bars, SGD, checkpoint=tmp_path / "run.pt")

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    def test_truncated(self, tmp_path, share):
        path = tmp_path / "run.pt"
        train(network(), bars, SGD, checkpoint=path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"run.pt is damaged, or is no checkpoint. Delete it"):
            train(network(), bars, SGD, checkpoint=path)

    def test_foreign(self, tmp_path):
        path = tmp_path / "run.pt"
        path.write_text("step 3\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"damaged, or is no checkpoint"):
            train(network(), bars, SGD, checkpoint=path)
        for foreign in (network().state_dict(), torch.zeros(3), {"format": "another"}):
            torch.save(foreign, path)
            with pytest.raises(ValueError, match=r"run.pt is no checkpoint of this engine"):
                train(network(), bars, SGD, checkpoint=path)

    def test_runs_no_code_of_a_foreign_file(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "made"),))

        torch.save({"format": training.checkpoint.FORMAT, "recipe": Evil()}, tmp_path / "run.pt")
        with pytest.raises(ValueError, match="damaged, or is no checkpoint"):
            train(network(), bars, SGD, checkpoint=tmp_path / "run.pt")
        assert not (tmp_path / "made").exists()

    def test_a_folder_is_no_checkpoint(self, tmp_path):
        with pytest.raises(OSError, match="director"):
            train(network(), bars, SGD, checkpoint=tmp_path)

    def test_killed_at_any_moment(self, tmp_path):
        """With SIGKILL, in a process of its own: see `be_killed`, which is what runs there."""
        done = subprocess.run(
            [sys.executable, "-W", "error", __file__, "be_killed", str(tmp_path)],
            capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        print(seen)
        assert all(ended["killed"] for ended in seen["on purpose"])
        assert [(e["moment"], e["left"], e["step"]) for e in seen["on purpose"]] == [
            ("step 3", [], None),
            ("step 9", ["run.pt"], 5),
            ("half saved", [".run.pt.PID.partial", "run.pt"], 5),
            ("saved, not in place", [".run.pt.PID.partial", "run.pt"], 5),
            ("in place", ["run.pt"], 10),
            ("half saved", [".run.pt.PID.partial", "run.pt"], 10),
        ]
        assert sum(ended["killed"] for ended in seen["by the clock"]) >= 3
        for name in ("on purpose", "by the clock"):
            ours = torch.load(tmp_path / name / "run.pt")
            whole = torch.load(tmp_path / "whole" / "run.pt")
            assert os.listdir(tmp_path / name) == ["run.pt"]
            assert ours["history"][-1]["step"] == KILLED.steps
            for key in ("model", "random", "optimiser"):
                torch.testing.assert_close(ours[key], whole[key], rtol=0, atol=0)
            for a, b in zip(ours["history"], whole["history"], strict=True):
                assert a | {"seconds": 0} == b | {"seconds": 0}


class TestNotFinite:
    @staticmethod
    def spoilt_from(first):
        def batch(step):
            U, target = bars(step)
            return (U * math.nan if step >= first else U), target

        return batch

    def test_the_last_good_checkpoint_stays(self, tmp_path):
        path = tmp_path / "run.pt"
        with pytest.raises(
            FloatingPointError,
            match=r"loss between step 8 and 12 is nan; try a lower learning_rate; .* holds step 8",
        ):
            train(network(), self.spoilt_from(9), SGD, every=4, checkpoint=path)
        saved = torch.load(path)
        assert saved["history"][-1]["step"] == 8
        assert all(value.isfinite().all() for value in saved["model"].values())
        model, whole = network(), network()
        train(model, bars, SGD, every=4, checkpoint=path)
        train(whole, bars, SGD)
        assert torch.equal(weights(model), weights(whole))

    def test_at_once(self, tmp_path):
        with pytest.raises(FloatingPointError, match=r"between step 0 and 20 is nan; [^;]*$"):
            train(network(), self.spoilt_from(0), SGD, checkpoint=tmp_path / "run.pt")
        assert not (tmp_path / "run.pt").exists()

    def test_weights_that_no_loss_has_seen_yet(self, tmp_path):
        """The step itself spoils them: the loss before it was finite."""
        model = network()
        model[3].weight.register_hook(lambda grad: torch.full_like(grad, math.inf))
        path = tmp_path / "run.pt"
        with pytest.raises(FloatingPointError, match=r"after step 1, the model's 3.weight is not"):
            train(model, bars, SGD, every=1, checkpoint=path)
        assert not path.exists()

    def test_what_the_optimiser_remembers(self):
        model = network()
        model[3].weight.register_hook(lambda grad: torch.full_like(grad, 1e30))
        with pytest.raises(FloatingPointError, match=r"the optimiser's exp_avg_sq . is not finite"):
            train(model, bars, replace(ADAMW, learning_rate=1e-9))


class TestProcesses:
    def test_alone(self, monkeypatch):
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        assert training.processes() == (0, 1)

    def test_device(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert training.choose_device() == torch.device("cpu")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert training.choose_device() == torch.device("cuda", 0)
        monkeypatch.setenv("LOCAL_RANK", "3")
        assert training.choose_device() == torch.device("cuda", 3)
        with pytest.raises(ValueError, match=r"must be on cuda:3 .*but it is on cuda:0"):
            training.devices.join(torch.device("cuda", 0))

    def test_two_learn_as_one(self, tmp_path):
        """Under `torchrun`, and stopped half-way: see `be_one_of_two`."""
        whole = network()
        expected = train(whole, bars, ADAMW, every=4)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1"),
                *("--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
                *(__file__, "be_one_of_two", str(tmp_path)),
            ],
            capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
        assert torch.equal(results[0]["weights"], results[1]["weights"])
        torch.testing.assert_close(results[0]["weights"], weights(whole), rtol=1e-4, atol=1e-5)
        assert not torch.equal(results[0]["weights"], weights(network()))
        for result in results:
            assert [r["step"] for r in result["history"]] == [r["step"] for r in expected]
            losses = torch.tensor([[r["loss"] for r in h] for h in (result["history"], expected)])
            torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
        # The first alone prints, looks at transformers and calls.
        assert [result["called"] for result in results] == [list(range(20, 44, 4)), []]
        assert done.stdout.count("going on from step 16") == 1
        assert done.stdout.count("40 steps of 12 in ") == 1
        # A batch norm sees its own process's part on a CPU; what is learned is shared all the same.
        assert torch.equal(results[0]["learned"], results[1]["learned"])
        assert not torch.equal(results[0]["running mean"], results[1]["running mean"])
        # Each draws its own dropout, and goes on with it.
        first, second = torch.load(tmp_path / "run.pt")["random"]
        assert not torch.equal(first["cpu"], second["cpu"])


# --- What runs in processes of its own ---

KILLED = replace(ADAMW, steps=60)


def be_killed(folder):
    """Run to the end, once undisturbed and twice killed again and again; print what happened.

    Each attempt is a child that only repeats the same call. It is forked, since PyTorch takes
    seconds to start; nothing was computed and no thread started before.
    """

    def attempt(name, prepare=lambda: None, after=None):
        path = folder / name / "run.pt"
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            prepare()
            model = network(dropout=0.3)
            train(
                model, training_batch, KILLED, every=5, checkpoint=path,
                evaluate=lambda model: training.error_rate(model, [bars(99)]),
                on_record=lambda record: torch.rand(1),
            )  # fmt: skip
            os._exit(0)
        if after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0
        step = torch.load(path)["history"][-1]["step"] if path.exists() else None
        left = sorted(os.listdir(path.parent)) if path.parent.exists() else []
        left = [re.sub(rf"\.{child}-[0-9a-f]{{8}}\.", ".PID.", name) for name in left]
        return {"killed": killed, "left": left, "step": step}

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def at(number):
        def prepare():
            global training_batch
            training_batch = lambda step: die() if step == number else bars(step)  # noqa: E731

        return prepare

    def half_saved():
        def half(number):
            os.truncate(number, os.fstat(number).st_size // 2)
            die()

        os.fsync = half

    def not_in_place():
        os.replace = lambda *_: die()

    def in_place():
        def replaced(*paths):
            real(*paths)
            die()

        real, os.replace = os.replace, replaced

    os.fsync = lambda number: None  # which is for a power cut, and slow on a busy disk
    assert not attempt("whole")["killed"]

    moments = {
        "step 3": at(3),
        "step 9": at(9),
        "half saved": half_saved,
        "saved, not in place": not_in_place,
        "in place": in_place,
    }
    order = [*moments, "half saved"]
    seen = {"on purpose": [{"moment": m} | attempt("on purpose", moments[m]) for m in order]}
    attempt("on purpose")

    # A run takes longer than three attempts may, however fast the machine: three are killed.
    clock, pause = random.Random(0), 0.02

    def slowly():
        global training_batch
        training_batch = lambda step: time.sleep(pause) or bars(step)  # noqa: E731

    latest = KILLED.steps * pause / 3
    seen["by the clock"] = [
        attempt("by the clock", slowly, after=clock.uniform(0.1, 0.9) * latest) for _ in range(6)
    ]
    attempt("by the clock")
    print(json.dumps(seen))


def training_batch(step):
    return bars(step)


def be_one_of_two(folder):
    rank, world = training.processes()
    assert world == 2
    path = folder / "run.pt"
    with contextlib.suppress(Stop):
        train(network(), stopping_at(18), ADAMW, every=4, checkpoint=path)
    called = []
    model = network(seed=rank)
    history = train(
        model, bars, ADAMW, every=4, checkpoint=path,
        on_record=lambda record: called.append(record["step"]),
    )  # fmt: skip
    normed = nn.Sequential(nn.BatchNorm2d(1), network())
    train(normed, bars, SGD)
    result = {
        "weights": weights(model),
        "history": history,
        "called": called,
        "learned": nn.utils.parameters_to_vector(normed.parameters()).detach(),
        "running mean": normed[0].running_mean,
    }
    torch.save(result, folder / f"{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"be_killed": be_killed, "be_one_of_two": be_one_of_two}[sys.argv[1]](Path(sys.argv[2]))
