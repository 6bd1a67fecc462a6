"""Files that are there whole, or not at all (chapter 10)."""

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["UnusableFileError"]


class UnusableFileError(ValueError):
    """A file that is there cannot be used; the message says why, and what to do about it."""


def clear_partial(path: Path) -> None:
    """Remove what processes that were killed while they wrote a file have left beside it.

    Only for who holds the file's lock, or is alone with it: it asks no process whether it lives.
    """
    for aside in path.parent.glob(f".{path.name}.*partial"):
        aside.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside the old one, and then put it in its place; make its folder if need be.

    Raises:
        OSError: it cannot be written; it names `path`. The old file stays as it was, and nothing
            half-written is left.
    """
    # The number tells a reader whose it was; twenty containers may all have the number 1.
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # on a disk that has become read-only, say
            aside.unlink(missing_ok=True)
