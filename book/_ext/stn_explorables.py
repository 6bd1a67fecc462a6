"""Explorables in the book's static pages: they need no kernel and nobody else's scripts.

An explorable's HTML, in a chapter's committed output or from the directive below, is an element
with `data-stn-widget` and a picture in it. Each page that has some is given one classic script for
the kinds that it has: it holds their ES module as text and imports it from a Blob, because a
browser refuses `<script type="module" src=…>` on a page opened from disk.

In a Markdown page; the options are those of the explorable's class, and all may be left out:

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
from collections.abc import Sequence
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from stn_tutorial.explorables import EXPLORABLES
from stn_tutorial.explorables.bundle import bundle

WIDGET = re.compile(r'data-stn-widget="([^"]*)"')
STILL = re.compile(
    r'(<div class="stn-explorable"[^>]*>)(<img [^>]*)src="data:image/jpeg;base64,([^"]*)"([^>]*>)'
)


def numbers(text: str) -> list[list[float]]:
    """θ's rows, or points, with a comma between them."""
    return [[float(entry) for entry in row.split()] for row in text.split(",")]


class Explorable(SphinxDirective):
    required_arguments = 1
    option_spec = {  # noqa: RUF012 (docutils reads it from the class)
        "picture": directives.unchanged_required,
        "theta": numbers,
        "corners": numbers,
        "transform": directives.unchanged_required,
        "pixel": lambda text: [int(entry) for entry in text.split()],
        "show": directives.unchanged_required,
        "point": lambda text: [float(entry) for entry in text.split()],
        "mode": directives.unchanged_required,
        "bits": directives.unchanged_required,
        "shift": int,
        "stride": int,
        "blur": int,
        "rate": float,
        "turn": directives.flag,
        "box": lambda text: [float(entry) for entry in text.split()],
        "bins": int,
        "pose": lambda text: [float(entry) for entry in text.split()],
    }

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        if kind not in EXPLORABLES:
            raise self.error(f"no explorable {kind!r}; there are {', '.join(EXPLORABLES)}")
        try:
            # A flag's value is None.
            options = {key: value is None or value for key, value in self.options.items()}
            made = EXPLORABLES[kind](**options)
        except (TypeError, ValueError, LookupError) as error:
            raise self.error(str(error)) from error
        except Exception as error:  # traitlets' own error derives from Exception alone
            raise self.error(f"{type(error).__name__}: {error}") from error
        return [nodes.raw("", made.to_html(), format="html")]


def script(kinds: Sequence[str]) -> str:
    """The classic script that brings these kinds of explorables to life wherever a page has them.

    One for all of a page's kinds: what they share travels once.
    """
    module = json.dumps(bundle(*kinds)).replace("</", "<\\/")
    mounts = ", ".join(
        f"module.mountPage({json.dumps(kind)}, {json.dumps(EXPLORABLES[kind].page_pictures())}, "
        f"{json.dumps(EXPLORABLES[kind].page_state())})"
        for kind in kinds
    )
    return (
        f'import(URL.createObjectURL(new Blob([{module}], {{ type: "text/javascript" }})))'
        f".then((module) => [{mounts}]);\n"
    )


def equip(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give a page with explorables their script, and no others."""
    body = context.get("body") or ""
    states = [json.loads(html.unescape(state)) for state in WIDGET.findall(body)]
    static = Path(app.outdir) / "_static"
    if kinds := sorted({state["kind"] for state in states}):
        name = f"stn-{'-'.join(kinds)}.js"
        static.mkdir(exist_ok=True)
        (static / name).write_text(script(kinds), encoding="utf-8")
        # Scripts run in this order: an explorable does not wait for the mathematics.
        app.add_js_file(name, priority=400, loading_method="defer")

    def own_file(match: re.Match) -> str:
        """The still picture as a file, which a browser fetches only where it is to be seen.

        It stands there until the explorable takes its place, and for good where none comes.
        """
        opening, before, encoded, after = match.groups()
        data = base64.b64decode(encoded)
        name = f"_images/stn-{hashlib.sha256(data).hexdigest()[:16]}.jpg"
        target = Path(app.outdir) / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        src = context["pathto"](name, 1)
        return f'{opening}{before}src="{src}" loading="lazy"{after}'

    if states:
        context["body"] = STILL.sub(own_file, body)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorable", Explorable)
    app.connect("html-page-context", equip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
