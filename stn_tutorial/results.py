"""What was measured for the book, as data: `book/results/*.json` (chapters 5, 7 and 9 to 11).

The files travel inside an installed package; in a checkout of the repository they are read where
they lie.
"""

import json
from pathlib import Path
from typing import Any

__all__ = ["load_results"]

FOLDERS = (Path(__file__).parent / "_results", Path(__file__).parents[1] / "book" / "results")
"""Where results are looked for: inside the package, and beside it."""


def load_results(name: str) -> dict[str, Any] | None:
    """Return a file of measured results, or None when there is none: not measured yet.

    Args:
        name: of the file, without its ending: `"table1"`, `"steps"`, `"bench_distortion"`, …

    Raises:
        ValueError: the file is damaged.
    """
    for folder in FOLDERS:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    return None
