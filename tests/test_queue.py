"""Many cells and many commands: who trains what, what a failure stops, what a kill leaves.

Run as a script, this file is one of several processes that share a folder.
"""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from test_experiments import call, fast, left_over, without_time

from stn_tutorial import data, experiments, training
from stn_tutorial.experiments import BusyError, Cell, FailedCellError, cells, finished, run
from stn_tutorial.training import Execution, UnusableFileError

TABLE = ("reproduce", "table1", "--rows", "fcn,st-fcn-affine", "--columns", "R,RTS")
TABLE += ("--seeds", 1, "--steps", 4)


@pytest.fixture(autouse=True)
def _digits(monkeypatch):
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "digits")


def diverging(monkeypatch, distortion, first=0):
    """Make the pictures of a distortion no numbers, from a step on; returns how to mend it."""
    whole = data.Batches.__call__

    def batch(self, step):
        U, target = whole(self, step)
        bad = self.distortion.name == distortion and step >= first
        return (U * float("nan") if bad else U), target

    monkeypatch.setattr(data.Batches, "__call__", batch)
    return lambda: monkeypatch.setattr(data.Batches, "__call__", whole)


class TestFailures:
    def test_one_cell_fails_and_the_others_go_on(self, monkeypatch, tmp_path):
        mend = diverging(monkeypatch, "R")
        text = call(*TABLE, "--out", tmp_path, code=1)
        assert "2 of 4 cells could not be finished" in text
        assert "R fcn seed 0: failed (FloatingPointError: the loss between step 0 and 1" in text
        assert "Traceback" not in text
        rows = json.loads((tmp_path / "table1.json").read_text())["rows"]
        assert [(row["distortion"], row["model"]) for row in rows] == [
            ("RTS", "fcn"),
            ("RTS", "st-fcn-affine"),
        ]
        name = fast(steps=4).name
        reason = json.loads((tmp_path / f"{name}.failed").read_text())["reason"]
        assert reason.startswith("FloatingPointError: the loss between")
        assert f"{name} failed: " in text  # beneath the table, too

        mend()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*_seed0*")}
        text = call(*TABLE, "--out", tmp_path, code=1)
        assert f"R fcn seed 0: failed before ({reason})" in text
        assert f"To try it again, delete {tmp_path / name}.failed" in text
        assert text.count("finished before") == 2
        assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*_seed0*")} == before
        for path in tmp_path.glob("*.failed"):  # as it was told
            path.unlink()
        text = call(*TABLE, "--out", tmp_path)
        assert "fail" not in text
        assert len(json.loads((tmp_path / "table1.json").read_text())["rows"]) == 4

    def test_the_last_good_checkpoint_is_named(self, monkeypatch, tmp_path):
        mend = diverging(monkeypatch, "R", first=3)
        with pytest.raises(FailedCellError, match=r"between step 2 and 4 is nan"):
            run(fast(), tmp_path, every=2)
        mend()
        with pytest.raises(FailedCellError, match=rf"and .*{fast().name}.checkpoint.pt as well"):
            run(fast(), tmp_path)
        assert finished(fast(), tmp_path) is None
        (tmp_path / f"{fast().name}.failed").unlink()
        assert run(fast(), tmp_path)["runs"][0]["to"] == 2

    def test_an_error_of_any_kind(self, monkeypatch, tmp_path):
        """Such as that of a GPU without memory, which has many lines."""

        def judge(*_):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")

        monkeypatch.setattr(experiments.cells.__globals__["Cell"], "prepare", broken(judge))
        with pytest.raises(FailedCellError, match=r"OutOfMemoryError: CUDA out of memory. Tried"):
            run(fast(), tmp_path)
        assert len(left_over(tmp_path)) == 2  # the reason, and the checkpoint of its last step

    def test_train_says_so_too(self, monkeypatch, tmp_path):
        command = ("train", "R", "fcn", "--steps", 2, "--out", tmp_path)
        mend = diverging(monkeypatch, "R")
        assert "failed (FloatingPointError" in call(*command, code=1)
        mend()
        assert "failed before" in call(*command, code=1)

    def test_no_digits_is_no_fault_of_a_cells(self, monkeypatch, tmp_path):
        def missing(*_):
            raise RuntimeError("MNIST is not there")

        monkeypatch.setitem(Cell.prepare.__globals__, "digits_of", missing)
        text = call(*TABLE, "--out", tmp_path, code=2)
        assert text.splitlines()[-1] == "stn-tutorial: MNIST is not there"
        assert left_over(tmp_path) == []


def broken(judge):
    whole = Cell.prepare

    def prepare(self, device):
        work = whole(self, device)
        object.__setattr__(work, "judge", judge)
        return work

    return prepare


class TestUnusableFiles:
    def test_a_damaged_result_or_checkpoint_stops_no_other_cell(self, tmp_path):
        bad = [fast(steps=4), fast(steps=4, model="st-fcn-affine")]
        (tmp_path / f"{bad[0].name}.json").write_text("[]")
        (tmp_path / f"{bad[1].name}.checkpoint.pt").write_bytes(b"PK")
        text = call(*TABLE, "--out", tmp_path, code=1)
        assert "2 of 4 cells could not be finished" in text
        assert f"{bad[0].name}.json is not a result: it lacks" in text
        assert f"{bad[1].name}.checkpoint.pt is damaged, or is no checkpoint. Delete it" in text
        assert not list(tmp_path.glob("*.failed"))  # the file itself is the reason
        assert len(json.loads((tmp_path / "table1.json").read_text())["rows"]) == 2
        (tmp_path / f"{bad[0].name}.json").unlink()
        (tmp_path / f"{bad[1].name}.checkpoint.pt").unlink()
        call(*TABLE, "--out", tmp_path)

    @pytest.mark.parametrize("command", [("train", "R", "fcn", "--steps", 2), TABLE])
    @pytest.mark.parametrize(
        ("out", "message"),
        [
            ("", "--out names no folder: it is empty"),
            (" ", "--out names no folder"),
            ("a file", "--out must be a folder, but a file is a file"),
            ("a file/below", "--out must be a folder, but a file is a file"),
        ],
    )
    def test_no_folder(self, monkeypatch, tmp_path, command, out, message):
        monkeypatch.chdir(tmp_path)
        Path("a file").write_text("mine")
        text = call(*command, "--out", out, code=2)
        assert text.splitlines()[-1].startswith(f"stn-tutorial: {message}")
        assert len(text.splitlines()) == 1
        assert (os.listdir(), Path("a file").read_text()) == (["a file"], "mine")

    @pytest.mark.parametrize(
        "code", [errno.EROFS, errno.EACCES], ids=["a read-only disk", "no right to write"]
    )
    def test_a_folder_that_nothing_can_be_written_to(self, monkeypatch, tmp_path, code):
        """Whose modes bind nobody here: the tests may run as root."""

        def refuse(*_, **__):
            raise OSError(code, os.strerror(code), str(tmp_path / ".locks"))

        monkeypatch.setattr(Path, "mkdir", refuse)
        text = call(*TABLE, "--out", tmp_path, code=2)
        (line,) = text.splitlines()
        assert line.startswith(f"stn-tutorial: {tmp_path}/.locks: {os.strerror(code)}. What was")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("moment", ["checkpoint", ".pt", ".json"])
    def test_a_full_disk(self, monkeypatch, tmp_path, moment):
        """One line; what was there stays, and the same command goes on when there is room."""
        part = ("reproduce", "table1", "--rows", "fcn", "--seeds", 1, "--steps", 4)
        part += ("--out", tmp_path, "--columns")
        call(*part, "RTS")  # so that there is something to lose
        part += ("R,RTS",)
        before = {path: path.read_bytes() for path in tmp_path.glob("*_seed0*")}
        whole = training.files.os.replace

        def replace(aside, path):
            name = Path(path).name
            hit = moment in name if moment == "checkpoint" else name == fast(steps=4).name + moment
            if hit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            whole(aside, path)

        monkeypatch.setattr(training.files.os, "replace", replace)
        text = call(*part, code=2)
        assert "Traceback" not in text
        (line,) = re.findall(r"stn-tutorial: .*", text)
        assert line.startswith(f"stn-tutorial: {tmp_path}/{fast(steps=4).name}")
        assert "No space left on device" in line
        assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]
        assert before.items() <= {p: p.read_bytes() for p in tmp_path.glob("*_seed0*")}.items()
        monkeypatch.setattr(training.files.os, "replace", whole)
        text = call(*part)
        assert ("going on from step 4" in text) == (moment != "checkpoint")
        assert finished(fast(steps=4), tmp_path)["history"][-1]["step"] == 4
        assert not list(tmp_path.glob("*checkpoint*"))

    def test_a_finished_copy_does_nothing_and_prints_the_table(self, monkeypatch, tmp_path):
        first = call(*TABLE, "--out", tmp_path / "first")
        os.rename(tmp_path / "first", tmp_path / "copy")
        monkeypatch.setattr(Cell, "prepare", None)
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").iterdir() if p.is_file()}
        text = call(*TABLE, "--out", tmp_path / "copy")
        assert text.count("finished before") == 4
        assert text.rpartition("\n\n")[2] == first.rpartition("\n\n")[2]
        after = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").iterdir() if p.is_file()}
        assert after == before


class TestSaidAloud:
    def test_another_precision(self, capsys, tmp_path):
        result = run(fast(), tmp_path)
        capsys.readouterr()
        assert run(fast(), tmp_path, execution=Execution("auto")) == result
        assert capsys.readouterr().out == ""  # which is float32 on a CPU
        assert run(fast(), tmp_path, execution=Execution("bfloat16")) == result
        assert capsys.readouterr().out == (
            "R fcn seed 0 was trained in float32, not bfloat16, and is left as it is. To train it "
            f"anew, choose another folder, or delete {tmp_path / fast().name}.json.\n"
        )
        text = call(*TABLE, "--precision", "bfloat16", "--out", tmp_path / "b")
        assert text.count("min, bfloat16") == 4
        text = call(*TABLE, "--out", tmp_path / "b")
        assert text.count("was trained in bfloat16, not float32") == 4

    def test_a_cell_of_two_precisions(self, monkeypatch, capsys, tmp_path):
        """Stopped in one and resumed in another: its result says both."""
        whole = data.Batches.__call__

        def batch(self, step):
            if step == 3:
                raise KeyboardInterrupt
            return whole(self, step)

        monkeypatch.setattr(data.Batches, "__call__", batch)
        with pytest.raises(KeyboardInterrupt):
            run(fast(), tmp_path, execution=Execution("bfloat16"))
        monkeypatch.setattr(data.Batches, "__call__", whole)
        runs = run(fast(), tmp_path)["runs"]
        assert [(r["precision"], r["from"], r["to"]) for r in runs] == [
            ("bfloat16", 0, 3),
            ("float32", 3, 6),
        ]
        (row,) = experiments.merge(tmp_path)["rows"]
        assert row["precisions"] == ["bfloat16", "float32"]
        assert row["runs"] == [runs]
        capsys.readouterr()
        run(fast(), tmp_path)
        assert "was trained in bfloat16 and float32, not float32" in capsys.readouterr().out

    def test_a_checkpoint_of_another_length(self, monkeypatch, capsys, tmp_path):
        """As where a GPU is gone, and with it the length that is a GPU's."""
        long = fast(steps=50)
        mend = diverging(monkeypatch, "R", first=4)
        with pytest.raises(FailedCellError):
            run(long, tmp_path, every=2)
        mend()
        capsys.readouterr()
        run(fast(seed=1), tmp_path)
        run(fast(model="cnn", steps=1), tmp_path)
        assert "of another length" not in capsys.readouterr().out
        run(fast(), tmp_path)
        assert (
            f"R fcn seed 0 begins anew, with 6 steps. {tmp_path / long.name}.checkpoint.pt is of "
            "another length and stays as it is; --steps with its number goes on with it.\n"
        ) in capsys.readouterr().out
        assert (tmp_path / f"{long.name}.checkpoint.pt").exists()


class TestLocks:
    def test_a_cell_that_another_one_trains(self, tmp_path):
        (tmp_path / ".locks").mkdir()
        with FileLock(tmp_path / ".locks" / f"{fast().name}.lock"):
            with pytest.raises(BusyError, match=r"another process trains .*it holds .*\.lock"):
                run(fast(), tmp_path)
            text = call("train", "R", "fcn", "--steps", 6, "--out", tmp_path, code=2)
            assert "another process trains" in text
            assert left_over(tmp_path) == []
        assert run(fast(), tmp_path) is not None

    def test_a_result_needs_no_lock(self, tmp_path):
        result = run(fast(), tmp_path)
        with FileLock(tmp_path / ".locks" / f"{fast().name}.lock"):
            assert run(fast(), tmp_path) == result

    def test_three_processes_share_a_table_and_one_is_killed(self, tmp_path):
        """No cell twice, none left; the killed one's goes on from its checkpoint."""
        todo = cells(columns=["R", "RTS"], rows=["fcn", "st-fcn-affine", "st-fcn-tps"],
                     seeds=[0], steps=12)  # fmt: skip
        whole = [run(cell, tmp_path / "alone", every=1) for cell in todo]
        out = tmp_path / "shared"
        out.mkdir()
        said = (tmp_path / "said.txt").open("w")
        command = [sys.executable, __file__, str(out)]
        those = [subprocess.Popen(command, stdout=said, stderr=said) for _ in range(3)]
        try:
            # The first one is killed in the middle of a cell: it says which, and waits there.
            deadline = time.monotonic() + 300
            while not (held := list(out.glob("*.waits"))):
                assert time.monotonic() < deadline, "no process came to the middle of a cell"
                assert all(process.poll() is None for process in those)
                time.sleep(0.05)
            name, pid = held[0].read_text().split()
            victim = next(process for process in those if process.pid == int(pid))
            victim.send_signal(signal.SIGKILL)
            assert victim.wait(60) == -signal.SIGKILL
            (out / "go on").touch()
            others = [process for process in those if process is not victim]
            assert [process.wait(300) for process in others] == [0, 0]
        finally:
            said.close()
            for process in those:
                process.kill()
                process.wait()
        # Each step of each cell was taken once, but for those that the kill undid.
        lines = "".join(path.read_text() for path in out.glob("*.steps")).splitlines()
        taken = Counter(tuple(line.split()) for line in lines)
        undone = {step for step, count in taken.items() if count > 1}
        assert {cell for cell, _ in undone} <= {name}
        assert len(undone) <= 1
        assert len(taken) == len(todo) * 12
        for cell, alone in zip(todo, whole, strict=True):
            assert without_time(finished(cell, out)) == without_time(alone)
        pids = {run["command"].split()[-1] for c in todo for run in finished(c, out)["runs"]}
        assert pids == {str(process.pid) for process in those}  # all three had a part
        both = next(finished(cell, out)["runs"] for cell in todo if cell.name == name)
        assert [run["command"].split()[-1] == pid for run in both] == [True, False]
        assert not [path for path in out.iterdir() if "partial" in path.name]
        assert len(json.loads((out / "table1.json").read_text())["rows"]) == len(todo)

    def test_twenty_commands_write_one_table(self, tmp_path):
        """From twenty threads, which is harder than from twenty processes only for Python."""
        for seed in range(3):
            run(fast(seed=seed), tmp_path)
        from concurrent.futures import ThreadPoolExecutor

        target = tmp_path / "table1.json"
        with ThreadPoolExecutor(20) as pool:
            tables = list(
                pool.map(
                    lambda _: experiments.write_table(lambda: experiments.merge(tmp_path), target),
                    range(20),
                )
            )
        assert all(table == json.loads(target.read_text()) for table in tables)
        assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_reproduce_is_for_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = call(*TABLE, "--out", tmp_path, code=2)
    assert "torchrun is for one cell, by the command train" in text


def test_an_unusable_file_is_told_from_a_wrong_name():
    assert issubclass(UnusableFileError, ValueError)
    assert set(experiments.EXPERIMENTS) == {"table1", "addition", "svhn"}
    table1 = experiments.EXPERIMENTS["table1"]
    todo = table1.cells(
        columns=table1.columns, rows=table1.rows, seeds=[0], recipe="modern", steps=1
    )
    assert [cell.title for cell in todo[:2]] == ["R fcn seed 0", "R cnn seed 0"]


# --- What runs in processes of its own ---


def be_one_of_three(out):
    """Give the command; the first process in the middle of a cell waits there to be killed."""
    from stn_tutorial.cli import app

    torch.set_num_threads(1)
    os.fsync = lambda number: None
    training.engine.SAVE_SECONDS = 0.0  # a checkpoint after each step
    whole = data.Batches.__call__
    cell = []
    prepare = Cell.prepare
    Cell.prepare = lambda self, device: cell.append(self.name) or prepare(self, device)

    def batch(self, step):
        if step == 7:
            mine = out / "one.waits"
            try:
                with (out / f"{os.getpid()}.tmp").open("x") as file:
                    file.write(f"{cell[-1]} {os.getpid()}")
                os.link(out / f"{os.getpid()}.tmp", mine)  # one process only
                time.sleep(600)
            except FileExistsError:
                # Nor does anybody go on before: all three shall have a part.
                while not (out / "go on").exists():
                    time.sleep(0.02)
        with (out / f"{os.getpid()}.steps").open("a") as file:
            file.write(f"{cell[-1]} {step}\n")
        return whole(self, step)

    data.Batches.__call__ = batch
    command = "reproduce table1 --columns R,RTS --rows fcn,st-fcn-affine,st-fcn-tps"
    sys.argv = ["stn-tutorial", *command.split(), "--seeds", "1", "--steps", "12"]
    sys.argv += ["--out", str(out), "--device", "cpu"]
    arguments = sys.argv[1:]
    sys.argv.append(str(os.getpid()))  # by which its runs are told from the others'
    app(arguments)


if __name__ == "__main__":
    be_one_of_three(Path(sys.argv[1]))
