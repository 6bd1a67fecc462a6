"""Questions in the page: their form, their judgement in Python and JavaScript, the page itself."""

import html
import json
import re

import pytest
from playwright.sync_api import expect

from stn_tutorial.explorables import Question, question
from stn_tutorial.explorables.bundle import bundle
from stn_tutorial.explorables.question import _checked, questions

HALF = {"ask": "How much?", "answer": 0.5, "within": 0.01, "right": "Half.", "hint": "Less."}
WRONG = [{"answer": 2, "say": "Upside down."}, {"from": 3, "to": 9, "say": "Too much."}]
TURN = {
    "ask": "Set θ.",
    "theta": [[0, 1, 0], [-1, 0, 0]],
    "within": 0.02,
    "picture": "F",
    "right": "A quarter turn.",
    "wrong": [{"answer": [[0, -1, 0], [1, 0, 0]], "say": "The other way round."}],
    "hint": "Where do the axes go?",
}
CHOICE = {
    "ask": "Which, `a` or *b*?",
    "choices": [
        {"text": "`a`", "say": "No: <b> it is."},
        {"text": "b", "say": "Yes.", "right": True},
    ],
}


@pytest.fixture
def own(monkeypatch):
    """Questions of the tests' own beside none of the book's."""
    every = {
        "half": _checked("half", HALF | {"wrong": WRONG}),
        "turn": _checked("turn", TURN),
        "choice": _checked("choice", CHOICE),
    }
    monkeypatch.setattr(question, "questions", lambda: every)
    return every


# --- Form ---


@pytest.mark.parametrize("name", questions())
def test_every_question_judges_its_own_answers(name):
    one = Question(name)
    if one._question["kind"] == "choice":
        verdicts = [one.check(k) for k in range(len(one._question["choices"]))]
        assert sum(verdict.right for verdict in verdicts) == 1
        assert len({verdict.say for verdict in verdicts}) == len(verdicts)
        return
    assert one.check(one._question["answer"]) == (True, one._question["right"])
    for wrong in one._question["wrong"]:
        for answer in [wrong["answer"]] if "answer" in wrong else [wrong["from"], wrong["to"]]:
            assert one.check(answer) == (False, wrong["say"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ask": "?", "answer": 1, "right": "."}, "lacks .'hint'"),
        (HALF | {"units": "px"}, "has .'units'"),
        (HALF | {"wrong": [{"answer": 0.505, "say": "No."}]}, "its own answer wrong"),
        (HALF | {"wrong": [{"from": 0, "to": 1, "say": "No."}]}, "its own answer wrong"),
        (CHOICE | {"choices": [{"text": "a", "say": "No."}, {"text": "b", "say": "No."}]}, "right"),
        (CHOICE | {"hint": "?"}, "has .'hint'"),
        (TURN | {"picture": "cat"}, "one of temple"),
    ],
)
def test_a_question_of_another_form_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        _checked("one", given)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of .*, but 'nowhere' was given"):
        Question("nowhere")


def test_answers(own):
    half = Question("half")
    assert half.check(0.5) == half.check(0.51) == (True, "Half.")
    assert half.check(0.52) == half.check(float("nan")) == half.check("?") == (False, "Less.")
    assert half.check(2) == (False, "Upside down.")
    assert half.check(3) == half.check(9) == (False, "Too much.")
    assert half.check(9.1) == (False, "Less.")
    turn = Question("turn")
    assert turn.check([[0.01, 1, 0], [-1, -0.02, 0]]).right
    assert turn.check([[0, -1, 0], [1, 0, 0]]).say == "The other way round."
    choice = Question("choice")
    assert choice.check(1) == (True, "Yes.")
    with pytest.raises(ValueError, match="from 0 to 1, but 2 was given"):
        choice.check(2)


def test_where_no_script_runs_the_answer_is_folded(own):
    text = Question("choice").to_html()
    visible, folded = re.sub(r'data-stn-widget="[^"]*"', "", text).split("<details>")
    assert "Which, <code>a</code> or <em>b</em>?" in visible
    assert "Yes." not in visible
    assert "Yes." in folded
    assert "<b>" not in text  # what is said is text
    state = json.loads(html.unescape(re.search(r'data-stn-widget="([^"]*)"', text)[1]))
    assert state["kind"] == "question"
    assert repr(Question("choice")) == "Question('choice')"
    assert "θ = [0 1 0; −1 0 0]. A quarter turn." in Question("turn").to_html()


# --- JavaScript ---


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page with three questions, as the book's extension makes them."""
    folder = tmp_path_factory.mktemp("questions")
    every = {
        "half": _checked("half", HALF | {"wrong": WRONG}),
        "turn": _checked("turn", TURN),
        "choice": _checked("choice", CHOICE),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question, "questions", lambda: every)
        bodies = "".join(Question(name).to_html() for name in every)
    (folder / "module.js").write_text(bundle("question", whole=True), encoding="utf-8")
    mount = '<script type="module">import * as m from "./module.js"; window.m = m;'
    mount += 'm.mountPage("question", {});</script>'
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Questions</title>{bodies}'
    (folder / "index.html").write_text(page + mount, encoding="utf-8")
    return folder


@pytest.fixture
def page(chromium, served):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{served}/index.html")
    page.wait_for_function("document.querySelectorAll('[data-stn-ready]').length === 3")
    yield page
    page.close()


def test_numbers_as_readers_write_them(page):
    written = {
        "3": 3, "−0,5": -0.5, ".5": 0.5, "1/4": 0.25, " -2e-1 ": -0.2, "1/0": None,
        "": None, "3 px": None, "1e9999": None, "0x10": None, "1.5.2": None, "1/2/3": None,
    }  # fmt: skip
    for text, value in written.items():
        assert page.evaluate("(text) => m.readNumber(text)", text) == value, text


def test_javascript_judges_as_python_does(page, own):
    answers = {
        "half": [0.5, 0.51, 0.49, 0.5101, 2, 1.995, -0.5, 3, 9, 9.01],
        "turn": [[[0, 1, 0], [-1, 0, 0]], [[0, 1, 0.03], [-1, 0, 0]], [[0, -1, 0.02], [1, 0, 0]]],
        "choice": [0, 1],
    }
    for name, given in answers.items():
        for answer in given:
            right, say = Question(name).check(answer)
            told = page.evaluate("([q, a]) => m.judge(q, a)", [own[name], answer])
            assert told == {"right": right, "say": say}, (name, answer)


def test_a_number_is_answered_with_the_keyboard_and_remembered(page):
    half = page.locator(".stn-explorable").nth(0)
    field = half.get_by_role("textbox")
    field.focus()
    page.keyboard.type("x")
    page.keyboard.press("Enter")
    expect(half.get_by_role("status").first).to_contain_text("A number is wanted")
    field.fill("2")
    page.keyboard.press("Enter")
    expect(half.locator(".feedback")).to_have_text("✗ Not quite. Upside down.")
    field.fill("1/2")
    expect(half.locator(".feedback")).to_have_text("")
    half.get_by_role("button", name="Check").click()
    expect(half.locator(".feedback")).to_have_text("✓ Right. Half.")
    page.reload()
    expect(half.locator(".feedback")).to_have_text("✓ Right. Half.")
    half.get_by_role("button", name="Start again").click()
    page.reload()
    expect(half.get_by_role("textbox")).to_have_value("")


def test_a_choice(page):
    choice = page.locator(".stn-explorable").nth(2)
    choice.get_by_role("button", name="Check").click()
    expect(choice.locator(".feedback")).to_contain_text("Choose one")
    choice.get_by_role("radio").nth(0).check()
    choice.get_by_role("button", name="Check").click()
    expect(choice.locator(".feedback")).to_have_text("✗ Not quite. No: <b> it is.")
    choice.get_by_role("button", name="Show the answer").click()
    expect(choice.get_by_role("radio").nth(1)).to_be_checked()
    expect(choice.locator(".feedback")).to_have_text("✓ Right. Yes.")


def test_a_theta(page):
    turn = page.locator(".stn-explorable").nth(1)
    for place, value in enumerate(["0", "1", "0", "-1", "0", "0"]):
        entry = turn.get_by_role("spinbutton").nth(place)
        entry.fill(value)
    turn.get_by_role("button", name="Check").click()
    expect(turn.locator(".feedback")).to_have_text("✓ Right. A quarter turn.")
    yours, wanted = (turn.locator("canvas").nth(k) for k in (0, 1))
    same = "(canvas) => [...canvas.getContext('2d').getImageData(9, 9, 60, 60).data].join()"
    assert yours.evaluate(same) == wanted.evaluate(same)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_is_asked_of_another_host(chromium, served):
    page = chromium.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served}/index.html")
    page.wait_for_function("document.querySelectorAll('[data-stn-ready]').length === 3")
    assert all(url.startswith((served, "data:")) for url in asked)
    page.close()
