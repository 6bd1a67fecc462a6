"""The files beside which a cell is known: its result, and the reason why it has none."""

import json
from pathlib import Path
from typing import Any

from stn_tutorial.experiments.work import Task
from stn_tutorial.training import Execution, UnusableFileError, write_whole

__all__ = ["finished", "precisions"]

OLD_KEYS = ("command", "commit", "device", "threads", "precision", "execution", "versions")


def write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """Return a result, in today's format though it may have been written in an earlier one."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnusableFileError(
            f"{path} is not a result ({error}). Delete it, and its cell is run again."
        ) from error
    if not isinstance(result, dict) or not {"settings", "test_error"} <= result.keys():
        raise UnusableFileError(
            f"{path} is not a result: it lacks its settings or its test error. Delete it, and its "
            "cell is run again."
        )
    if "runs" not in result:  # which knew its last run only, and not from where on
        run = {key: result.pop(key) for key in OLD_KEYS if key in result}
        if run.get("precision") == "auto" and run.get("device", "").startswith("cpu"):
            run["precision"] = "float32"
        result["runs"] = [run | {"from": None, "to": result["settings"]["steps"]}]
    return result


def finished(cell: Task, out: Path | str) -> dict[str, Any] | None:
    """Return a cell's result where there is one.

    Args:
        cell: which.
        out: the folder of the results.

    Raises:
        UnusableFileError: the file is damaged, or was made with other settings of the recipe.
    """
    path = Path(out) / f"{cell.name}.json"
    if not path.exists():
        return None
    result = read(path)
    if result["settings"] != cell.settings():
        raise UnusableFileError(
            f"{path} was made with other settings of the recipe {cell.recipe!r}. Choose another "
            "folder, or delete that file to run its cell again."
        )
    return result


def precisions(result: dict[str, Any]) -> list[str]:
    """Return the dtypes that a result's layers were trained in, run by run, each once."""
    return list(dict.fromkeys(run["precision"] for run in result["runs"]))


def failure(cell: Task, out: Path) -> str | None:
    """Return what is written down of a cell that failed, and what it would take to try again."""
    path = out / f"{cell.name}.failed"
    if not path.exists():
        return None
    try:
        reason = json.loads(path.read_text(encoding="utf-8"))["reason"]
    except (ValueError, TypeError, KeyError):
        reason = "its reason cannot be read"
    again = f"To try it again, delete {path}"
    checkpoint = out / f"{cell.name}.checkpoint.pt"
    if checkpoint.exists():
        again += f", and {checkpoint} as well unless it shall go on from there"
    return (
        f"failed before ({reason}). {again}. What diverged will do so again unless something "
        "changes: the precision, the recipe, the seed."
    )


def write_failure(cell: Task, out: Path, error: Exception, execution: Execution) -> str:
    """Write down why a cell failed; return the reason in a line."""
    message = " ".join(str(error).split())  # CUDA's have many lines
    reason = f"{type(error).__name__}: {message}"
    content = {"settings": cell.settings(), "reason": reason, "precision": execution.precision}
    write(out / f"{cell.name}.failed", content)
    return reason
