"""What the book needs of Sphinx beyond _config.yml: its address, our style sheet and templates.

The site asks no other host for anything, and opens from disk as well as over http:
tests/test_site.py holds it to that.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]


def set_public_address(app: Sphinx, config: Config) -> None:
    """Point the page's buttons at the address that pyproject.toml states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.html_theme_options["repository_url"] = project["urls"]["Repository"]


def set_templates(app: Sphinx, config: Config) -> None:
    config.templates_path.append(str(ROOT / "book" / "_templates"))


def add_static_files(app: Sphinx) -> None:
    """Add our static files: here, as Jupyter Book puts all of _static on every page."""
    app.config.html_static_path.append(str(ROOT / "book" / "_static"))
    app.add_css_file("stn-book.css")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_public_address)
    app.connect("config-inited", set_templates)
    app.connect("builder-inited", add_static_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
