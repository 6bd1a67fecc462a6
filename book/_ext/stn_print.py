"""Pages on paper: in the light theme, solutions open, explorables by the pictures they stand for.

What scrolls on a screen is broken into lines by stn-book.css.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

SCRIPT = (Path(__file__).parent / "stn_print.js").read_text(encoding="utf-8")


def add_style(app: Sphinx) -> None:
    app.add_css_file("stn-print.css", media="print")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", add_style)
    app.add_js_file(None, body=SCRIPT)  # here, since from builder-inited it would stand there twice
    return {"parallel_read_safe": True, "parallel_write_safe": True}
