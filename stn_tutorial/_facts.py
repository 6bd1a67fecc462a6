"""How sure we are of what we build after the paper (chapters 10 and 11).

Not all of the paper's settings could be checked in print. Each that we use is a `Fact` with a mark,
so that the book can show which of them are the paper's and which are ours.
"""

from typing import NamedTuple

__all__ = ["CERTAINTY", "Fact", "assumptions"]

CERTAINTY = {
    "a": "the paper's own text, or two independent sources that agree",
    "b": "one secondary source",
    "c+": "as we understand the appendix",
    "c": "our assumption",
}
"""What each mark says."""


class Fact(NamedTuple):
    """One thing that a distortion, a model or a recipe rests on, and how sure we are of it."""

    text: str
    """What is so."""
    mark: str
    """A key of `CERTAINTY`."""

    @property
    def assumed(self) -> bool:
        """Whether it has not been seen in print: it must be called an assumption."""
        return self.mark.startswith("c")


def assumptions(facts: tuple[Fact, ...]) -> list[str]:
    """Return the facts that have not been seen in print, each with the words that say so."""
    return [f"{fact.text} ({CERTAINTY[fact.mark]})" for fact in facts if fact.assumed]
