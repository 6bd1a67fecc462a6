"""What a run leaves behind when it is stopped, and what stands in its way when it goes on."""

import errno
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_engine import ADAMW, SGD, Stop, bars, interrupted, network, stopping_at, weights
from torch import nn

from stn_tutorial import training
from stn_tutorial.training import Execution, UnusableFileError, read_runs, train, write_whole


def saved_step(path):
    return torch.load(path, weights_only=True)["step"]


def same_history(a, b):
    assert [r | {"seconds": 0} for r in a] == [r | {"seconds": 0} for r in b]


class TestBetweenRecords:
    """A checkpoint may fall between two records: nothing may tell afterwards that it did."""

    @pytest.fixture(autouse=True)
    def _as_in_a_terminal(self):
        # A shell starts what runs in its background with Ctrl-C ignored, tests too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def goes_on_as_if_nothing_had_happened(self, path):
        whole, model = network(), network(seed=7)
        expected = train(whole, bars, ADAMW, every=15)
        history = train(model, bars, ADAMW, every=15, checkpoint=path)
        assert torch.equal(weights(model), weights(whole))
        same_history(history, expected)

    @pytest.mark.parametrize("last", [1, 14, 15, 16, 39])
    def test_by_time(self, monkeypatch, tmp_path, last):
        monkeypatch.setattr(training.engine, "SAVE_SECONDS", 0.0)
        interrupted(ADAMW, tmp_path / "run.pt", last, every=15)  # by an error, which saves nothing
        assert saved_step(tmp_path / "run.pt") == last
        self.goes_on_as_if_nothing_had_happened(tmp_path / "run.pt")

    def test_not_before_its_time(self, tmp_path):
        interrupted(ADAMW, tmp_path / "run.pt", 14, every=15)
        assert not (tmp_path / "run.pt").exists()

    @pytest.mark.parametrize("last", [1, 14, 15, 16, 39])
    def test_ctrl_c(self, tmp_path, capsys, last):
        path = tmp_path / "run.pt"

        def batch(step):
            if step == last:
                raise KeyboardInterrupt
            return bars(step)

        with pytest.raises(KeyboardInterrupt):
            train(network(), batch, ADAMW, every=15, checkpoint=path)
        assert capsys.readouterr().out.endswith(f"stopped after step {last}, which {path} holds\n")
        assert saved_step(path) == last
        self.goes_on_as_if_nothing_had_happened(path)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("moment", ["in a step", "while evaluating"])
    def test_a_signal_waits_for_the_end_of_a_step(self, tmp_path, number, moment):
        """A weight's gradient is at hand and no weight has moved: the worst moment to save."""
        path, asked = tmp_path / "run.pt", []

        def ask(step):
            if step == 17 and not asked:
                asked.append(True)
                os.kill(os.getpid(), number)

        steps, model = [], network()
        model[3].weight.register_hook(
            lambda grad: ask(steps[-1]) if moment == "in a step" else None
        )
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            train(
                model, lambda step: steps.append(step) or bars(step), ADAMW, checkpoint=path,
                every=15 if moment == "in a step" else 1,
                evaluate=lambda model: ask(steps[-1]) or 0.0,
            )  # fmt: skip
        assert signal.getsignal(number) == before
        assert (steps[-1], saved_step(path)) == (17, 18)
        model, whole = network(seed=7), network()
        train(model, bars, ADAMW, checkpoint=path)
        train(whole, bars, ADAMW)
        assert torch.equal(weights(model), weights(whole))

    def test_the_second_ctrl_c_does_not_wait(self, tmp_path):
        def impatient(model):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it waited")

        with pytest.raises(KeyboardInterrupt):
            train(network(), bars, SGD, evaluate=impatient, checkpoint=tmp_path / "run.pt")
        assert not (tmp_path / "run.pt").exists()
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler

    def test_somebody_elses_handler_stays(self):
        def theirs(*_):
            pass

        before = signal.signal(signal.SIGTERM, theirs)
        try:
            train(
                network(), bars, SGD, evaluate=lambda m: signal.getsignal(signal.SIGTERM) is theirs
            )
            assert signal.getsignal(signal.SIGTERM) is theirs
            history = train(
                network(), bars, SGD, evaluate=lambda m: signal.getsignal(signal.SIGTERM) is theirs
            )
            assert history[-1]["error"] == 1.0
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_in_another_thread(self):
        """Where Python lets nobody set a handler."""
        history = []
        thread = threading.Thread(target=lambda: history.extend(train(network(), bars, SGD)))
        thread.start()
        thread.join(60)
        assert [r["step"] for r in history] == [20]

    def test_what_is_not_finite_is_not_saved(self, tmp_path, capsys):
        """Neither by time nor by Ctrl-C: the checkpoint before is worth more."""
        path = tmp_path / "run.pt"

        def batch(step):
            if step == 14:
                raise KeyboardInterrupt
            U, target = bars(step)
            return (U * float("nan") if step >= 9 else U), target

        with pytest.raises(KeyboardInterrupt):
            train(network(), batch, SGD, every=8, checkpoint=path)
        assert saved_step(path) == 8
        assert "stopped after step 14: the loss between step 8 and 14 is nan" in (
            capsys.readouterr().out
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.engine, "SAVE_SECONDS", 0.0)
            with pytest.raises(FloatingPointError, match=r"8 and 10 is nan; .*holds step 9"):
                train(network(), batch, SGD, every=8, checkpoint=path)
        assert saved_step(path) == 9


class TestTroubleWithTheDisk:
    @pytest.fixture
    def full(self, monkeypatch):
        """A disk that takes the first half of a file, once `full()` is called."""

        def fill():
            def half(number):
                os.truncate(number, os.fstat(number).st_size // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(training.files.os, "fsync", half)

        return fill

    def test_full(self, full, tmp_path):
        path = tmp_path / "run.pt"
        interrupted(SGD, path, 10)
        before = path.read_bytes()
        full()
        with pytest.raises(OSError, match=r"No space left on device.*run\.pt"):
            train(network(), bars, SGD, every=4, checkpoint=path)
        assert os.listdir(tmp_path) == ["run.pt"]
        assert path.read_bytes() == before

    def test_really_full(self, monkeypatch):
        """By way of the device that is always full."""
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full on this system")
        whole = Path.open
        monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
        monkeypatch.setattr(Path, "open", lambda path, mode: whole(Path("/dev/full"), mode))
        with pytest.raises(OSError, match=r"No space left on device.*'/run\.pt'"):
            write_whole(Path("/run.pt"), b"0" * 100_000)

    def test_no_trace_of_a_failure(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "folder").mkdir()
        with pytest.raises(FileExistsError, match=r"file/run\.pt"):
            write_whole(tmp_path / "file" / "run.pt", b"0")
        with pytest.raises(IsADirectoryError, match=r"folder"):
            write_whole(tmp_path / "folder", b"0")
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]

    def test_anybody_may_read_it(self, tmp_path):
        """A shared folder's files are for all who share it: what the umask grants."""
        write_whole(tmp_path / "a", b"0")
        (tmp_path / "b").write_text("0")
        assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


class TestRuns:
    def test_each_is_written_down(self, monkeypatch, tmp_path):
        path = tmp_path / "run.pt"
        monkeypatch.setattr("sys.argv", ["/somewhere/stn-tutorial", "first"])
        interrupted(SGD, path, 10)
        monkeypatch.setattr("sys.argv", ["/somewhere/stn-tutorial", "second"])
        interrupted(SGD, path, 9)  # which takes a step and saves none
        monkeypatch.setattr("sys.argv", ["/somewhere/stn-tutorial", "third"])
        train(
            network(), bars, SGD, every=4, checkpoint=path,
            execution=Execution("bfloat16", channels_last=False),
        )  # fmt: skip
        train(network(), stopping_at(0), SGD, checkpoint=path)  # which has nothing to do
        runs = read_runs(path)
        assert [(run["command"], run["from"], run["to"]) for run in runs] == [
            ("stn-tutorial first", 0, 8),
            ("stn-tutorial third", 8, 20),
        ]
        assert [run["precision"] for run in runs] == ["float32", "bfloat16"]
        assert runs[1]["execution"]["precision"] == "bfloat16"
        for run in runs:
            assert run["device"].startswith("cpu: ")
            assert run["threads"] == torch.get_num_threads()
            assert run["processes"] == 1
            assert run["versions"]["torch"] == torch.__version__
            assert run["commit"].partition(",")[0].isalnum()

    def test_a_checkpoint_of_the_format_before(self, tmp_path):
        """It was saved at records only, and kept no runs."""
        path, whole, model = tmp_path / "run.pt", network(), network(seed=7)
        expected = train(whole, bars, ADAMW, every=15)
        interrupted(ADAMW, path, 20, every=15)
        saved = torch.load(path)
        for key in ("runs", "step", "total", "seconds"):
            del saved[key]
        torch.save(saved | {"format": "stn-tutorial checkpoint 1"}, path)
        assert read_runs(path) == []
        history = train(model, bars, ADAMW, every=15, checkpoint=path)
        assert torch.equal(weights(model), weights(whole))
        same_history(history, expected)
        assert [(run["from"], run["to"]) for run in read_runs(path)] == [(15, 40)]


class TestAsOnAGpu:
    """What is different there, as far as a CPU can show it."""

    @pytest.mark.parametrize("recipe", [SGD, ADAMW])
    def test_a_cpus_checkpoint_keeps_the_fused_kernels(self, monkeypatch, tmp_path, recipe):
        """The scaler calls a fused optimiser in another way, and one that is not fused refuses."""
        path = tmp_path / "run.pt"
        interrupted(recipe, path, 10)
        assert not torch.load(path)["optimiser"]["param_groups"][0]["fused"]
        plain, made = training.engine.make_optimiser, []

        def fused(model, recipe):
            optimiser = plain(model, recipe)
            groups = [group | {"fused": True} for group in optimiser.param_groups]
            settings = {"momentum": 0.0} if recipe.optimiser == "sgd" else {}
            made.append(type(optimiser)(groups, lr=recipe.learning_rate, **settings, fused=True))
            return made[-1]

        monkeypatch.setattr(training.engine, "make_optimiser", fused)
        model = network()
        history = train(
            model, bars, recipe, every=4, checkpoint=path, execution=Execution("float16")
        )
        assert [group["fused"] for group in made[-1].param_groups] == [True, True]
        assert history[-1]["step"] == recipe.steps
        assert weights(model).isfinite().all()

    def test_float32_is_float32(self):
        """No TF32, neither in a step nor in an evaluation; and everything is put back."""

        def switches():
            torch_s = torch.backends
            if hasattr(torch_s.cudnn, "conv"):
                parts = (torch_s.cudnn.conv, torch_s.cudnn.rnn, torch_s.cuda.matmul)
                return [part.fp32_precision for part in parts]
            return [part.allow_tf32 for part in (torch_s.cudnn, torch_s.cuda.matmul)]

        exact = ["ieee"] * 3 if hasattr(torch.backends.cudnn, "conv") else [False] * 2
        before, seen = switches(), []
        assert before != exact  # or nothing would be shown
        model = network()

        def look(*_):
            seen.append((switches(), torch.backends.cudnn.benchmark))

        handle = model.register_forward_hook(look)
        train(model, bars, replace(SGD, steps=2))
        assert seen == [(exact, True)] * 3  # and one more look for a collapse
        assert (switches(), torch.backends.cudnn.benchmark) == (before, False)
        seen.clear()
        training.error_rate(model, [bars(0)])
        training.probabilities(model, bars(0)[0])
        assert seen == [(exact, False)] * 2
        handle.remove()
        with pytest.raises(Stop):
            train(network(), stopping_at(1), SGD)
        assert (switches(), torch.backends.cudnn.benchmark) == (before, False)

    def test_bfloat16_is_refused_where_it_is_imitated(self, monkeypatch):
        monkeypatch.setattr(training.engine, "device_of", lambda model: torch.device("cuda", 0))
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation
        )
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
        with pytest.raises(ValueError, match="Tesla T4"):
            train(network(), bars, SGD, execution=Execution("bfloat16"))

    def test_float16_can_be_asked_for(self):
        model, seen = network(), []
        model[3].register_forward_hook(lambda m, i, o: seen.append((m.training, o.dtype)))
        train(model, bars, SGD, execution=Execution("float16"))
        assert set(seen) == {(True, torch.float16), (False, torch.float32)}


def test_an_unusable_file_is_a_value_error(tmp_path):
    (tmp_path / "run.pt").write_text("step 3")
    with pytest.raises(UnusableFileError):
        train(nn.Linear(3, 3), bars, SGD, checkpoint=tmp_path / "run.pt")
    assert issubclass(UnusableFileError, ValueError)
