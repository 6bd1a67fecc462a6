"""What search engines and those to whom a page is sent are told of it; the way in; a lost way.

Each page says what it is about, where it is at home, and with which picture it wants to be shown.
All addresses follow from the repository's, which pyproject.toml states: GitHub serves the pages of
`github.com/OWNER/NAME` at `OWNER.github.io/NAME/`.
"""

from __future__ import annotations

import textwrap
import tomllib
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "book" / "_static" / "share.png"
PICTURE_ALT = "A photograph with a turned sampling grid on it, and beside it what the grid reads."

# Served wherever no page is, at any depth: it leans on no file beside it.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
{head}
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 1.1rem/1.5 system-ui, sans-serif; margin: 12vh auto; max-width: 34rem;
    padding: 0 1rem; }}
</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{body}
</main>
</body>
</html>
"""


def home() -> str:
    """The address at which the book is read."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    owner, name = urlsplit(project["urls"]["Repository"]).path.strip("/").split("/")
    return f"https://{owner}.github.io/{name}/"


def set_home(app: Sphinx, config: Config) -> None:
    config.html_baseurl = home()  # from which each page's canonical address comes


def description(doctree: nodes.document, title: str) -> str:
    """What a page says of itself first, without headings and formulas, up to 200 characters."""
    said = ""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        cells = isinstance(paragraph.parent, nodes.entry)
        if cells or text in title or list(paragraph.findall(nodes.math)):
            continue
        said += f" {text}"
        if len(said) > 110:
            break
    return textwrap.shorten(said, 200, placeholder=" …")


def tell(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give a page its title, its description, and what makes a card of its address."""
    book = app.config.html_theme_options["logo"]["text"]
    context["docstitle"] = book  # after each page's own title
    if doctree is None:
        return
    if pagename == app.config.root_doc:
        context["title"], context["docstitle"] = app.config.html_title, ""
    about = description(doctree, app.config.html_title) or app.config.html_title
    with Image.open(PICTURE) as picture:
        width, height = picture.size
    properties = {
        "og:type": "article",
        "og:site_name": book,
        "og:title": context["title"],
        "og:description": about,
        "og:url": context["pageurl"],
        "og:image": f"{home()}_static/{PICTURE.name}",
        "og:image:width": width,
        "og:image:height": height,
        "og:image:alt": PICTURE_ALT,
    }
    lines = [f'<meta name="description" content="{escape(about)}">']
    lines += [
        f'<meta property="{name}" content="{escape(nodes.unescape(str(value)))}">'
        for name, value in properties.items()
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def write_ways_in(app: Sphinx, exception: Exception | None) -> None:
    """Write index.html, which leads to the first page, 404.html, robots.txt and sitemap.xml."""
    if exception:
        return
    out = Path(app.outdir)
    first = f"{app.config.root_doc}.html"
    book = app.config.html_theme_options["logo"]["text"]
    (out / "index.html").write_text(
        PAGE.format(
            title=escape(app.config.html_title),
            heading=escape(book),
            head=f'<link rel="canonical" href="{home()}{first}">\n'
            f'<meta http-equiv="refresh" content="0; url={first}">',
            body=f'<p>The book begins on its <a href="{first}">first page</a>.</p>',
        ),
        encoding="utf-8",
    )
    (out / "404.html").write_text(
        PAGE.format(
            title=escape(f"No such page — {book}"),
            heading="There is no such page",
            head='<meta name="robots" content="noindex">',
            body="<p>Nothing in this book has this address. Perhaps a chapter has moved: all "
            f'of them are listed on the <a href="{home()}{first}">first page</a>, and the '
            f'<a href="{home()}search.html">search</a> looks through them.</p>',
        ),
        encoding="utf-8",
    )
    (out / "robots.txt").write_text(
        f"User-agent: *\nDisallow:\n\nSitemap: {home()}sitemap.xml\n", encoding="utf-8"
    )
    places = "\n".join(
        f"<url><loc>{escape(home() + app.builder.get_target_uri(name))}</loc></url>"
        for name in sorted(app.env.found_docs)
    )
    (out / "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{places}\n</urlset>\n',
        encoding="utf-8",
    )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_home)
    app.connect("html-page-context", tell)
    app.connect("build-finished", write_ways_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
