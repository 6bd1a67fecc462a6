"""The reference of the package: complete, its examples true, its links found, and near at hand."""

import doctest
import importlib
import inspect
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
import yaml

import stn_tutorial

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path for path in (ROOT / "book" / "reference").glob("*.md")}
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PARTS = (
    *("pooling", "affine", "grids", "sampling", "transformer"),
    *("attention", "regions", "alignment"),
)
MODULES = sorted(set(PAGES) - {"index"})
SOURCES = [module.name for module in pkgutil.walk_packages(stn_tutorial.__path__, "stn_tutorial.")]


def public(module):
    return importlib.import_module(f"stn_tutorial.{module}").__all__


def documented(module):
    page = PAGES[module].read_text(encoding="utf-8")
    return re.findall(r"^\.\. auto(?:function|class|exception|data):: (\w+)$", page, re.MULTILINE)


def test_each_module_that_the_package_names_has_its_page():
    named = set(re.findall(r"`stn_tutorial\.(\w+)`", stn_tutorial.__doc__))
    assert named - {"cli"} == set(MODULES)  # `stn-tutorial --help` is the command's reference
    (part,) = [part for part in TOC["parts"] if part["caption"] == "Reference"]
    pages = [page["file"] for page in part["chapters"]]
    assert sorted(pages) == sorted(f"book/reference/{page}" for page in PAGES)


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_stands_on_its_page_once(module):
    assert sorted(documented(module)) == sorted(public(module))


# --- Examples ---


def examples(module):
    """What a module's docstrings show, with `torch` and the public names at hand."""
    source = importlib.import_module(module)
    home = importlib.import_module(".".join(module.split(".")[:2]))
    names = {name: getattr(home, name) for name in getattr(home, "__all__", ())}
    return doctest.DocTestFinder().find(source, globs={"torch": torch, **names})


@pytest.mark.parametrize("module", SOURCES)
def test_examples_in_docstrings(module):
    runner = doctest.DocTestRunner()
    for example in examples(module):
        runner.run(example)
    assert runner.failures == 0


RESULTS = {"Factors", "Splat"}  # what functions return: their examples show it


@pytest.mark.parametrize("module", PARTS)
def test_what_a_borrower_meets_has_an_example(module):
    part = importlib.import_module(f"stn_tutorial.{module}")
    bare = [
        name
        for name in public(module)
        if inspect.isroutine(one := getattr(part, name)) or inspect.isclass(one)
        if ">>>" not in one.__doc__ and name not in RESULTS
    ]
    # A base class is shown at work by its methods.
    assert bare == (["Transform"] if module == "transformer" else [])


@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
def test_how_do_i(tmp_path, monkeypatch):
    """Every line of the page's answers is run, in their order."""
    monkeypatch.chdir(tmp_path)
    text = PAGES["index"].read_text(encoding="utf-8")
    blocks = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count(">>> ") - text.count("\n>>> ") + text.count("```pycon")
    page = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "index.md", None, 0)
    assert len(page.examples) > 20
    runner = doctest.DocTestRunner()
    runner.run(page)
    assert runner.failures == 0
    assert (tmp_path / "look.onnx").is_file()


# --- The inventories of other manuals ---


@pytest.mark.parametrize("path", sorted((ROOT / "book/_inventories").iterdir()), ids=str)
def test_inventories_hold_names_that_exist(path):
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    assert first == "# Sphinx inventory version 1"
    for line in lines[2:]:
        name, kind, place = line.split()
        assert kind in ("class", "data", "function")
        assert re.fullmatch(r"[\w./]+\.html", place)
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module or "builtins"), attribute, None)
        assert found is not None or name == "None", name


# --- The pages as they are built ---


class Page(HTMLParser):
    """The ids and the links of a page's article and sidebars."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.links = path, set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])

    def leads_to(self):
        for link in self.links:
            name, _, anchor = link.partition("#")
            if not re.match(r"[a-z]+:", name):
                path = (self.path.parent / unquote(name)).resolve() if name else self.path
                yield path, unquote(anchor)


@pytest.fixture(scope="module")
def site(book):
    return book.resolve()


def articles(path):
    return path.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_can_be_linked_to(site, module):
    ids = Page(site / f"book/reference/{module}.html").ids
    for name in public(module):
        assert f"stn_tutorial.{module}.{name}" in ids


@pytest.mark.parametrize(
    ("wanted", "anchor"),
    [
        ("book/reference/transformer.html", "stn_tutorial.transformer.SpatialTransformer"),
        ("book/reference/index.html", "warp-a-mask"),
        ("book/reference/transformer.html", "stn_tutorial.transformer.SpatialTransformer.sample"),
    ],
)
def test_three_clicks_from_the_welcome_page(site, wanted, anchor):
    """By links to the very place, so that the third click shows it and nothing is looked for."""
    reached = {(site / "book/welcome.html", "")}
    for _ in range(3):
        reached |= {to for path in {p for p, _ in reached} for to in Page(path).leads_to()}
        reached = {(path, at) for path, at in reached if path.suffix == ".html" and path.is_file()}
    assert (site / wanted, anchor) in reached
    assert anchor in Page(site / wanted).ids


def test_types_are_linked_to_the_manuals_and_to_our_own_pages(site):
    page = articles(site / "book/reference/transformer.html")
    for link in (
        "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor",
        "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module",
        "https://docs.python.org/3/library/functions.html#int",
        "#stn_tutorial.transformer.Transform",
        "grids.html#stn_tutorial.grids.projective_grid",
    ):
        assert f'href="{link}"' in page, link


@pytest.mark.parametrize("module", MODULES)
def test_nothing_of_the_machinery_is_shown(site, module):
    """No file of ours, no hook of PyTorch's, no trait's own words, no quotes for primes."""
    page = articles(site / f"book/reference/{module}.html")
    text = re.sub(r"<[^>]+>", "", page)
    assert not re.search(
        r"extra_repr|__init_subclass__|BLANKLINE|_KeepsAngles|t\.Any|[A-Z]’[,)]", text
    )
    assert "problematic" not in page


@pytest.mark.parametrize(
    "chapter", sorted(path.stem for path in (ROOT / "chapters").glob("[01]*.ipynb"))
)
def test_chapters_and_modules_lead_to_each_other(site, chapter):
    page = site / f"chapters/{chapter}.html"
    line = re.search(r'<div class="stn-ways[^>]*>(.*?)</div>', articles(page), re.DOTALL)
    links = re.findall(r'href="\.\./book/reference/(\w+)\.html"', line[1])
    assert links
    for module in links:
        back = Page(site / f"book/reference/{module}.html").leads_to()
        assert (page, "") in set(back)
