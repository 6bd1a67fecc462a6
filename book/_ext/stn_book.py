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
    app.add_js_file("scrolling.js", loading_method="defer")


# What the theme and docutils write, and what a screen reader can make sense of: an empty header is
# none, the sidebar is a part of the page, and a button is called what is written on it.
MENDED = {
    '<th class="head"><p></p></th>': "<td></td>",
    '<div id="pst-primary-sidebar" ': '<div id="pst-primary-sidebar" role="complementary" '
    'aria-label="The book" ',
    # The one with words on it; the other is an icon, and needs its label.
    'search-button-field search-button__button pst-js-only" title="Search" aria-label="Search"': (
        'search-button-field search-button__button pst-js-only" title="Search"'
    ),
}


def mend(app: Sphinx, exception: Exception | None) -> None:
    """Mend the finished pages where a screen reader would stumble."""
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for written, meant in MENDED.items():
            text = text.replace(written, meant)
        page.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_public_address)
    app.connect("config-inited", set_templates)
    app.connect("builder-inited", add_static_files)
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
