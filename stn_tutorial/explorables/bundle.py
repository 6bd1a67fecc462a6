"""Join the explorables' source files into one ES module, without Node.

anywidget takes a widget's front end as *one* module, and a page opened from disk may not import
another file at all. The files in this folder therefore keep to a convention that makes joining
them a matter of lines:

- an import is one line, `import { a, b } from "./other.js";`, without renaming;
- an export is the word `export` at the start of a declaration's line;
- no two files declare the same name at top level;
- a comment stands on lines of its own, each starting with `//`.

Whatever does not keep to it raises `ValueError`. What the files declare and nobody uses is left
out: a page carries only what its explorables need.
"""

import json
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent

_IMPORT = re.compile(r'import \{ [\w$]+(?:, [\w$]+)* \} from "\./(\w+)\.js";')
_EXPORT = re.compile(r"export (?=(?:async )?(?:function|class|const|let) )")
# Commas between selectors, and not those within `:is(…)`.
_COMMA = re.compile(r",(?![^(]*\))")
_CLASS = re.compile(r"\.([a-z][\w-]*)")
_DECLARATION = re.compile(r"(?:export )?(?:async )?(?:function\*?|class|const|let|var) ([\w$]+)")


def join(sources: dict[str, str], *entries: str) -> tuple[str, list[str]]:
    """Join modules in the order in which they import each other.

    Args:
        sources: each file's text by its name without `.js`.
        *entries: the files that import, directly or not, all that they need.

    Returns:
        The joined text without imports, comments and the word `export`, and the names that were
        exported.
    """
    done: list[str] = []
    lines: list[str] = []
    exports: list[str] = []
    owners: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"{' → '.join((*path, name))}: modules import each other in a circle")
        if name in done:
            return
        if name not in sources:
            raise ValueError(f"{path[-1]}.js imports {name}.js, which is not there")
        own = []
        for number, line in enumerate(sources[name].splitlines(), start=1):
            if match := _IMPORT.fullmatch(line):
                visit(match[1], (*path, name))
                continue
            declared = _DECLARATION.match(line)
            if line.startswith("import ") or (
                line.startswith("export") and not _EXPORT.match(line)
            ):
                raise ValueError(f"{name}.js, line {number}, does not keep to the form: {line!r}")
            if declared:
                other = owners.setdefault(declared[1], name)
                if other != name:
                    raise ValueError(f"{name}.js and {other}.js both declare {declared[1]}")
                if line.startswith("export"):
                    exports.append(declared[1])
            stripped = _EXPORT.sub("", line, count=1).rstrip()
            if stripped and not stripped.lstrip().startswith("//"):
                own.append(stripped)
        done.append(name)
        lines.extend(own)

    for entry in entries:
        visit(entry, ())
    return "\n".join(lines), exports


def squeeze_css(text: str) -> str:
    """Take the comments, and the blanks that mean nothing, out of a style sheet."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = " ".join(text.split())
    # No blank means anything beside these; before a colon it does, in a selector, and in quotes.
    return re.sub(r'("[^"]*")| ?([{};,]) ?|(?<=:) ', r"\1\2", text)


def shake_css(css: str, code: str) -> str:
    """Leave out the rules for classes that the code never names, and `@media` that hold only such.

    Args:
        css: a squeezed style sheet.
        code: the joined modules that build what it is for.
    """
    # A class is named in a string, or in a template, which may hold strings and templates itself.
    strings = re.findall(r'"[^"\n]*"|^.*`.*$', code, flags=re.MULTILINE)
    names = {name for string in strings for name in re.findall(r"[\w-]+", string)}

    def may_match(selector: str) -> bool:
        # Of several within parentheses one will do.
        for group in re.findall(r"\(([^()]*,[^()]*)\)", selector):
            if not any(may_match(one) for one in group.split(",")):
                return False
            selector = selector.replace(group, "")
        return set(_CLASS.findall(selector)) <= names

    def shaken(css: str) -> str:
        kept, depth, start = [], 0, 0
        for match in re.finditer(r"[{}]", css):
            depth += 1 if match[0] == "{" else -1
            if depth:
                continue
            head, _, body = css[start : match.end() - 1].partition("{")
            start = match.end()
            if head.startswith("@"):
                body = shaken(body)
            else:
                head = ",".join(one for one in _COMMA.split(head) if may_match(one))
            if head and body:
                kept.append(f"{head}{{{body}}}")
        return "".join(kept)

    return shaken(css)


def shake(code: str, exports: list[str], roots: tuple[str, ...]) -> tuple[str, list[str]]:
    """Leave out the declarations that nothing refers to.

    Args:
        code: joined modules.
        exports: the names that they export.
        roots: names that are wanted whether or not the code itself refers to them.

    Returns:
        The code that is left, and the exports among it.
    """
    # A piece begins with each declaration or statement at top level; what closes one belongs to it.
    pieces = [piece for piece in re.split(r"^(?=[\w$])", code, flags=re.MULTILINE) if piece]
    names = [match[1] if (match := _DECLARATION.match(piece)) else None for piece in pieces]
    # Neither what stands in a string refers to them, nor a property; what is spread out does.
    words = [
        set(re.findall(r"(?:(?<=\.\.\.)|(?<![.\w$]))[\w$]+", re.sub(r'"[^"\n]*"', "", piece)))
        for piece in pieces
    ]
    wanted = {index for index, name in enumerate(names) if name is None or name in roots}
    waiting = list(wanted)
    while waiting:
        used = words[waiting.pop()]
        more = {index for index, name in enumerate(names) if name in used} - wanted
        wanted |= more
        waiting += more
    kept = {names[index] for index in wanted}
    left = "".join(piece for index, piece in enumerate(pieces) if index in wanted)
    return left, [name for name in exports if name in kept]


def styles() -> str:
    """Return the style sheets of all explorables as one: what one may drag, then all the rest."""
    return "\n".join(
        (FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in ("handles", "explorable")
    )


@cache
def bundle(*kinds: str, whole: bool = False) -> str:
    """Return one explorable, or several that share a page, as an ES module.

    Its default export is what anywidget calls, and shows the first of them; `mountPage(kind,
    pictures)` is what a static page calls.

    Args:
        *kinds: the names of their files in this folder, without `.js`.
        whole: leave in, and export, what these explorables do not use.
    """
    sources = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js")}
    code, exports = join(sources, *kinds)
    if not whole:
        code, exports = shake(code, exports, ("mount", "mountPage"))
    # A page carries this text: without indentation it is a good deal lighter.
    code = "\n".join(line.strip() for line in code.splitlines())
    css = squeeze_css(styles())
    if not whole:
        css = shake_css(css, code)
    return "\n".join(
        [
            f"const CSS = {json.dumps(css)};",
            code,
            f"export {{ {', '.join(exports)} }};",
            # In a kernel the element given is used again when a cell is: a fresh one for each view.
            "export default { render({ model, el }) {",
            'const host = el.appendChild(document.createElement("div"));',
            f"const mounted = mount({json.dumps(kinds[0])}, model, host);",
            "return () => mounted.then((clean) => clean());",
            "} };",
            "",
        ]
    )
