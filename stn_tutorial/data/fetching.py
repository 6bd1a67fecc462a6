"""Large files from their public homes: fetched with what has come kept, and checked (13, 14)."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

__all__ = ["fetch_file", "file_hash"]

PIECE = 1 << 20


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's hash, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch_file(
    address: str,
    path: Path,
    *,
    size: int,
    sha256: str,
    whose: str,
    lock: str,
    on_bytes: Callable[[int, int], object] | None = None,
) -> Path:
    """Fetch a file where it is missing, going on with a half of it; check it; return its path.

    What has come is kept beside it, with `.half` after its name, whatever stops the transfer; the
    next call asks for the rest alone. Only a file of the right size and hash gets the name.

    Args:
        address: where it is.
        path: where it belongs.
        size: bytes of the whole.
        sha256: its hash.
        whose: what it is called in an error, as in "is not SVHN's archive".
        lock: the name of the lock file, beside it.
        on_bytes: called with the bytes that are there and those of the whole, again and again.

    Raises:
        RuntimeError: it cannot be fetched. What has come is kept.
        ValueError: what lies there, or has come, is not that file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.half")
    with FileLock(path.parent / lock):
        if path.exists():
            _check(path, size, sha256, whose)
            return path
        have = half.stat().st_size if half.exists() else 0
        if have < size:
            _transfer(address, half, size, on_bytes)
        _check(half, size, sha256, whose)
        os.replace(half, path)
    return path


def _transfer(
    address: str, half: Path, size: int, on_bytes: Callable[[int, int], object] | None
) -> None:
    """Append to `half` what it lacks of `size` bytes."""
    have = half.stat().st_size if half.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            # A server that knows no ranges sends all of it, from the start.
            if have and answer.status != 206:
                have = 0
            with half.open("ab" if have else "wb") as file:
                while piece := answer.read(PIECE):
                    file.write(piece)
                    have += len(piece)
                    if on_bytes is not None:
                        on_bytes(have, size)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(
            f"{address} could not be fetched ({reason}). {have:,d} of {size:,d} bytes are kept in "
            f"{half}; the same command goes on from there."
        ) from error
    if have < size:
        raise RuntimeError(
            f"{address} ended after {have:,d} of {size:,d} bytes. They are kept in {half}; the "
            "same command goes on from there."
        )


def _check(path: Path, size: int, sha256: str, whose: str) -> None:
    found = path.stat().st_size
    if found != size or file_hash(path) != sha256:
        raise ValueError(
            f"{path} is not {whose} archive ({found:,d} bytes, expected {size:,d}, or a "
            "SHA-256 other than the recorded one). Delete it, and the next call fetches it again."
        )
