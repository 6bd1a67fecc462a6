"""Run chapters from a fresh kernel and write back their outputs: `make chapters`.

Each runs in an empty folder, as on Colab, where nothing of this repository lies beside it. What is
written holds the cells and their outputs, and no trace of the machine or the moment.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# GPU chapters also keep what tells Colab to give them a GPU.
KEPT_METADATA = ("accelerator", "colab")
KEPT_CELL_METADATA = ("mystnb", "tags")


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook,
            kernel_name="python3",
            coalesce_streams=True,  # of a progress bar, keep what it left and not what it overwrote
            resources=resources,
        ).execute()
    normalise(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise SystemExit(f"{path}: a cell wrote to stderr, not saved:\n{output['text']}")
    nbformat.write(notebook, path)


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Leave what a reader and the book need of the metadata; cells keep their ids."""
    kept = {key: notebook.metadata[key] for key in KEPT_METADATA if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
            **kept,
        }
    )
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, flush=True)
        run(Path(name))
