"""Explorables in the book's static pages: they need no kernel and nobody else's scripts.

An explorable's HTML, in a chapter's committed output or from the directive below, is an element
with `data-stn-widget` and a picture in it. Each page that has one is given one classic script for
each kind: it holds the explorable's ES module as text and imports it from a Blob, because a browser
refuses `<script type="module" src=…>` on a page opened from disk.

In a Markdown page, all options may be left out:

    ```{explorable} theta
    :picture: F
    :theta: 0.5 0 0, 0 0.5 0
    :pixel: 40 64
    :show: point
    ```
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from stn_tutorial._bundle import bundle
from stn_tutorial.widgets import EXPLORABLES, embedded_pictures

WIDGET = re.compile(r'data-stn-widget="([^"]*)"')
STILL = re.compile(
    r'(<div class="stn-explorable"[^>]*>)(<img [^>]*)src="data:image/jpeg;base64,([^"]*)"([^>]*>)'
)


def numbers(text: str) -> list[list[float]]:
    """θ's two rows, with a comma between them."""
    return [[float(entry) for entry in row.split()] for row in text.split(",")]


class Explorable(SphinxDirective):
    required_arguments = 1
    option_spec = {  # noqa: RUF012 (docutils reads it from the class)
        "picture": directives.unchanged_required,
        "theta": numbers,
        "pixel": lambda text: [int(entry) for entry in text.split()],
        "show": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        if kind not in EXPLORABLES:
            raise self.error(f"no explorable {kind!r}; there are {', '.join(EXPLORABLES)}")
        try:
            made = EXPLORABLES[kind](**self.options)
        except (TypeError, ValueError, LookupError) as error:
            raise self.error(str(error)) from error
        except Exception as error:  # traitlets' own error derives from Exception alone
            raise self.error(f"{type(error).__name__}: {error}") from error
        return [nodes.raw("", made.to_html(), format="html")]


def script(kind: str) -> str:
    """The classic script that brings one kind of explorable to life wherever a page has it."""
    module = json.dumps(bundle(kind)).replace("</", "<\\/")
    pictures = json.dumps(embedded_pictures())
    return (
        f'import(URL.createObjectURL(new Blob([{module}], {{ type: "text/javascript" }})))'
        f".then((module) => module.mountPage({json.dumps(kind)}, {pictures}));\n"
    )


def equip(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give a page with explorables their scripts, and no others."""
    body = context.get("body") or ""
    states = [json.loads(html.unescape(state)) for state in WIDGET.findall(body)]
    static = Path(app.outdir) / "_static"
    for kind in sorted({state["kind"] for state in states}):
        static.mkdir(exist_ok=True)
        (static / f"stn-{kind}.js").write_text(script(kind), encoding="utf-8")
        app.add_js_file(f"stn-{kind}.js", loading_method="defer")

    def own_file(match: re.Match) -> str:
        """The still picture as a file, which a browser fetches only where it is to be seen."""
        opening, before, encoded, after = match.groups()
        data = base64.b64decode(encoded)
        name = f"_images/stn-{hashlib.sha256(data).hexdigest()[:16]}.jpg"
        target = Path(app.outdir) / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        src = context["pathto"](name, 1)
        return f'{opening}<noscript>{before}src="{src}"{after}</noscript>'

    if states:
        context["body"] = STILL.sub(own_file, body)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorable", Explorable)
    app.connect("html-page-context", equip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
