"""What makes pages light: nothing that no page needs, pictures when they are to be seen, few icons.

tests/test_site.py holds the site to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image
from sphinx.application import Sphinx

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

IMAGE = re.compile(r'<img (?![^>]*\bwidth=)[^>]*?src="([^"]*/)?_images/([^"]+)"[^>]*>')

# An icon's rule in the theme's style sheet: its names, and its place in the font.
ICON = re.compile(r"((?:\.fa-[\w-]+:before,?)+)\{content:\"\\([0-9a-f]+)\"\}")

FONT = re.compile(
    r'url\(([^)]*/fa-[\w-]+)\.woff2\) format\("woff2"\),url\([^)]*\.ttf\) format\("truetype"\)'
)

# Bytes from which a figure is worth another format, and beyond which, so packed, it is a photograph
# at full width.
LARGE = 10_000
PHOTOGRAPH = 150_000

WITHOUT_SCRIPT = (
    "<noscript><p><em>Without JavaScript the formulas stand here as TeX has them, between "
    "<code>\\(</code> and <code>\\)</code>.</em></p></noscript>"
)


def drop_unused(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Leave out what runs code in the page, and what folds admonitions: this book has neither.

    And MathJax, 263 kB, on a page without mathematics; one with some says what is to be seen where
    no script runs.
    """
    unused = "thebe|togglebutton"
    body = context.get("body") or ""
    if 'class="math' in body:
        context["body"] = body.replace("</h1>", f"</h1>\n{WITHOUT_SCRIPT}", 1)
    else:
        unused += "|mathjax"
    for files in ("script_files", "css_files"):
        context[files] = [
            file
            for file in context[files]
            if not re.search(unused, f"{file.filename} {file.attributes}".lower())
        ]


def prune(static: Path) -> None:
    """Remove what no page needs: most of MathJax, the theme's source maps, its second icons."""
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


def keep_icons_in_use(out: Path) -> None:
    """Leave in the theme's icon fonts what a page, a script or another rule of the theme shows."""
    static = out / "_static"
    styles = [*(static / "styles").glob("*.css"), *static.glob("*.css")]
    css = "".join(path.read_text(encoding="utf-8") for path in styles)
    shown = [*out.rglob("*.html"), *(static / "scripts").glob("*.js")]
    names = {
        name
        for path in shown
        for name in re.findall(r"\bfa-[\w-]+", path.read_text(encoding="utf-8"))
    }
    codes = {
        int(code, 16)
        for selectors, code in ICON.findall(css)
        if names & set(re.findall(r"fa-[\w-]+", selectors))
    }
    others = ICON.sub("", css)
    codes |= {ord(letter) for letter in re.findall("[\ue000-\uf8ff]", others)}
    codes |= {int(code, 16) for code in re.findall(r"\\(f[0-9a-f]{3})\b", others)}
    fonts = static / "vendor" / "fontawesome" / "webfonts"
    for path in fonts.glob("*.ttf"):
        font = TTFont(path)
        choice = subset.Subsetter(subset.Options(layout_features=[], notdef_outline=False))
        choice.populate(unicodes=codes)
        choice.subset(font)
        font.flavor = "woff"  # the smaller woff2 needs a package more, and saves 2 kB
        font.save(path.with_suffix(".woff"))
        path.unlink()
        path.with_suffix(".woff2").unlink()
    for path in styles:
        text = path.read_text(encoding="utf-8")
        path.write_text(FONT.sub(r'url(\1.woff) format("woff")', text), encoding="utf-8")


def pack(folder: Path) -> set[str]:
    """Write figures as WebP where that is smaller; return their names.

    Pixel for pixel, but for the few that are photographs at full width: those would make a page of
    more than 1.4 MB.
    """
    packed = set()
    for path in folder.glob("*.png"):
        if path.stat().st_size < LARGE:
            continue
        smaller = path.with_suffix(".webp")
        with Image.open(path) as picture:
            picture.save(smaller, lossless=True, exact=True, method=2)
            if smaller.stat().st_size > PHOTOGRAPH:
                picture.save(smaller, quality=92, method=4)
        if smaller.stat().st_size < path.stat().st_size:
            path.unlink()
            packed.add(path.name)
        else:
            smaller.unlink()
    return packed


def size_pictures(out: Path) -> None:
    """Say each picture's size, so that nothing jumps; fetch it when the reader comes near.

    The first on a page is to be seen at once.
    """
    packed = pack(out / "_images")
    for page in out.rglob("*.html"):
        pictures = 0

        def sized(match: re.Match) -> str:
            nonlocal pictures
            pictures += 1
            tag, name = match[0], match[2]
            if name in packed:
                tag = tag.replace(name, name := f"{Path(name).stem}.webp")
            with Image.open(out / "_images" / name) as picture:
                width, height = picture.size
            lazy = 'loading="lazy" ' if pictures > 1 else ""
            return tag.replace("<img ", f'<img width="{width}" height="{height}" {lazy}', 1)

        text = page.read_text(encoding="utf-8")
        page.write_text(IMAGE.sub(sized, text), encoding="utf-8")


def lighten(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    prune(out / "_static")
    keep_icons_in_use(out)
    size_pictures(out)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", drop_unused, priority=900)  # after the theme has added them
    app.connect("build-finished", lighten, priority=900)  # after files have been copied
    return {"parallel_read_safe": True, "parallel_write_safe": True}
