"""The three houses: the parts, the experiments, the book's own. Nothing imports upwards."""

import ast
from pathlib import Path

import pytest

import stn_tutorial

FOLDER = Path(stn_tutorial.__file__).parent

# From the bottom up; a folder is one floor, ordered below. A module imports from those before it.
FLOORS = [
    *("_checks", "_facts", "_splines", "pooling", "affine", "grids", "sampling", "transformer"),
    *("attention", "regions", "alignment"),
    *("models", "data", "training", "experiments", "cli"),
    *("results", "viz", "explorables"),
]
# What a borrower imports rests on nothing of the two houses above it.
PARTS = FLOORS[: FLOORS.index("models")]
LONGEST = 600


def modules():
    """Every module of the package by its dotted name, without the package's own."""
    for path in sorted(FOLDER.rglob("*.py")):
        name = ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, path


MODULES = dict(modules())


def imported(path):
    """The package's modules that a file imports, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import, which this test does not follow"
            for alias in node.names:  # a module of a folder, or what a module holds
                one = f"{node.module}.{alias.name}"
                found.add(one if one.removeprefix("stn_tutorial.") in MODULES else node.module)
    return {name.removeprefix("stn_tutorial.") for name in found} & set(MODULES)


def test_every_module_has_its_floor():
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_from_below(name):
    floor = name.split(".")[0]
    below = FLOORS[: FLOORS.index(floor)]
    others = {other.split(".")[0] for other in imported(MODULES[name])} - {floor}
    assert others <= set(below)
    if floor in PARTS:
        assert others <= set(PARTS)


@pytest.mark.parametrize("folder", sorted({n.split(".")[0] for n in MODULES if "." in n}))
def test_no_circle_within_a_folder(folder):
    inside = {n: imported(p) for n, p in MODULES.items() if n.startswith(f"{folder}.")}
    # A module imports its neighbours from where they stand, not from the folder that re-exports.
    assert not [name for name, needs in inside.items() if folder in needs]
    done = set()
    while free := {n for n, needs in inside.items() if not (needs & set(inside)) - done} - done:
        done |= free
    assert done == set(inside)


@pytest.mark.parametrize("name", [n for n in MODULES if MODULES[n].name == "__init__.py"])
def test_a_folders_front_holds_only_what_it_shows(name):
    """Imports, `__all__`, and at most a table of what is re-exported."""
    body = ast.parse(MODULES[name].read_text(encoding="utf-8")).body
    assert not [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]


@pytest.mark.parametrize("path", [p for p in FOLDER.rglob("*.*") if p.suffix in (".py", ".js")])
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST
