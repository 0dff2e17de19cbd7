"""What a row says of what: two rows that say different things of the same contradict each other."""

from collections.abc import Hashable
from functools import singledispatch
from typing import NamedTuple

from tunesmith.core.rows import (
    Chat,
    Judged,
    Labelled,
    Pair,
    Row,
    Turns,
    canonical,
    cleaned,
    written,
)
from tunesmith.data.prompts import asked, normalised


class Claim(NamedTuple):
    """Something, and what is said of it. Texts count without case and spaces."""

    about: Hashable
    says: str


@singledispatch
def claim_of(row: Row) -> Claim | None:
    """What a row says that another could contradict. A document says nothing of the kind."""
    return None


@claim_of.register
def _(row: Chat) -> Claim:
    """The last answer, with its calls, to what is asked."""
    last = row.messages[-1]
    calls = str(last.extra.get("tool_calls", ""))
    return Claim(asked(row).prompt, normalised(last.content or "") + calls)


@claim_of.register
def _(row: Labelled) -> Claim:
    """The label of the texts."""
    return Claim(asked(row).prompt, row.answer())


@claim_of.register
def _(row: Judged) -> Claim:
    """The verdict on an answer."""
    return Claim((loose(row.asked), loose(row.answered)), str(row.liked))


@claim_of.register
def _(row: Pair) -> Claim:
    """Which of two answers is preferred."""
    sides = loose(row.chosen), loose(row.rejected)
    return Claim((loose(row.asked), *sorted(sides)), sides[0])


def loose(turns: Turns) -> str:
    """Turns without case and spaces."""
    return canonical(written(cleaned(turns, normalised)))
