"""The reference of the package, made of its docstrings, and the ways there from the chapters.

A name between single backticks in a docstring becomes a link where it is a name of ours, or one of
those of Python, NumPy and PyTorch that book/_inventories holds: nothing is fetched. Any other is
code and nothing more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import signature, stringify_signature
from traitlets import HasTraits

ROOT = Path(__file__).resolve().parents[2]

EXTENSIONS = ("autodoc", "autosummary", "napoleon", "intersphinx")

SETTINGS = {
    "add_module_names": False,  # the page's title says which module it is
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "autodoc_typehints_format": "short",
    "autosummary_generate": False,
    "copybutton_prompt_is_regexp": True,
    "copybutton_prompt_text": r">>> |\.\.\. ",
    "default_role": "stn-name",
    "html_domain_indices": False,  # the reference has its own
    "intersphinx_disabled_reftypes": ["std:*"],
    "intersphinx_mapping": {
        name: (address, str(ROOT / "book" / "_inventories" / f"{name}.inv"))
        for name, address in (
            ("python", "https://docs.python.org/3/"),
            ("numpy", "https://numpy.org/doc/stable/"),
            ("torch", "https://docs.pytorch.org/docs/stable/"),
            ("matplotlib", "https://matplotlib.org/stable/"),
        )
    },
    "napoleon_numpy_docstring": False,
    "napoleon_use_rtype": False,
    "python_maximum_signature_line_length": 72,
    "toc_object_entries_show_parents": "hide",
}

NOT_LINKED = ("traitlets.TraitError",)
"""Named in docstrings, and in no inventory."""

CHAPTERS = {
    "chapters/01_the_invariance_problem": ("pooling", "data", "training"),
    "chapters/02_max_pool_and_shift": ("pooling", "training"),
    "chapters/03_affine_matrices": ("affine", "grids"),
    "chapters/04_inverse_mapping": ("grids", "sampling"),
    "chapters/05_bilinear_interpolation": ("sampling",),
    "chapters/06_gradients_of_sampling": ("sampling",),
    "chapters/07_the_spatial_transformer": ("transformer", "training"),
    "chapters/08_where_it_goes_and_how_it_fails": ("transformer",),
    "chapters/09_beyond_affine": ("transformer", "grids"),
    "chapters/10_training_on_the_gpu": ("training", "models", "data", "results"),
    "chapters/11_the_papers_table": ("experiments", "models", "results"),
    "chapters/12_several_transformers": ("transformer", "data", "experiments"),
    "chapters/13_house_numbers": ("data", "models", "experiments"),
    "chapters/14_birds": ("models", "data", "transformer"),
    "chapters/15_classic_networks": ("transformer", "attention", "models"),
    "chapters/16_regions_and_words": ("regions", "models", "data"),
    "chapters/17_without_labels": ("alignment", "transformer", "data"),
    "chapters/18_limits_and_descendants": ("transformer", "grids", "affine"),
}
"""The modules that each chapter is about: Colab and GitHub show a chapter without these links."""


def set_up_reference(app: Sphinx, config: Config) -> None:
    for name, value in SETTINGS.items():
        setattr(config, name, value)


# --- Docstrings ---


def prose(lines: list[str]) -> Iterator[tuple[int, str]]:
    """A docstring's lines with their numbers, without its formulas and examples."""
    deeper = -1
    example = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            example = False
            continue
        if deeper >= 0 and indent > deeper:
            continue
        deeper = indent if line.lstrip().startswith(".. math::") else -1
        example = example or line.lstrip().startswith(">>>")
        if deeper < 0 and not example:
            yield number, line


def find_words(name: str) -> list[str]:
    """What a constant's own module says of it: what passes it on has no docstring for it."""
    package, _, constant = name.rpartition(".")
    for module in sorted(sys.modules):
        if module == package or module.startswith(f"{package}."):
            documented = ModuleAnalyzer.for_module(module).find_attr_docs()
            if words := documented.get(("", constant)):
                return words
    return []


WORDS_OF_ATTRIBUTES: dict[str, list[str]] = {}


def keep_words(app: Sphinx, what: str, name: str, obj: object, options: dict, lines: list) -> None:
    """Keep from napoleon what an attribute's docstring says: what stands before a colon is no type.

    A constant's own module says it: what passes the constant on has no docstring for it.
    """
    if what == "data":
        lines[:] = [*find_words(name), ""]
    if what in ("attribute", "data", "property"):
        WORDS_OF_ATTRIBUTES[name] = list(lines)


def mark_up(app: Sphinx, what: str, name: str, obj: object, options: dict, lines: list) -> None:
    """Keep reStructuredText from reading into a docstring what it does not say: |det A|, H'."""
    lines[:] = WORDS_OF_ATTRIBUTES.get(name, lines)
    for number, line in prose(lines):
        pieces = re.split(r"(`+[^`]*`+)", line)  # code stands at the odd places
        for place in range(0, len(pieces), 2):
            piece = re.sub(r"(?<=\b[A-Z])'(?!\w)", "′", pieces[place])  # H' is a size, not a quote
            pieces[place] = re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", piece)
        lines[number] = "".join(pieces)


def public_bases(app: Sphinx, name: str, obj: type, options: dict, bases: list) -> None:
    """What a class is derived from, as far as it bears a public name."""
    for place, base in enumerate(bases):
        if isinstance(base, type):  # a TypedDict's is a function
            bases[place] = next(one for one in base.__mro__ if not one.__name__.startswith("_"))


def own_signature(app: Sphinx, what: str, name: str, obj: object, options: dict, sig: str, to: str):
    """How a widget is made: by its own `__init__`, and not by what all widgets share."""
    if what == "class" and issubclass(obj, HasTraits):
        own = signature(obj.__init__, bound_method=True)
        return stringify_signature(own, show_return_annotation=False), None
    return None


def leave_out(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: dict) -> bool:
    """No hooks of PyTorch's: what prints a module's settings, what sees a class defined."""
    return skip or name in ("extra_repr", "__init_subclass__")


def name_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """A name in a docstring: to be linked if it is one that the reference knows."""
    shown = nodes.literal(rawtext, text, classes=["py"])
    if not re.fullmatch(r"[A-Za-z_][\w.]*", text):
        return [shown], []
    env = inliner.document.settings.env
    link = addnodes.pending_xref(
        rawtext,
        shown,
        refdoc=env.docname,
        refdomain="py",
        reftype="obj",
        reftarget=text,
        refexplicit=False,
        refwarn=False,
    )
    link["py:module"] = env.ref_context.get("py:module")
    link["py:class"] = env.ref_context.get("py:class")
    link["stn-name"] = True
    return [link], []


def look_up(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element):
    """Find what is named less than in full: `affine.crop`, and PyTorch's classes by their files."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if found := [
        (name, place)
        for name, place in env.domains["py"].objects.items()
        if name == f"stn_tutorial.{target}"
    ]:
        ((name, place),) = found
        address = app.builder.get_relative_uri(node["refdoc"], place.docname)
        return nodes.reference("", "", shown, refuri=f"{address}#{place.node_id}", internal=True)
    # A class says in which file it stands, the manuals from where it is imported.
    if not target.startswith("stn_tutorial."):
        target = re.sub(r"^torch\.nn\.modules\.\w+\.", "torch.nn.", target)
        node["reftarget"] = re.sub(r"\._\w+", "", target)
    return None


def settle(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element):
    """Leave as code, without a warning, what is no name of the reference's."""
    ours_alone = node["reftarget"].startswith("stn_tutorial.") and "._" in node["reftarget"]
    known = node.get("stn-name") or ours_alone or node["reftarget"] in NOT_LINKED
    return shown if known else None


def mend_signatures(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """A signature's lines are no list of definitions, as Sphinx writes them: nothing is defined."""

    def as_lines(match: re.Match) -> str:
        lines = match[1].replace("<dd>", "<div>").replace("</dd>", "</div>")
        return f'<div class="stn-parameters">{lines}</div>'

    if page.startswith("book/reference/"):
        listed = r"<dl>\s*((?:<dd>(?:(?!</?d[dlt]\b).)*</dd>\s*)+)</dl>"
        context["body"] = re.sub(listed, as_lines, context["body"], flags=re.DOTALL)


# --- Ways there and back ---


def links(label: str, pages: list[tuple[str, str]]) -> nodes.container:
    """A line of links to pages: (document, its text, or nothing for its title)."""
    line = nodes.inline("", f"{label}: ")
    for number, (document, text) in enumerate(pages):
        if number:
            line += nodes.Text(" · ")
        link = addnodes.pending_xref(
            "",
            nodes.inline("", text),
            refdomain="std",
            reftype="doc",
            reftarget=f"/{document}",
            refexplicit=bool(text),
            refwarn=True,
        )
        line += link
    return nodes.container("", line, classes=["stn-ways"])


def add_ways(app: Sphinx, doctree: nodes.document) -> None:
    """Under a chapter's title its modules, and under a module's the chapters that teach it."""
    document = app.env.docname
    module = document.removeprefix("book/reference/")
    if document in CHAPTERS:
        label = "Package"
        pages = [(f"book/reference/{name}", name) for name in CHAPTERS[document]]
    elif teaching := [chapter for chapter, modules in CHAPTERS.items() if module in modules]:
        label = "In the book"
        pages = [(chapter, "") for chapter in teaching]
    else:
        return
    section = next(doctree.findall(nodes.section))
    line = links(label, pages)
    for link in line.findall(addnodes.pending_xref):
        link["refdoc"] = document
    section.insert(section.first_child_matching_class(nodes.title) + 1, line)


def add_style(app: Sphinx) -> None:
    app.add_css_file("stn-reference.css")


def setup(app: Sphinx) -> dict[str, bool]:
    for name in EXTENSIONS:
        app.setup_extension(f"sphinx.ext.{name}")
    app.add_role("stn-name", name_role)
    app.connect("builder-inited", add_style)
    app.connect("config-inited", set_up_reference)
    app.connect("autodoc-process-docstring", keep_words, priority=400)  # before napoleon, at 500
    app.connect("autodoc-process-docstring", mark_up, priority=900)  # after napoleon
    app.connect("autodoc-process-bases", public_bases)
    app.connect("autodoc-process-signature", own_signature)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("doctree-read", add_ways)
    app.connect("html-page-context", mend_signatures)
    app.connect("missing-reference", look_up, priority=400)  # before intersphinx, at 500
    app.connect("missing-reference", settle, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
