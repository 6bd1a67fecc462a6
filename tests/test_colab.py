"""What Colab does: a Python that has PyTorch but not the package, an empty folder, *Run all*.

The install cell runs as the reader sees it. Git sends its address to a copy of this working tree,
and pip builds from it without asking an index.
"""

import json
import os
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = PYPROJECT["project"]["urls"]["Repository"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository of the working tree as it is, uncommitted changes included."""
    folder = tmp_path_factory.mktemp("repository")
    git = ["git", f"--git-dir={folder / '.git'}", f"--work-tree={ROOT}"]
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "as it is"]):
        subprocess.run([*git, *command], check=True)
    return folder / ".git"


@pytest.fixture
def colab(repository, tmp_path, monkeypatch):
    """A Python that has what this one has, but no stn_tutorial: its executable, its packages."""
    folder = tmp_path / "colab"
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    # The packages of this environment, but not its editable install of ours: that hangs on a .pth
    # file, and those are read in a Python's own folder only.
    (own / "packages.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    spec = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    spec |= {"display_name": "colab", "language": "python"}
    kernel = tmp_path / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{repository.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", ADDRESS)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads it as: isolation, no
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return python, own


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_runs_as_on_colab(path, colab, tmp_path):
    python, own = colab
    empty = tmp_path / "content"
    empty.mkdir()
    missing = subprocess.run([python, "-c", "import stn_tutorial"], cwd=empty, capture_output=True)
    assert b"ModuleNotFoundError" in missing.stderr

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(empty)}}
    client = NotebookClient(notebook, kernel_name="colab", timeout=3000, resources=resources)
    try:
        client.execute()
    except CellExecutionError as error:
        installing = next(cell for cell in notebook.cells if cell.cell_type == "code").outputs
        pytest.fail(f"{error}\nThe install cell printed: {installing}")

    package = own / "stn_tutorial"
    assert (package / "book.mplstyle").is_file(), "installed, style sheet included"
    measured = {one.name for one in (ROOT / "book" / "results").glob("*.json")}
    assert {one.name for one in (package / "_results").iterdir()} == measured
    assert not list(empty.iterdir()), "a chapter leaves nothing behind"
