"""The book as one PDF, read back: its sheets, its outline, and links that land where they should.

Three pages of the book stand for all. Without a Chromium these tests are skipped, and say so.
"""

import runpy
import shutil
from pathlib import Path

import pytest
import yaml
from pypdf import PdfReader

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "tools" / "make_pdf.py"))
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FEW = {
    "format": "jb-book",
    "root": "book/welcome",
    "parts": [
        {"caption": "Part one", "chapters": [{"file": "chapters/04_inverse_mapping"}]},
        {"caption": "Reference", "chapters": [{"file": "book/reference/grids"}]},
    ],
}


@pytest.fixture(scope="module")
def pdf(book, tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    folder = tmp_path_factory.mktemp("pdf")
    (folder / "_toc.yml").write_text(yaml.safe_dump(FEW), encoding="utf-8")
    target = folder / "few.pdf"
    title = "Learning to Look: a few pages"
    count = TOOL["make"](book, folder / "_toc.yml", title, CHROMIUM, target)
    reader = PdfReader(target)
    assert count == len(reader.pages) > 20
    assert reader.metadata.title == title
    return reader


@pytest.fixture(scope="module")
def texts(pdf):
    return [" ".join(sheet.extract_text().split()) for sheet in pdf.pages]


def links(pdf):
    """Each link: from which sheet, and to which sheet and height, or to which address."""
    for number, sheet in enumerate(pdf.pages):
        for note in sheet.get("/Annots") or []:
            note = note.get_object()
            if "/Dest" in note:
                target, _, _, height, _ = note["/Dest"]
                yield number, pdf.get_page_number(target.get_object()), height
            elif "/A" in note:
                yield number, str(note["/A"].get_object()["/URI"]), None


def entries(pdf, outline=None, depth=0):
    for one in pdf.outline if outline is None else outline:
        if isinstance(one, list):
            yield from entries(pdf, one, depth + 1)
        else:
            yield depth, one.title, pdf.get_destination_page_number(one)


def test_title_contents_and_numbers(pdf, texts):
    assert texts[0].startswith("Learning to Look a few pages")
    assert texts[1].startswith("Contents Learning to Look")
    (first,) = [n for _, title, n in entries(pdf) if title == "Chapter 4. Inverse mapping"]
    assert f"Chapter 4. Inverse mapping {first + 1}" in texts[1]
    assert texts[first].endswith(f"Chapter 4. Inverse mapping {first + 1}")
    # The contents' own line leads there.
    assert first in {to for at, to, _ in links(pdf) if at == 1}


def test_outline_leads_to_the_headings(pdf, texts):
    outline = list(entries(pdf))
    depths = {title: depth for depth, title, _ in outline}
    assert depths["Part one"] == 0
    assert depths["Chapter 4. Inverse mapping"] == 1
    sections = [(title, number) for depth, title, number in outline if depth == 2]
    assert len(sections) > 10
    for title, number in sections:
        assert title.replace("’", "'") in texts[number].replace("’", "'"), title


def test_links_stay_in_the_document(pdf, texts):
    """From a chapter to its module, and from a name to the place where it is described."""
    outline = {title: number for _, title, number in entries(pdf)}
    chapter, grids = (
        outline["Chapter 4. Inverse mapping"],
        outline["grids: where each output pixel reads"],
    )
    assert (chapter, grids) in {(at, to) for at, to, _ in links(pdf)}
    (place,) = [n for n, text in enumerate(texts) if "normalised_to_pixel( points:" in text]
    assert place > grids
    inside = [(at, to, height) for at, to, height in links(pdf) if to == place]
    assert any(at < place and float(height) > 0 for at, to, height in inside)


def test_no_link_leads_to_a_file_that_the_reader_lacks(pdf):
    """Those to pages that are left out here keep their address; the whole book has none such."""
    kept = {to.partition("#")[0] for _, to, _ in links(pdf) if isinstance(to, str)}
    files = {address for address in kept if address.startswith("file:")}
    few = {FEW["root"], *(part["chapters"][0]["file"] for part in FEW["parts"])}
    assert not any(address.endswith(f"/{page}.html") for address in files for page in few)
    assert any(address.startswith("https://arxiv.org/") for address in kept)


def test_no_page_lies_there_unpacked(pdf):
    """What draws it packs well, and the book has 700 pages."""
    assert all("/Filter" in sheet["/Contents"].get_object() for sheet in pdf.pages)


def test_solutions_are_open_and_explorables_shown(pdf, texts):
    outline = {title: number for _, title, number in entries(pdf)}
    start = outline["Chapter 4. Inverse mapping"]
    assert any("Solution" in text for text in texts[start:])
    # The welcome page's explorable by its picture, whose size the site says.
    assert [image.image.size for image in pdf.pages[2].images]


def test_first_page_offers_the_pdf_once_it_is_made(book, tmp_path):
    welcome = tmp_path / "welcome.html"
    built = (book / "book" / "welcome.html").read_text(encoding="utf-8")
    assert "learning-to-look.pdf" not in built
    welcome.write_text(built, encoding="utf-8")
    target = tmp_path / "learning-to-look.pdf"
    target.write_bytes(b"%PDF" * 250_000)
    for count in (300, 391):  # made again, it is offered once
        TOOL["offer"](welcome, target, count)
    text = welcome.read_text(encoding="utf-8")
    assert text.count('href="../learning-to-look.pdf"') == 1
    assert "of 391 pages (1 MB)" in text
