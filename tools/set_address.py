"""Write the repository's public address wherever it stands: `make address URL=https://…`.

`[project.urls] Repository` in pyproject.toml is the one place that says what it is; the README, the
citation, the welcome page and the chapters' first cells repeat it, and a test holds them together.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORM = re.compile(r"https://github\.com/([\w-]+/[\w.-]+?)(?:\.git)?/?")


def slug(address: str) -> str:
    """The owner and name in a repository's address; exit when it is none that Colab can open."""
    match = FORM.fullmatch(address)
    if match is None:
        raise SystemExit(f"URL must be https://github.com/OWNER/NAME, but {address!r} was given")
    return match[1]


def rewrite(text: str, old: str, new: str) -> str:
    """Replace one owner/name by another in addresses of GitHub, of Colab and of Colab's opener."""
    pattern = (
        rf"(https://(?:github\.com|colab\.research\.google\.com/github)/){re.escape(old)}(?![\w-])"
    )
    return re.sub(pattern, rf"\g<1>{new}", text)


def main(address: str) -> None:
    new = slug(address)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    old = slug(project["urls"]["Repository"])
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "*.md", "*.toml", "*.cff", "chapters/*.ipynb"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = rewrite(before, old, new)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(name)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
