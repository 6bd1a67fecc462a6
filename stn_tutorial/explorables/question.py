"""Questions in the page: answered before the text goes on (every chapter).

The questions stand in `questions/`, one TOML file a chapter, and not in the notebooks: a cell
would show the answer beside the question. A table there is one question, of one of three kinds::

    [half-the-size]                    # its name, which no other chapter uses
    ask = "By how much does `scaling(0.5)` multiply the picture's area?"
    answer = 0.25                      # a number,
    within = 0.005                     # how far off a right answer may be; not at all when left out
    unit = "times"                     # written behind the field; may be left out
    right = "Both sides are halved, so the area is a quarter."
    wrong = [{ answer = 0.5, say = "That is the side." }, { from = 1, to = 9, say = "It shrinks." }]
    hint = "Think of both sides."      # what every other wrong answer is told

    choices = [{ text = "…", say = "…" }, { text = "…", say = "…", right = true }]  # or a choice,

    theta = [[0.5, 0, 0], [0, 0.5, 0]]       # or a θ to set, on an embedded picture:
    picture = "F"
    wrong = [{ answer = [[2, 0, 0], [0, 2, 0]], say = "That is the inverse." }]

In `ask` and in what is said, `…` is code and *…* is emphasis.
"""

import html
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import traitlets
from PIL import Image

from stn_tutorial.explorables.base import Explorable, as_array, theta_rows
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.pictures import EMBEDDED, embedded_image, embedded_pictures

FOLDER = Path(__file__).with_name("questions")

SIDE = 64
"""Side of a picture that a θ is set on: small, since a page may hold several questions."""

ALLOWED = {
    "number": {"ask", "answer", "within", "unit", "right", "wrong", "hint"},
    "choice": {"ask", "choices"},
    "theta": {"ask", "theta", "within", "picture", "right", "wrong", "hint"},
}
NEEDED = {
    "number": {"ask", "answer", "right", "hint"},
    "choice": {"ask", "choices"},
    "theta": {"ask", "theta", "picture", "right", "hint"},
}


class Verdict(NamedTuple):
    """What an answer is told."""

    right: bool
    """Whether it is right."""
    say: str
    """Why it is, or why not."""


def _checked(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return a question with its kind; raise `ValueError` unless it keeps to the form."""
    kind = "choice" if "choices" in given else "theta" if "theta" in given else "number"
    odd, missing = set(given) - ALLOWED[kind], NEEDED[kind] - set(given)
    if odd or missing:
        raise ValueError(
            f"the question {name!r}, a {kind}, must have {', '.join(sorted(NEEDED[kind]))} and may "
            f"have {', '.join(sorted(ALLOWED[kind] - NEEDED[kind])) or 'nothing else'}, "
            f"but it lacks {sorted(missing)} and has {sorted(odd)}"
        )
    question = {"kind": kind, "name": name, **given}
    if kind == "choice":
        right = [choice for choice in given["choices"] if choice.get("right")]
        if len(right) != 1 or len(given["choices"]) < 2:
            raise ValueError(
                f"the question {name!r} must have 2 choices or more, one of them right"
            )
        return question
    question.setdefault("within", 0.0)
    question.setdefault("wrong", [])
    if kind == "theta":
        question["answer"] = theta_rows(question.pop("theta"))
        if question["picture"] not in EMBEDDED:
            raise ValueError(
                f"the question {name!r} must be on one of {', '.join(EMBEDDED)}, "
                f"but {question['picture']!r} was given"
            )
    for one in question["wrong"]:
        if _meets(one, question["answer"], question["within"]):
            raise ValueError(f"the question {name!r} calls its own answer wrong")
    return question


@cache
def questions() -> dict[str, dict[str, Any]]:
    """Return every question of the book by its name, in the chapters' order."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for name, given in tomllib.loads(path.read_text(encoding="utf-8")).items():
            if name in found:
                raise ValueError(f"{path.name} has a second question {name!r}")
            found[name] = _checked(name, given)
    return found


def _same(answer: Any, expected: Any, within: float) -> bool:
    """Whether all numbers of an answer are that near to the expected ones."""
    given, wanted = as_array(answer), as_array(expected)
    assert wanted is not None
    if given is None or given.shape != wanted.shape:
        return False
    # 1e-9: what a reader writes in decimals is not exact in binary. NaN is near to nothing.
    return bool((abs(given - wanted) <= within + 1e-9).all())


def _meets(wrong: dict[str, Any], answer: Any, within: float) -> bool:
    """Whether a typical wrong answer, one value or all from one to another, is what was given."""
    if "from" not in wrong:
        return _same(answer, wrong["answer"], within)
    given = as_array(answer)
    return given is not None and given.ndim == 0 and wrong["from"] <= float(given) <= wrong["to"]


def _marked_up(text: str) -> str:
    """Return text as HTML, its `code` and its *emphasis* as such. `question.js` does the same."""
    escaped = html.escape(text, quote=False)
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", coded)


class Question(Explorable):
    """A question that is answered in the page: a number, a choice, or a θ to set.

    Feedback says why an answer is right or wrong; typical wrong answers have a line of their own.
    The page keeps a right answer in the reader's own browser and nowhere else. Where no script runs
    the question stands there with its answer folded.

    Show it by ending a cell with it; `answer` follows the reader, and `check` judges any answer.

    Args:
        name: of the question; see `questions` for all of them.

    Raises:
        ValueError: there is no such question.
    """

    kind = "question"
    _esm = bundle("question")

    _question = traitlets.Dict().tag(sync=True)
    _pictures = traitlets.Dict().tag(sync=True)
    answer = traitlets.Any(None, allow_none=True).tag(sync=True)
    """What the reader answered last: a number, a choice's place from 0, or θ; None before."""

    def __init__(self, name: str) -> None:
        if name not in questions():
            raise ValueError(
                f"name must be one of {', '.join(questions())}, but {name!r} was given"
            )
        question = questions()[name]
        pictures = {}
        if question["kind"] == "theta":
            pictures = {question["picture"]: embedded_pictures(SIDE)[question["picture"]]}
        super().__init__(_question=question, _pictures=pictures)

    def check(self, answer: Any) -> Verdict:
        """Judge an answer as the page does.

        Args:
            answer: a number, the place of a choice from 0, or 2×3 numbers or a tensor for θ.

        Raises:
            ValueError: there is no such choice.
        """
        one = self._question
        if one["kind"] == "choice":
            choices = one["choices"]
            if answer not in range(len(choices)):
                raise ValueError(
                    f"answer must be a choice from 0 to {len(choices) - 1}, "
                    f"but {answer!r} was given"
                )
            return Verdict(bool(choices[answer].get("right")), choices[answer]["say"])
        if one["kind"] == "theta":
            answer = theta_rows(answer)
        if _same(answer, one["answer"], one["within"]):
            return Verdict(True, one["right"])
        for wrong in one["wrong"]:
            if _meets(wrong, answer, one["within"]):
                return Verdict(False, wrong["say"])
        return Verdict(False, one["hint"])

    def __repr__(self) -> str:
        """Show which question it is."""
        return f"Question({self._question['name']!r})"

    def _state(self) -> dict[str, Any]:
        return {"_question": self._question, "_pictures": self._pictures, "answer": None}

    def _solution(self) -> str:
        """The right answer and why, as HTML."""
        one = self._question
        if one["kind"] == "choice":
            right = next(choice for choice in one["choices"] if choice.get("right"))
            stop = "" if right["text"].endswith((".", "!", "?")) else "."
            return f"{_marked_up(right['text'])}{stop} {_marked_up(right['say'])}"
        if one["kind"] == "theta":
            rows = "; ".join(" ".join(f"{v:g}" for v in row) for row in one["answer"])
            return f"θ = [{rows}]. {_marked_up(one['right'])}".replace("-", "−")
        unit = f" {one['unit']}" if one.get("unit") else ""
        return f"{one['answer']:g}{unit}. ".replace("-", "−") + _marked_up(one["right"])

    def to_html(self) -> str:
        """Return HTML that a static page brings to life; elsewhere, a question and its answer."""
        one = self._question
        state = json.dumps({"kind": self.kind, **self._state()}, ensure_ascii=False)
        choices = "".join(f"<li>{_marked_up(c['text'])}</li>" for c in one.get("choices", ()))
        return (
            f'<div class="stn-explorable stn-question" data-stn-widget="{html.escape(state)}">'
            f"<p><strong>Question.</strong> {_marked_up(one['ask'])}</p>"
            + (f"<ul>{choices}</ul>" if choices else "")
            + f"<details><summary>Answer</summary><p>{self._solution()}</p></details></div>"
        )

    def _fallback(self) -> tuple[Image.Image, str]:  # pragma: no cover
        # A question's own HTML is text.
        return embedded_image("F", SIDE), self._question["ask"]
