"""What the repository's files say of each other: one address, one version, one set of packages."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import stn_tutorial

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESS = PYPROJECT["project"]["urls"]["Repository"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCKED = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE)
}
DIRECT = [
    *PYPROJECT["project"]["dependencies"],
    *(r for g in PYPROJECT["dependency-groups"].values() for r in g if isinstance(r, str)),
]
PUBLIC = [
    ROOT / "README.md",
    ROOT / "CITATION.cff",
    *sorted((ROOT / "book").glob("*.md")),
    *sorted((ROOT / "chapters").glob("*.ipynb")),
]


@pytest.mark.parametrize("requirement", DIRECT)
def test_lock_satisfies_pyproject(requirement):
    wanted = Requirement(requirement)
    assert wanted.specifier.contains(LOCKED[canonicalize_name(wanted.name)])


def test_lock_has_hashes_and_no_address():
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|@ |--(extra-)?index|--find-links|^\s*#.*\s/\w", LOCK, re.MULTILINE)


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_colab_keeps_its_own(name):
    """An upper bound or a pin would make Colab replace the version that it came with."""
    for requirement in map(Requirement, PYPROJECT["project"]["dependencies"]):
        if requirement.name == name:
            assert [part.operator for part in requirement.specifier] == [">="]


def test_makefile_and_lock_name_one_uv():
    assert f"UV_VERSION := {LOCKED['uv']}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.name)
def test_one_public_address(path):
    """No page names our repository under another owner, and those that need its address have it."""
    text = path.read_text(encoding="utf-8")
    name = ADDRESS.rsplit("/", 1)[1]
    assert set(re.findall(rf"https://github\.com/[\w-]+/{name}\b", text)) <= {ADDRESS}
    if path.suffix == ".ipynb" or path.name in ("README.md", "CITATION.cff", "welcome.md"):
        assert ADDRESS in text


def test_address_is_rewritten_where_it_is_meant():
    rewrite = runpy.run_path(str(ROOT / "tools" / "set_address.py"))["rewrite"]
    before = (
        "git+https://github.com/a/b and https://github.com/a/b/issues, "
        "https://colab.research.google.com/github/a/b/blob/main/c.ipynb; not https://github.com/a/b-c"
    )
    after = (
        "git+https://github.com/me/look and https://github.com/me/look/issues, "
        "https://colab.research.google.com/github/me/look/blob/main/c.ipynb; "
        "not https://github.com/a/b-c"
    )
    assert rewrite(before, "a/b", "me/look") == after


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "https://example.org/a/b", "https://github.com/a"]
)
def test_address_must_be_a_repository_that_colab_opens(url):
    slug = runpy.run_path(str(ROOT / "tools" / "set_address.py"))["slug"]
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        slug(url)


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.name)
def test_colab_links_name_a_chapter(path):
    base = ADDRESS.replace("github.com", "colab.research.google.com/github")
    for link in re.findall(r"https://colab\.research[^\s\"')>\\]+", path.read_text("utf-8")):
        assert link.startswith(f"{base}/blob/main/")
        assert (ROOT / link.removeprefix(f"{base}/blob/main/")).is_file()


def test_one_version():
    assert stn_tutorial.__version__ == PYPROJECT["project"]["version"]


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert citation["version"] == PYPROJECT["project"]["version"]
    assert citation["repository-code"] == ADDRESS
    assert citation["title"] == config["title"]


def test_workflow_tests_each_python_that_the_package_names():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PYPROJECT["project"]["classifiers"]))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == named
