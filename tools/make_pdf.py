"""Make one PDF of the built site: `make pdf`, which builds the site first.

Chromium prints each page, as it would for a reader. The prints are bound into one document with a
title page, a table of contents, an outline and page numbers; links between the book's pages go to
their places in the document, all others where they went.
"""

from __future__ import annotations

import argparse
import html
import io
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NullObject

ROOT = Path(__file__).resolve().parents[1]
PAPER = {"format": "A4", "prefer_css_page_size": True, "print_background": True}
PATIENCE = 300_000
"""Milliseconds that one page may take."""

# What is printed about a page: its title, and its sections with their ids.
READ = """() => {
  const title = document.querySelector("article h1"), text = (one) =>
    [...one.childNodes].filter((n) => !n.classList?.contains("headerlink"))
      .map((n) => n.textContent).join("").trim();
  return {
    title: text(title),
    id: title.closest("section").id,
    sections: [...title.closest("section").querySelectorAll(":scope > section > h2")]
      .map((one) => [text(one), one.closest("section").id]),
  };
}"""

# Chromium notes the places of those ids alone to which a link on the page leads.
MARK = """(ids) => {
  for (const id of ids) {
    const link = document.createElement("a");
    link.href = "#" + encodeURIComponent(id);
    document.querySelector("article").append(link);
  }
}"""

READY = """async () => {
  window.dispatchEvent(new Event("beforeprint"));
  if (window.MathJax) await MathJax.startup.promise;
  await Promise.all([...document.images].map((one) => one.decode().catch(() => {})));
  await document.fonts.ready;
}"""


@dataclass
class Printed:
    """One page of the site, printed."""

    path: Path
    title: str
    sections: list[tuple[str, str]]
    pdf: PdfReader
    places: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By id, on which sheet of these (from 0) and how high."""
    first: int = 0
    """Its first sheet in the whole document, from 0."""


def parts(toc: Path) -> Iterator[tuple[str, list[str]]]:
    """The book's parts, each a caption and the names of its pages; the first has no caption."""
    read = yaml.safe_load(toc.read_text(encoding="utf-8"))
    yield "", [read["root"]]
    for part in read.get("parts", [{"caption": "", "chapters": read.get("chapters", [])}]):
        yield part["caption"], [page["file"] for page in part["chapters"]]


def anchors(pages: list[Path]) -> dict[Path, set[str]]:
    """Which places of each page the pages link to."""
    wanted = defaultdict(set)
    for page in pages:
        for link in re.findall(r'<a\b[^>]*?href="([^"]+)"', page.read_text(encoding="utf-8")):
            name, anchor = urldefrag(html.unescape(link))
            if anchor and not re.match(r"[a-z]+:", name):
                wanted[(page.parent / unquote(name)).resolve() if name else page].add(
                    unquote(anchor)
                )
    return wanted


def print_page(browser: Browser, path: Path, ids: set[str]) -> Printed:
    tab = browser.new_page(color_scheme="light")
    tab.set_default_timeout(PATIENCE)
    tab.goto(path.as_uri(), wait_until="load")
    read = tab.evaluate(READ)
    ids = ids | {read["id"]} | {place for _, place in read["sections"]}
    tab.evaluate(MARK, sorted(ids))
    tab.evaluate(READY)
    pdf = PdfReader(io.BytesIO(tab.pdf(**PAPER)))
    tab.close()
    printed = Printed(path, read["title"], read["sections"], pdf)
    for name, place in pdf.named_destinations.items():
        printed.places[unquote(name.lstrip("/"))] = (
            pdf.get_destination_page_number(place),
            float(place.top or 0),
        )
    return printed


def print_text(browser: Browser, text: str) -> PdfReader:
    tab = browser.new_page(color_scheme="light")
    tab.set_content(text)
    made = PdfReader(io.BytesIO(tab.pdf(**PAPER)))
    tab.close()
    return made


def contents(title: str, book: list[tuple[str, list[Printed]]], before: int) -> str:
    """The title page and the table of contents; sheets are counted from `before` on."""
    name, _, subtitle = title.partition(": ")
    rows = []
    for caption, pages in book:
        rows.append(f"<h2>{html.escape(caption)}</h2>" if caption else "")
        for page in pages:
            rows.append(
                f'<p><a href="{page.path.as_uri()}"><span>{html.escape(page.title)}</span>'
                f"<i></i><b>{before + page.first + 1}</b></a></p>"
            )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><style>
      @page {{ margin: 24mm 22mm }}
      body {{ font: 11pt/1.5 "DejaVu Sans", sans-serif; margin: 0 }}
      header {{ break-after: page; padding-top: 70mm; text-align: center }}
      header h1 {{ font-size: 34pt; font-weight: 500; margin: 0 }}
      header p {{ font-size: 14pt }}
      h2 {{ break-after: avoid; font-size: 12pt; margin: 1.2em 0 .2em }}
      p {{ margin: .1em 0 }}
      a {{ color: inherit; display: flex; text-decoration: none }}
      i {{ border-bottom: 1px dotted #999; flex: 1; margin: 0 .5em .35em }}
      b {{ font-weight: 400 }}
    </style><header><h1>{html.escape(name)}</h1><p>{html.escape(subtitle)}</p></header>
    <h1>Contents</h1>{"".join(rows)}</html>"""


def numbers(heads: list[str]) -> str:
    """A sheet for each page of the document, empty but for its foot: title and number."""
    sheets = "".join(
        f"<div><span>{html.escape(head)}</span><b>{number}</b></div>" if head else "<div></div>"
        for number, head in enumerate(heads, start=1)
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><style>
      @page {{ margin: 0 }}
      body {{ margin: 0 }}
      div {{ box-sizing: border-box; break-after: page; color: #555; display: flex;
        font: 8pt "DejaVu Sans", sans-serif; height: 296.5mm; align-items: end;
        justify-content: space-between; padding: 0 16mm 9mm }}
      div:last-child {{ break-after: auto }}
      b {{ font-weight: 400 }}
    </style>{sheets}</html>"""


def bind(title: str, front: PdfReader, book: list[tuple[str, list[Printed]]]) -> PdfWriter:
    """All prints in one document, with outline and links."""
    writer = PdfWriter()
    writer.append(front, import_outline=False)
    printed = [page for _, pages in book for page in pages]
    for page in printed:
        writer.append(page.pdf, import_outline=False)
    offset = len(front.pages)
    by_address = {page.path.as_uri(): page for page in printed}

    def place(page: Printed, anchor: str) -> ArrayObject:
        number, top = page.places.get(anchor, (0, None))
        sheet = writer.pages[offset + page.first + number].indirect_reference
        height = NullObject() if top is None else FloatObject(top)
        return ArrayObject([sheet, NameObject("/XYZ"), NullObject(), height, NullObject()])

    def relink(note: DictionaryObject, home: Printed | None) -> None:
        action = note.get("/A")
        uri = str(action.get_object().get("/URI", "")) if action is not None else ""
        name, anchor = urldefrag(uri)
        if name in by_address:
            del note["/A"]
            note[NameObject("/Dest")] = place(by_address[name], unquote(anchor))
        elif home and isinstance(note.get("/Dest"), str):
            note[NameObject("/Dest")] = place(home, unquote(note["/Dest"].lstrip("/")))

    sheets = [None] * offset + [page for page in printed for _ in page.pdf.pages]
    for sheet, home in zip(writer.pages, sheets, strict=True):
        for note in sheet.get("/Annots") or []:
            if (note := note.get_object()).get("/Subtype") == "/Link":
                relink(note, home)
    for caption, pages in book:
        part = None
        for page in pages:
            start = offset + page.first
            if caption and part is None:
                part = writer.add_outline_item(title=caption, page_number=start, bold=True)
            entry = writer.add_outline_item(title=page.title, page_number=start, parent=part)
            for text, anchor in page.sections:
                number, _ = page.places.get(anchor, (0, 0.0))
                item = writer.add_outline_item(title=text, page_number=start + number, parent=entry)
                item.get_object()[NameObject("/Dest")] = place(page, anchor)
                item.get_object().pop("/A", None)
    writer.add_metadata({"/Title": title, "/Producer": "stn-tutorial"})
    writer.page_mode = "/UseOutlines"
    return writer


def make(site: Path, toc: Path, title: str, chromium: str, target: Path) -> int:
    """Write the PDF; return how many pages it has."""
    site = site.resolve()
    names = list(parts(toc))
    paths = [site / f"{page}.html" for _, pages in names for page in pages]
    wanted = anchors(paths)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        book, count = [], 0
        for caption, pages in names:
            prints = []
            for page in pages:
                path = site / f"{page}.html"
                prints.append(print_page(browser, path, wanted[path]))
                prints[-1].first = count
                count += len(prints[-1].pdf.pages)
                print(f"{count:5} pages  {prints[-1].title}", flush=True)
            book.append((caption, prints))
        # Once to see how many sheets the front takes, and once with the right numbers.
        before = len(print_text(browser, contents(title, book, 0)).pages)
        front = print_text(browser, contents(title, book, before))
        writer = bind(title, front, book)
        heads = [""] * before
        heads += [page.title for _, prints in book for page in prints for _ in page.pdf.pages]
        feet = print_text(browser, numbers(heads))
        browser.close()
    if len(feet.pages) != len(writer.pages):
        raise RuntimeError(f"{len(feet.pages)} feet for {len(writer.pages)} pages")
    for sheet, foot in zip(writer.pages, feet.pages, strict=True):
        sheet.merge_page(foot)
        sheet.compress_content_streams()  # which merging has unpacked: four fifths of the file
    writer.compress_identical_objects()
    target.parent.mkdir(parents=True, exist_ok=True)
    writer.write(target)
    return len(writer.pages)


def offer(welcome: Path, target: Path, count: int) -> None:
    """Let the first page lead to the PDF: the page says nothing of it where none was made."""
    text = welcome.read_text(encoding="utf-8")
    words = (
        f' All of it is <a href="../{target.name}">one PDF</a>, too, of {count} pages '
        f"({target.stat().st_size / 1e6:.0f} MB)."
    )
    filled, times = re.subn(
        r'(<span id="stn-pdf">).*?(</span>)', rf"\g<1>{words}\g<2>", text, flags=re.DOTALL
    )
    if times != 1:
        raise RuntimeError(f"{welcome} has {times} places for a link to the PDF, not one")
    welcome.write_text(filled, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, nargs="?", default=ROOT / "_build" / "html")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        sys.exit(f"The PDF is printed by Chromium, and there is none of {', '.join(names)}.")
    target = options.output or options.site / "learning-to-look.pdf"
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    began = time.monotonic()
    count = make(options.site, ROOT / "_toc.yml", title, chromium, target)
    if target.parent.resolve() == options.site.resolve():
        offer(options.site / "book" / "welcome.html", target, count)
    megabytes = target.stat().st_size / 1e6
    print(f"{target}: {count} pages, {megabytes:.1f} MB, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
