"""The chapters as notebooks: how they are written, and that they and their solutions run alone.

nbval compares their outputs; that is the other half of `make test`.
"""

import copy
import re
import statistics
import textwrap
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.run_chapters import normalise

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md")), *CHAPTERS]

CODE_BLOCK = re.compile(r"^( *)(`{3,}|~{3,})(.*?)^\1\2", re.MULTILINE | re.DOTALL)
SOLUTION = re.compile(r"<details>(.*?)</details>", re.DOTALL)
PYTHON_BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(<?([^)\s>]+)|\b(?:href|src)=\"([^\"]+)")

# Run last in a chapter's kernel: which of its modules are this repository's and not the package's?
# (The editable install puts the repository on the path, which a reader's own install does not.)
STRAY_MODULES = f"""
import sys
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
allowed = ({str(ROOT / ".venv")!r}, {str(ROOT / "stn_tutorial")!r})
[file for file in files if file.startswith({str(ROOT)!r}) and not file.startswith(allowed)]
"""

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def markdown(path):
    """Return a page's Markdown: a chapter's Markdown cells, or the whole of another page."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_chapters():
    assert CHAPTERS


@each_chapter
def test_is_valid_and_holds_no_trace_of_the_machine(path):
    notebook = read(path)
    nbformat.validate(notebook)
    normalised = copy.deepcopy(notebook)
    normalise(normalised)
    assert notebook == normalised, "run `make chapters`"


@each_chapter
def test_was_run_in_order_from_a_fresh_kernel(path):
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@each_chapter
def test_first_code_cell_installs_the_package(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirement = f'"{project["name"]} @ git+{project["urls"]["Repository"]}"'
    first = code_cells(read(path))[0].source
    assert re.search(rf"pip install .*{re.escape(requirement)}", first, re.DOTALL)


@each_chapter
def test_questions_hide_their_code_on_the_site(path):
    asking = [cell for cell in code_cells(read(path)) if cell.source.startswith("Question(")]
    assert len(asking) >= 3
    assert all("remove-input" in cell.metadata.get("tags", []) for cell in asking)


@each_chapter
def test_code_cells_are_short(path):
    lengths = [sum(map(bool, cell.source.split("\n"))) for cell in code_cells(read(path))]
    assert min(lengths) > 0
    assert statistics.median(lengths) <= 6
    assert max(lengths) <= 25


def lines(path):
    """A chapter's lines of code, in its solutions too, and the lines that its cells print."""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for block in PYTHON_BLOCK.findall(cell.source):
                yield from textwrap.dedent(block).splitlines()
            continue
        yield from cell.source.splitlines()
        for output in cell.outputs:
            data = output.get("data", {})
            if not data.keys() & {"text/html", "text/markdown", "image/png"}:
                yield from output.get("text", data.get("text/plain", "")).splitlines()


@each_chapter
def test_lines_fit_the_page(path):
    """77 columns, so that nothing is cut off, in the site or on paper; an address is not broken."""
    wide = [line for line in lines(path) if len(line) > 77 and "git+https://" not in line]
    assert wide == []


@each_chapter
def test_outputs_are_clean_and_pictures_described(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.get("name") != "stderr", cell.source
            if any(kind.startswith("image/") for kind in output.get("data", {})):
                image = cell.metadata.get("mystnb", {}).get("image", {})
                assert len(image.get("alt", "")) >= 15, cell.source
                assert "dark-light" in image.get("classes", ""), cell.source


@each_chapter
def test_markdown_is_what_colab_and_github_render_too(path):
    text = markdown(path)
    assert not re.search(r"^ *(`{3,}|:{3,}|~{3,})\{", text, re.MULTILINE), "a MyST directive"
    assert not re.search(r"\{[\w:-]+\}`", text), "a MyST role"
    assert not re.search(r"^\([\w-]+\)=$", text, re.MULTILINE), "a MyST target"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_resolve(path):
    for match in LINK.finditer(CODE_BLOCK.sub("", markdown(path))):
        link = (match[1] or match[2]).partition("#")[0]
        if link and not re.match(r"[a-z]+:", link):
            assert (path.parent / link).exists(), link


@each_chapter
def test_runs_alone_and_its_solutions_too(path, tmp_path):
    """Run all cells, then each solution with the chapter's names, from an empty folder."""
    cells = code_cells(read(path))
    solutions = [
        textwrap.dedent(block)
        for details in SOLUTION.findall(markdown(path))
        for block in PYTHON_BLOCK.findall(details)
    ]
    assert len(solutions) >= 3
    for solution in solutions:
        assert "assert " in solution, solution
        # In a copy of the names, so that no solution stands on another.
        source = f"exec(compile({solution!r}, 'a solution', 'exec'), dict(globals()))"
        cells.append(nbformat.v4.new_code_cell(source))
    cells.append(nbformat.v4.new_code_cell(STRAY_MODULES))
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=1200, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert cells[-1].outputs[0].data["text/plain"] == "[]"
