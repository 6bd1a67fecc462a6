"""The paper's table: its cells, their results, and the command line that runs them.

All on the embedded digits, in a few steps: nothing here is about how well a model learns.
"""

import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

from stn_tutorial import data, experiments
from stn_tutorial.cli import app
from stn_tutorial.experiments import PAPER, RECIPES, Cell, cells, finished, merge, render, run
from stn_tutorial.experiments.cells import digits_of
from stn_tutorial.models import MODELS, build
from stn_tutorial.training import Execution, UnusableFileError, error_rate

FAST = {"distortion": "R", "model": "fcn", "recipe": "modern", "dataset": "digits"}


@pytest.fixture(autouse=True)
def _digits(monkeypatch):
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "digits")


def fast(seed=0, steps=6, **changes):
    return Cell(**{**FAST, "seed": seed, "steps": steps, **changes})


def interrupt_at(monkeypatch, step):
    """Press Ctrl-C when that step's batch is asked for; returns how to lift the finger."""
    whole = data.Batches.__call__

    def batch(self, number):
        if number == step:
            raise KeyboardInterrupt
        return whole(self, number)

    monkeypatch.setattr(data.Batches, "__call__", batch)
    return lambda: monkeypatch.setattr(data.Batches, "__call__", whole)


def without_time(result):
    """What two runs of one cell share."""
    kept = {k: v for k, v in result.items() if k not in ("seconds", "images_per_second", "runs")}
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in result["history"]]
    return {**kept, "history": history}


def left_over(folder):
    """What lies there but for the locks, which stay."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".locks")


# --- What the paper says ---


def test_paper():
    assert tuple(PAPER) == MODELS
    column = [PAPER[model]["R"] for model in MODELS]
    assert column == [2.1, 1.2, 1.2, 1.3, 1.1, 0.7, 0.8, 0.7]
    assert {name: row["TC"] for name, row in PAPER.items() if "TC" in row} == {
        **{"fcn": 13.2, "cnn": 3.5, "st-fcn-affine": 2.0, "st-cnn-affine": 1.7}
    }
    assert [PAPER["st-cnn-tps"][d] for d in ("R", "RTS", "P", "E")] == [0.7, 0.5, 0.8, 1.1]
    for row in PAPER.values():
        assert set(row) - {"TC"} == {"R", "RTS", "P", "E"}
    sums = {d: round(sum(row[d] for row in PAPER.values()), 1) for d in ("R", "RTS", "P", "E")}
    assert sums == {"R": 9.1, "RTS": 10.1, "P": 11.3, "E": 15.9}
    assert "2015" in experiments.PAPER_SOURCE
    assert "arxiv.org/abs/1506.02025" in experiments.PAPER_SOURCE


def test_the_papers_recipe():
    plan = RECIPES["paper"]
    assert asdict(plan.recipe) == {
        **{"steps": 150_000, "batch_size": 256, "optimiser": "sgd", "momentum": 0.9},
        **{"learning_rate": 0.01, "localisation_rate": 1.0, "weight_decay": 0.0},
        **{"label_smoothing": 0.0, "schedule": "steps", "drop_every": 50_000},
        "warmup": plan.recipe.warmup,  # of the other schedule
    }
    assert not plan.batch_norm
    assert plan.dropout == 0


def test_fewer_steps_squeeze_the_schedule():
    settings = fast(recipe="paper", steps=30).settings()["recipe_settings"]
    assert (settings["steps"], settings["drop_every"]) == (30, 10)
    modern = fast(steps=30).settings()["recipe_settings"]
    assert (modern["steps"], modern["batch_norm"]) == (30, True)


# --- Cells ---


def test_cells_go_seed_by_seed():
    todo = cells(columns=["R", "E"], rows=["fcn", "cnn"], seeds=[0, 1], steps=5)
    assert [(c.seed, c.distortion, c.model) for c in todo[:5]] == [
        *((0, "R", "fcn"), (0, "R", "cnn"), (0, "E", "fcn"), (0, "E", "cnn"), (1, "R", "fcn"))
    ]
    assert len(todo) == len({c.name for c in todo}) == 8
    assert {c.dataset for c in todo} == {"digits"}
    assert len(cells(steps=5)) == 3 * 5 * 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distortion": "Q"}, r"distortion must be one of R, RTS, P, E, TC, but 'Q' was given"),
        ({"model": "vgg"}, r"model must be one of fcn, .* but 'vgg' was given"),
        ({"recipe": "old"}, r"recipe must be one of paper, modern, but 'old' was given"),
        ({"dataset": "cifar"}, r"dataset must be one of mnist, digits, but 'cifar' was given"),
        ({"seed": -1}, r"seed must be 0 or more, but -1 was given"),
        ({"steps": 0}, r"steps must be 1 or more, but 0 was given"),
    ],
)
def test_bad_cells(changes, message):
    with pytest.raises(ValueError, match=message):
        fast(**changes)


def test_default_steps():
    assert experiments.default_steps("modern", "cpu") < experiments.default_steps("modern", "cuda")
    assert experiments.default_steps("paper", "cpu") == 150_000
    with pytest.raises(ValueError, match="recipe must be one of"):
        experiments.default_steps("old", "cpu")


# --- Running one ---


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One cell, run without an interruption."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STN_TUTORIAL_DATASET", "digits")
        return folder, run(fast(), folder, every=2)


def test_a_result_says_all(reference):
    folder, result = reference
    assert left_over(folder) == [f"{fast().name}.json", f"{fast().name}.pt"]
    assert json.loads((folder / f"{fast().name}.json").read_text()) == result
    assert result["settings"]["seed"] == 0
    assert result["settings"]["recipe_settings"]["optimiser"] == "adamw"
    assert result["digits"] == {"train": 1198, "held-out": 239, "test": 360}
    assert [row["step"] for row in result["history"]] == [2, 4, 6]
    assert result["history"][-1]["held_out_error"] == result["held_out_error"]
    (made,) = result["runs"]
    assert (made["from"], made["to"]) == (0, 6)
    assert made["device"].startswith("cpu: ")
    assert made["versions"]["torch"] == torch.__version__
    assert made["threads"] == torch.get_num_threads()
    assert re.fullmatch(r"[0-9a-f]{40}(, changed)?", made["commit"])
    assert made["command"]
    assert made["precision"] == "float32"
    assert result["seconds"] > 0


def test_the_weights_give_the_errors(reference):
    folder, result = reference
    model = build("fcn", batch_norm=True, dropout=RECIPES["modern"].dropout)
    model.load_state_dict(torch.load(folder / f"{fast().name}.pt", weights_only=True))
    test = data.FixedSet(data.embedded_digits("test"), "R", "test")
    assert error_rate(model, test) == pytest.approx(result["test_error"], abs=1e-3)
    U, target = (torch.cat(parts) for parts in zip(*test, strict=True))
    wrong = model.eval()(U).argmax(dim=1) != target
    assert result["misread"] == wrong.nonzero().flatten().tolist()


def test_the_same_cell_gives_the_same_result(reference, tmp_path):
    _, result = reference
    torch.manual_seed(12345)
    again = run(fast(), tmp_path, every=2)
    assert without_time(again) == without_time(result)
    other = run(fast(seed=1), tmp_path, every=2)
    assert other["history"][0]["loss"] != result["history"][0]["loss"]


def test_a_finished_cell_is_not_run_again(reference, monkeypatch):
    folder, result = reference
    monkeypatch.setattr(Cell, "prepare", None)
    assert run(fast(), folder) == result
    assert finished(fast(), folder) == result
    assert finished(fast(seed=5), folder) is None


@pytest.mark.parametrize("step", [0, 1, 3, 5])
def test_interrupted_and_resumed(step, reference, monkeypatch, tmp_path):
    folder, result = reference
    go_on = interrupt_at(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        run(fast(), tmp_path, every=2)
    assert finished(fast(), tmp_path) is None
    assert left_over(tmp_path) == ([f"{fast().name}.checkpoint.pt"] if step else [])
    go_on()
    assert without_time(run(fast(), tmp_path, every=2)) == without_time(result)
    ours, theirs = (
        torch.load(place / f"{fast().name}.pt", weights_only=True) for place in (tmp_path, folder)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert left_over(tmp_path) == left_over(folder)


def test_the_test_digits_are_looked_at_once_and_last(monkeypatch, tmp_path):
    seen = []
    whole = data.FixedSet.__iter__

    def look(self):
        seen.append(self.split)
        return whole(self)

    monkeypatch.setattr(data.FixedSet, "__iter__", look)
    run(fast(steps=4), tmp_path, every=1)
    assert seen.count("test") == 1
    assert seen[-1] == "test"
    assert seen.count("held-out") >= 4


def test_no_digit_is_trained_on_and_judged_by():
    train_on, held_out, test = digits_of("digits")
    pictures = torch.cat([part.images for part in (train_on, held_out, test)]).flatten(1)
    assert len(pictures.unique(dim=0)) == len(pictures) == 1797


def test_a_transformer_trains_too(tmp_path):
    cell = fast(model="st-cnn-affine", distortion="RTS", steps=2)
    result = run(cell, tmp_path, execution=Execution("auto"))
    assert result["runs"][0]["execution"]["precision"] == "auto"
    assert result["runs"][0]["precision"] == "float32"
    weights = torch.load(tmp_path / f"{cell.name}.pt", weights_only=True)
    assert weights["transformer.regression.weight"].abs().max() > 0


@pytest.mark.parametrize("content", ["", "{", "[1, 2", "[]", "null", "{}"])
def test_a_damaged_result(content, tmp_path):
    """It keeps its own cell from being used, and no other one from the table."""
    path = tmp_path / f"{fast().name}.json"
    path.write_text(content)
    with pytest.raises(UnusableFileError, match=rf"{path.name} is not a result.*Delete it"):
        finished(fast(), tmp_path)
    pretend(tmp_path, [1.0])
    table = merge(tmp_path)
    assert [row["dataset"] for row in table["rows"]] == ["mnist"]
    (line,) = table["left_out"]
    assert line.startswith(f"{path} is not a result")
    assert line in render(table)


def test_a_result_of_other_settings(reference, tmp_path):
    _, result = reference
    result = json.loads(json.dumps(result))
    result["settings"]["recipe_settings"]["learning_rate"] = 1.0
    (tmp_path / f"{fast().name}.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"made with other settings of the recipe 'modern'"):
        finished(fast(), tmp_path)


# --- The table ---


def pretend(folder, errors, **changes):
    """Write results as `run` would, with these test errors, one a seed."""
    for seed, error in enumerate(errors):
        cell = Cell(**{**FAST, "dataset": "mnist", "seed": seed, "steps": 100, **changes})
        result = {
            **{"settings": cell.settings(), "width": 1, "parameters": 2, "seconds": 60.0},
            **{"test_error": error, "misread": [seed], "held_out_error": error + 0.1},
            "history": [],
            "runs": [
                {
                    **{"command": f"run {seed}", "commit": "c", "device": "d", "threads": 1},
                    **{"precision": "float32", "versions": {"torch": "2"}, "from": 0, "to": 100},
                }
            ],
        }
        (folder / f"{cell.name}.json").write_text(json.dumps(result))


def test_merge(tmp_path):
    pretend(tmp_path, [0.8, 0.6, 0.7], model="st-cnn-affine")
    pretend(tmp_path, [1.0], model="cnn")
    pretend(tmp_path, [2.0], model="cnn", distortion="TC", recipe="paper")
    pretend(tmp_path, [9.0], model="cnn", dataset="digits")
    target = tmp_path / "deep" / "table1.json"
    table = merge(tmp_path, target)
    assert json.loads(target.read_text()) == table
    assert left_over(target.parent) == ["table1.json"]
    places = [(r["dataset"], r["recipe"], r["distortion"], r["model"]) for r in table["rows"]]
    assert places == [
        ("digits", "modern", "R", "cnn"),
        ("mnist", "modern", "R", "cnn"),
        ("mnist", "modern", "R", "st-cnn-affine"),
        ("mnist", "paper", "TC", "cnn"),
    ]
    digits, cnn, st, tc = table["rows"]
    assert st["seeds"] == [0, 1, 2]
    assert st["test_errors"] == [0.8, 0.6, 0.7]
    assert st["misread"] == [[0], [1], [2]]
    assert st["mean"] == pytest.approx(0.7)
    assert st["spread"] == pytest.approx(statistics.stdev([0.8, 0.6, 0.7]))
    assert st["commands"] == ["run 0", "run 1", "run 2"]
    assert st["commits"] == ["c"]
    assert cnn["spread"] is None
    assert [row["paper"] for row in (digits, cnn, st, tc)] == [None, 1.2, 0.7, 3.5]
    assert table["paper"] == PAPER
    assert set(table["assumptions"]) == {
        *data.DISTORTIONS,
        *("models", "recipe paper", "recipe modern", "table"),
    }
    assert all(table["assumptions"].values())


def test_merge_of_nothing(tmp_path):
    assert merge(tmp_path)["rows"] == []
    assert render(merge(tmp_path)) == "No cell is finished yet."


def test_seeds_of_different_recipes_are_different_rows(tmp_path):
    pretend(tmp_path, [1.0, 2.0])
    path = next(tmp_path.glob("*seed1.json"))
    result = json.loads(path.read_text())
    result["settings"]["recipe_settings"]["weight_decay"] = 7
    path.write_text(json.dumps(result))
    table = merge(tmp_path)
    assert [row["mean"] for row in table["rows"]] == [1.0, 2.0]
    titles = [line for line in render(table).splitlines() if line.startswith("mnist")]
    assert titles == [
        f"mnist, modern recipe, 100 steps, weight_decay {decay}: test error in %, mean ± spread (n)"
        for decay in (0.01, 7)
    ]


def test_a_result_of_the_format_before(tmp_path):
    """It named its last run's command, commit, device and precision, and no others."""
    pretend(tmp_path, [1.0])
    path = next(tmp_path.glob("*.json"))
    old = json.loads(path.read_text())
    last = old.pop("runs")[0]
    del last["from"], last["to"]
    path.write_text(json.dumps({**old, **last, "execution": {"precision": "float32"}}))
    (row,) = merge(tmp_path)["rows"]
    assert (row["commands"], row["precisions"], row["threads"]) == (["run 0"], ["float32"], [1])
    (run_of_old,) = row["runs"][0]
    assert (run_of_old["from"], run_of_old["to"]) == (None, 100)
    cell = Cell(**{**FAST, "dataset": "mnist", "seed": 0, "steps": 100})
    assert finished(cell, tmp_path)["runs"] == [run_of_old]
    # As on a CPU the precision called auto was; of a GPU nobody knows.
    for device, precision in (("cpu: x", "float32"), ("cuda: x", "auto")):
        path.write_text(json.dumps({**old, **last, "device": device, "precision": "auto"}))
        assert merge(tmp_path)["rows"][0]["precisions"] == [precision]


def test_render(tmp_path):
    pretend(tmp_path, [0.8, 0.6, 0.7], model="st-cnn-affine")
    pretend(tmp_path, [1.0], model="cnn")
    pretend(tmp_path, [3.0], model="st-cnn-tps", distortion="TC")
    text = render(merge(tmp_path))
    lines = text.splitlines()
    assert lines[0].startswith("mnist, modern recipe, 100 steps")
    assert lines[1].split() == ["R", "paper", "TC", "paper"]
    assert lines[2].split() == ["cnn", "1.00", "(1)", "1.2", "–", "3.5"]
    assert " ".join(lines[3].split()) == "st-cnn-affine 0.70 ± 0.10 (3) 0.7 – 1.7"
    assert " ".join(lines[4].split()) == "st-cnn-tps – 0.7 3.00 (1) –"
    assert text.endswith("https://arxiv.org/abs/1506.02025")


# --- The command line ---


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_help_teaches():
    text = call("--help")
    for word in ("train", "reproduce", "data", "Jaderberg"):
        assert word in text
    text = call("train", "--help")
    assert "stn-tutorial train R st-cnn-affine" in text
    for word in (
        "R, RTS, P, E, TC",
        "Ctrl-C",
        "--seed",
        "--recipe",
        "--steps",
        "--out",
        "--device",
    ):
        assert word in " ".join(text.split())
    text = call("reproduce", "--help")
    for word in ("--rows", "--columns", "--seeds", "--recipe", "--on", "not run again"):
        assert word in " ".join(text.split())
    assert "STN_TUTORIAL_DATA" in call("data", "--help")


def test_train_command(tmp_path):
    arguments = ("train", "R", "fcn", "--steps", 3, "--seed", 2, "--out", tmp_path)
    text = call(*arguments)
    result = finished(fast(seed=2, steps=3), tmp_path)
    assert f"test error {result['test_error']:.2f} %" in text
    assert "paper's" not in text  # which is about MNIST
    again = call(*arguments)
    assert "Finished before" in again
    assert "3 steps of" in text
    assert "3 steps of" not in again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "Q", "fcn"), "distortion must be one of R, RTS, P, E, TC, but 'Q' was given"),
        (("train", "R", "vgg"), "model must be one of fcn, cnn"),
        (("train", "R", "fcn", "--recipe", "old"), "recipe must be one of paper, modern"),
        (("train", "R", "fcn", "--device", "abacus"), "there is no device 'abacus' here"),
        (
            ("reproduce", "table7"),
            "table must be one of table1, addition, svhn, but 'table7' was given",
        ),
        (("reproduce", "table1", "--rows", "fcn,vgg"), "rows must be one of fcn, cnn"),
        (("reproduce", "table1", "--columns", ","), "columns names nothing"),
    ],
)
def test_commands_say_what_is_wrong(arguments, message, tmp_path):
    text = call(*arguments, "--out", tmp_path, code=2)
    assert message in text
    assert "Traceback" not in text
    assert left_over(tmp_path) == []


def test_reproduce_stopped_and_resumed(monkeypatch, tmp_path):
    table = ("reproduce", "table1", "--rows", "fcn,st-fcn-tps", "--columns", "R,RTS")
    table += ("--seeds", 1, "--steps", 4)
    whole = call(*table, "--out", tmp_path / "whole")
    stopped, out = data.Batches.__call__, tmp_path / "stopped"
    asked = []

    def batch(self, number):
        asked.append(number)
        if len(asked) == 7:  # in the second cell's third step
            raise KeyboardInterrupt
        return stopped(self, number)

    monkeypatch.setattr(data.Batches, "__call__", batch)
    text = call(*table, "--out", out, code=130)
    assert "Stopped: 1 of 4 cells are finished" in text
    assert "Traceback" not in text
    assert len(json.loads((out / "table1.json").read_text())["rows"]) == 1
    first = {p.name: p.stat().st_mtime_ns for p in out.glob("*_seed0.json")}
    text = call(*table, "--out", out)
    assert text.count("finished before") == 1
    assert len(asked) == 7 + 2 + 8  # the second cell went on from its second step
    assert first.items() <= {p.name: p.stat().st_mtime_ns for p in out.iterdir()}.items()
    assert text.rpartition("\n\n")[2] == whole.rpartition("\n\n")[2]
    both = [json.loads((tmp_path / f / "table1.json").read_text()) for f in ("whole", "stopped")]
    errors = [[row["test_errors"] for row in table["rows"]] for table in both]
    assert errors[0] == errors[1]
    assert len(errors[0]) == 4


def test_under_torchrun(tmp_path):
    """Two processes on one cell: one result, one voice."""
    command = "-m torch.distributed.run --nproc-per-node 2 -m stn_tutorial.cli train R fcn"
    done = subprocess.run(
        [sys.executable, *command.split(), "--steps", "2", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error") == 1
    result = finished(fast(steps=2), tmp_path)
    assert f"test error {result['test_error']:.2f} %" in done.stdout
    assert left_over(tmp_path) == [f"{fast(steps=2).name}.json", f"{fast(steps=2).name}.pt"]


def test_data_command(monkeypatch, tmp_path):
    assert "embedded digits, train: 1437 digits" in call("data")
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "cifar")
    assert "STN_TUTORIAL_DATASET must be one of" in call("data", code=2)
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "mnist")
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-labels-idx1-ubyte").write_bytes(b"cut")
    text = call("data", code=2)
    assert "train-labels-idx1-ubyte is damaged" in text
    assert "Traceback" not in text
