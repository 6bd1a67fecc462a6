"""Numbers in a chapter's prose: each is printed by one of its cells, set by its code, or listed.

A number that somebody typed goes stale when the figure changes; one that a cell prints is compared
on every run. What cannot be printed (a citation, a definition, a year) stands in
`typed_numbers.toml`, chapter by chapter, with the reason.
"""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
ALLOWED = tomllib.loads((ROOT / "tests" / "typed_numbers.toml").read_text(encoding="utf-8"))

NUMBER = re.compile(r"(?<![\w.])(\d{1,3}(?:[\u202f\u00a0 ]\d{3})+|\d+(?:\.\d+)?)(?![\w]|\.\d)")
# Not prose: solutions (their code is run on its own), code, addresses, formulas (which define).
NOT_PROSE = [
    re.compile(r"<details>.*?</details>", re.DOTALL),
    re.compile(r"^( *)(```|~~~).*?^\1\2", re.DOTALL | re.MULTILINE),
    re.compile(r"`[^`\n]*`"),
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"\$[^$\n]*\$"),
    re.compile(r"\]\([^)]*\)"),
    re.compile(r"https?://\S+"),
    re.compile(r"<[^>]*>"),
    # Places: chapters, equations, exercises, figures; a list's own numbers.
    re.compile(r"(?i)\b(chapters?|eq(uation|s)?\.?|exercises?|tables?|sections?|step) \d+"
               r"((,| to| and|, and) \d+)*"),
    re.compile(r"^ *\d+\. ", re.MULTILINE),
    # Citations: years, and numbers of public reports. Times that a chapter is said to take.
    re.compile(r"\b(19[5-9]\d|20[0-3]\d)\b"),
    re.compile(r"(?i)\b(issue|pull request|later work in)s? \[?\d+"),
    re.compile(r"\babout \d+ (minutes|seconds)"),
]  # fmt: skip
SMALL = 12
"""Up to here numbers are words: of two pixels, three seeds, ten classes nobody asks who counted."""


def plain(text):
    """Digits as Python prints them: no spaces or commas between thousands, a true minus sign."""
    return re.sub(r"(?<=\d)[\u202f\u00a0 ,](?=\d{3}\b)", "", text.replace("−", "-"))


def prose_numbers(notebook):
    """Every number in the Markdown's prose, with what stands around it."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        text = cell.source
        for pattern in NOT_PROSE:
            text = pattern.sub(" ", text)
        for match in NUMBER.finditer(text):
            number = plain(match[1])
            if float(number) > SMALL or "." in number:
                around = text[max(match.start() - 40, 0) : match.end() + 25]
                found.append((number, " ".join(around.split())))
    return found


def known_numbers(notebook):
    """The numbers that the code sets, and those that its outputs show."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        texts.append(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", "")]
            texts += [
                data.get("text/markdown", ""),
                re.sub(r"<[^>]*>", " ", data.get("text/html", "")),
            ]
    # How long a training took is another number on another day.
    joined = re.sub(r"\bin \d+ s\b", " ", plain("\n".join(texts)).replace("_", ""))
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", joined)}


def is_shown(number, known):
    """Whether some known number, or a hundred times it (a share in per cent), rounds to it."""
    whole, _, decimals = number.partition(".")
    # "17 000" is 16 993, rounded: of what is typed at least two digits count.
    zeros = 0 if decimals else min(len(whole) - len(whole.rstrip("0")), max(len(whole) - 2, 0))
    value = float(number)
    half = 0.5 * 10.0 ** (zeros - len(decimals)) * (1 + 1e-9)
    return any(abs(factor * one - value) <= half for one in known for factor in (1, 100))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_numbers_in_prose_are_printed(path):
    notebook = nbformat.read(path, as_version=4)
    known = known_numbers(notebook)
    listed = ALLOWED.get(path.stem, {})
    typed = {n: around for n, around in prose_numbers(notebook) if not is_shown(n, known)}
    missing = {n: around for n, around in typed.items() if n not in listed}
    assert not missing, "typed, and printed by no cell"
    # (Whether a table prints it as well may change with what is measured.)
    assert set(listed) <= {n for n, _ in prose_numbers(notebook)}, "listed, and typed no more"


def test_a_typed_number_is_noticed():
    cells = [
        nbformat.v4.new_markdown_cell("It reads 96.4 % of 10 000 digits, in chapter 14, `x[99]`."),
        nbformat.v4.new_code_cell("share = 1", outputs=[nbformat.v4.new_output(
            "stream", name="stdout", text="0.9641 of 10,000")]),
        nbformat.v4.new_markdown_cell("Without it, 71 %."),
    ]  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=cells)
    known = known_numbers(notebook)
    assert [n for n, _ in prose_numbers(notebook)] == ["96.4", "10000", "71"]
    assert [n for n, _ in prose_numbers(notebook) if not is_shown(n, known)] == ["71"]
    assert is_shown("17000", {16993.0})
    assert not is_shown("17000", {16400.0})
    assert not is_shown("16990", {16993.1 + 10})
