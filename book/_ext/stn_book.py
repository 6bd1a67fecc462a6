"""What the book needs of Sphinx beyond _config.yml: our style sheet, and no dead weight.

The site asks no other host for anything, and opens from disk as well as over http:
tests/test_site.py holds it to that.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]

# MathJax comes as a dozen bundles for as many ways of using it, 28 MB. The pages load the first of
# these; it loads the others when a formula or MathJax's own menu asks for them.
MATHJAX_IN_USE = (
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2/",
    "input/tex/extensions/",
    "a11y/",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)


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


def drop_unused(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Leave out what runs code in the page, and what folds admonitions: this book has neither.

    And MathJax, 263 kB, on a page without mathematics.
    """
    unused = "thebe|togglebutton"
    if 'class="math' not in (context.get("body") or ""):
        unused += "|mathjax"
    for files in ("script_files", "css_files"):
        context[files] = [
            file
            for file in context[files]
            if not re.search(unused, f"{file.filename} {file.attributes}".lower())
        ]


def prune(app: Sphinx, exception: Exception | None) -> None:
    """Remove what no page needs: most of MathJax, the theme's source maps, its second icons."""
    if exception:
        return
    static = Path(app.outdir) / "_static"
    # The theme draws its icons twice, by web fonts and by a script of 1.5 MB. The fonts suffice.
    (static / "scripts" / "fontawesome.js").write_text("// Icons come from the web fonts.\n")
    # And it reports its own doings in the console, where a reader would look for errors.
    theme = static / "scripts" / "pydata-sphinx-theme.js"
    theme.write_text(re.sub(r"console\.log\(", "void(", theme.read_text("utf-8")), "utf-8")
    for source_map in static.rglob("*.map"):
        source_map.unlink()
    mathjax = static / "mathjax"
    for path in sorted(mathjax.rglob("*"), reverse=True):  # a folder's contents come before it
        if path.is_file() and not path.relative_to(mathjax).as_posix().startswith(MATHJAX_IN_USE):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_public_address)
    app.connect("config-inited", set_templates)
    app.connect("builder-inited", add_static_files)
    app.connect("html-page-context", drop_unused, priority=900)  # after the theme has added them
    app.connect("build-finished", prune, priority=900)  # after they have been copied
    return {"parallel_read_safe": True, "parallel_write_safe": True}
