"""The queue on a Ray cluster of two nodes of one core, one of which is lost in the middle."""

import importlib.util
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from test_experiments import call, without_time
from test_queue import TABLE

from stn_tutorial import experiments
from stn_tutorial.experiments import Cell, cells, finished, run

# Ray's own shutting down leaves files and sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@dataclass(frozen=True)
class Held(Cell):
    """A cell that stops at a step for as long as a file is there."""

    hold: str = ""

    def settings(self):
        return {name: value for name, value in super().settings().items() if name != "hold"}

    def prepare(self, device):
        import ray

        work = super().prepare(device)
        if Path(self.hold).exists():
            Path(f"{self.hold}.node").write_text(ray.get_runtime_context().get_node_id())

        def batches(step):
            while step == 25 and Path(self.hold).exists():
                time.sleep(0.02)
            return work.batches(step)

        return replace(work, batches=batches)


@pytest.fixture(autouse=True)
def _digits(monkeypatch):
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "digits")


@pytest.fixture
def cluster(monkeypatch):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no Ray here")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    # Two folders of modules for the workers: the package's, and this one, for what they wait for.
    paths = [str(Path(experiments.__file__).parents[2]), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    import ray
    from ray.cluster_utils import Cluster

    def start():
        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False},
        )
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        made.wait_for_nodes(timeout=120)
        return made, nodes

    try:
        made, nodes = start()
    except Exception as error:  # a busy machine can outlast its patience, the first time
        print(f"Ray's first start failed: {error}")
        ray.shutdown()
        made, nodes = start()
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def test_a_node_is_lost_in_the_middle(cluster, tmp_path, capsys):
    made, nodes = cluster
    todo = cells(columns=["R"], rows=["fcn", "st-fcn-affine", "st-fcn-tps"], seeds=[0], steps=40)
    out = tmp_path / "shared"
    run(todo[0], out)  # which no node shall do again
    hold = tmp_path / "hold"
    hold.touch()
    given = [todo[0], Held(**asdict(todo[1]), hold=str(hold)), todo[2]]
    lost = []

    def lose_one():
        """Once the held cell has a checkpoint, take its node away."""
        deadline = time.monotonic() + 400
        checkpoint = out / f"{todo[1].name}.checkpoint.pt"
        try:
            while not checkpoint.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            held_by = Path(f"{hold}.node").read_text()
            (node,) = [node for node in nodes if node.node_id == held_by]
            made.remove_node(node, allow_graceful=False)
            lost.append(checkpoint.exists())
        finally:
            hold.unlink()

    killer = threading.Thread(target=lose_one)
    killer.start()
    problems = experiments.reproduce_on_ray(given, out, address=made.address)
    killer.join()
    assert problems == {}
    assert lost == [True]
    text = capsys.readouterr().out
    assert "[1/3] R fcn seed 0: test error" in text
    assert text.count("finished before") == 1
    assert "2 cells are on the cluster" in text
    for cell in todo:
        alone = run(cell, tmp_path / "alone")
        assert without_time(finished(cell, out)) == without_time(alone)
        assert (out / f"{cell.name}.pt").stat().st_size > 0
    # The cell that was under way has gone on from its checkpoint; both say whose command it was.
    first, second = (finished(cell, out)["runs"] for cell in todo[1:])
    assert len(first) == 2
    assert 0 == first[0]["from"] < first[0]["to"] == first[1]["from"] < first[1]["to"] == 40
    assert {one["command"] for one in first + second} == {alone["runs"][0]["command"]}
    assert not list(out.glob("*.checkpoint.pt"))
    assert not [path for path in out.iterdir() if "partial" in path.name]
    # And with everything there, the command only says the table; what cannot be had is refused.
    text = call(
        *("reproduce", "table1", "--rows", "fcn,st-fcn-affine", "--columns", "R", "--seeds", 1),
        *("--steps", 40, "--out", out, "--on", "ray"),
    )
    assert text.count("finished before") == 2
    assert len(json.loads((out / "table1.json").read_text())["rows"]) == 3
    text = call(*TABLE, "--out", out, "--on", "ray", "--gpus", 2, code=2)
    assert "no node of the cluster has 2 GPU; together they have 0" in text


def test_ray_is_an_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    text = call(*TABLE, "--out", tmp_path, "--on", "ray", code=2)
    assert text == 'stn-tutorial: Ray is not installed here: pip install "stn-tutorial[ray]"\n'
    text = call(*TABLE, "--out", tmp_path, "--on", "ray", "--device", "cpu", code=2)
    assert "--gpus says where a cell runs" in text
    text = call(*TABLE, "--out", tmp_path, "--on", "dask", code=2)
    assert "on must be one of here, ray, but 'dask' was given" in text
