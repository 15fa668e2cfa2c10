"""Pieces of Markdown that several parts of a card share."""

from __future__ import annotations

from collections.abc import Iterable

from t4sa_data.catalog import PAGE, PAPER, Fact

NONE = "-"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; what its cells hold cannot end a cell or open a tag."""
    names = list(header)
    lines = [names, ["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("<", "\\<")


def number(value: int | None) -> str:
    """With thousands apart; None is a dash."""
    return NONE if value is None else f"{value:,}"


def statement(words: str, fact: Fact) -> str:
    """A line of a list: what is said, how sure it is, where it stands, what to know before using it."""
    note = f" {fact.note}" if fact.note else ""
    return f"- {words} ({fact.certainty}; {source(fact.source)}).{note}"


def source(words: str) -> str:
    """A source with the two most frequent ones made short; `LEGEND` says what they are.

    >>> source(PAPER + ", quoted second-hand")
    'paper, quoted second-hand'
    """
    return words.replace(PAPER, "paper").replace(PAGE, "page")


LEGEND = (
    "Words in brackets say how sure a statement is (published, computed, inferred, recalled, unknown) and where it "
    f"comes from: *paper* is {PAPER}, *page* is the {PAGE}; names in capitals are those of `t4sa_data.catalog`."
)


def code(language: str, *lines: str) -> str:
    """A block of code."""
    return f"```{language}\n" + "\n".join(lines) + "\n```"
