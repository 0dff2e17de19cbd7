"""Rows that teach the wrong thing: empty, said twice, contradicting each other, mislabelled."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Pair, Row, Text, Turns
from tunesmith.data.audits.base import Audit
from tunesmith.data.claims import claim_of
from tunesmith.data.found import report
from tunesmith.data.prompts import normalised


class Quality(Audit):
    """Empty texts and turns, rows repeated within a part, and rows that contradict each other.

    Texts are compared without case and spaces. Rows contradict each other that give one text two
    labels, one prompt two answers, one answer two verdicts, or one pair of answers both ways
    round. Several answers to one prompt are right for some tasks (descriptions, chat) and wrong
    for others (labels, numbers): a person decides. Preferences are told that choose an answer
    over itself, or the longer one so often that length alone would be learned.
    """

    kind: Literal["quality"] = "quality"
    languages: tuple[str, ...] = ()
    """Codes of the languages that rows should be in (`[en, de]`); rows in others are told."""
    mislabelled: bool = False
    """Look for likely wrong labels: what the rows nearest in meaning say, by the bundled
    encoder. Takes seconds for a thousand rows."""
    sure: Annotated[float, Field(gt=0, le=1)] = 0.35
    """By how much another label must win, of scores from 0 to 1, to call a row mislabelled."""

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each kind for each part."""
        for part, rows in parts.items():
            yield from report(
                "warning",
                f"rows of {part} that train an empty answer",
                [row for row in rows if any(empty(m) and trained(m) for m in spoken(row))],
                "remove them, unless saying nothing is what the model should learn",
            )
            yield from report(
                "warning",
                f"rows of {part} with an empty user turn",
                [row for row in rows if any(empty(m) and m.role == "user" for m in spoken(row))],
                "remove them, or write what was asked",
            )
            yield from report(
                "warning",
                f"rows of {part} with an empty text",
                [row for row in rows if not all(text.strip() for text in written(row))],
                "remove them, or write the text",
            )
            yield from preferred(part, [row for row in rows if isinstance(row, Pair)])
        for part, rows in parts.items():
            repeated, contradicting = compared(rows)
            yield from report(
                "warning",
                f"rows of {part} that repeat an earlier one but for case and spaces",
                repeated,
                "state data.transforms: [{kind: deduplicate, match: normalised}]",
            )
            for kind, found in contradicting.items():
                severity, what, advice = WORDS[kind]
                yield from report(severity, f"rows of {part} that {what}", found, advice)
        for part, rows in parts.items():
            yield from foreign(part, rows, self.languages)
        if self.mislabelled:
            yield from self._doubted(parts)

    def _doubted(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """Rows whose label their neighbours in meaning do not have."""
        from tunesmith.data.doubts import doubts

        for part, rows in parts.items():
            found = doubts([row for row in rows if isinstance(row, Labelled)], self.sure)
            yield from report(
                "warning",
                f"rows of {part} that are likely mislabelled",
                [each.row for each in found],
                "read them, the surest first; correct or drop those that are wrong",
                seen="instead of their own: "
                + ", ".join(f"{quoted(each.label)} by {each.margin:.2f}" for each in found[:5]),
            )


FEW, BIASED = 20, 0.65
"""Pairs below which nothing is said of length, and the share from which it is."""
LETTERS = 40
"""Letters below which py3langid guesses."""
WORDS: Mapping[str, tuple[Severity, str, str]] = {
    Chat.kind: (
        "info",
        "answer an earlier prompt in another way",
        "keep the right answer where only one can be right; otherwise nothing is to do",
    ),
    Labelled.kind: (
        "warning",
        "give an earlier text another label",
        "keep the right label, or state labels as a list where several are true",
    ),
    Judged.kind: (
        "info",
        "judge an earlier answer otherwise",
        "keep both where people disagreed; otherwise remove the wrong one",
    ),
    Pair.kind: (
        "warning",
        "prefer the answer that an earlier row rejects",
        "keep the right row of each two: together they teach nothing",
    ),
}


def compared(rows: Iterable[Row]) -> tuple[list[Row], dict[str, list[Row]]]:
    """Rows that repeat an earlier one, and by kind those that contradict one."""
    known: set[tuple[str, str]] = set()
    claims: dict[Hashable, set[str]] = {}
    repeated: list[Row] = []
    contradicting: dict[str, list[Row]] = {}
    for row in rows:
        identity = (row.scope, row.mapped(normalised).digest)
        if identity in known:
            repeated.append(row)
            continue
        known.add(identity)
        claim = claim_of(row)
        if claim is not None:
            said = claims.setdefault((row.scope, claim.about), set())
            if said and claim.says not in said:
                contradicting.setdefault(row.kind, []).append(row)
            said.add(claim.says)
    return repeated, contradicting


def preferred(part: str, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Pairs that prefer an answer to itself, and a preference for length."""
    sides = {id(row): (side(row.chosen), side(row.rejected)) for row in pairs}
    yield from report(
        "error",
        f"rows of {part} that prefer an answer to itself",
        [row for row in pairs if sides[id(row)][0] == sides[id(row)][1]],
        "drop them: they teach nothing",
    )
    apart = [row for row in pairs if len(sides[id(row)][0]) != len(sides[id(row)][1])]
    longer = [row for row in apart if len(sides[id(row)][0]) > len(sides[id(row)][1])]
    if len(apart) < FEW:
        return
    share = max(len(longer), len(apart) - len(longer)) / len(apart)
    # Three standard errors from a coin: one chance in 370.
    if share >= BIASED and (share - 0.5) * 2 * math.sqrt(len(apart)) >= 3:
        word = "longer" if 2 * len(longer) > len(apart) else "shorter"
        told = longer if word == "longer" else [row for row in apart if row not in longer]
        yield from report(
            "warning",
            f"rows of {part} that prefer the {word} answer, {share:.0%} of those that differ in "
            "length",
            told,
            "a model may learn length alone: balance it, or compare results at equal length",
        )


def side(turns: Turns) -> str:
    """The text of one side of a pair, with its calls, without case and spaces."""
    calls = "".join(str(turn.extra.get("tool_calls", "")) for turn in turns)
    return normalised("\n".join(turn.content or "" for turn in turns)) + calls


def foreign(part: str, rows: Sequence[Row], languages: Sequence[str]) -> Iterator[Finding]:
    """Rows with a text in another language than those named; short texts are left out."""
    if not languages:
        return
    from tunesmith.data.transforms.filter import language

    texts = ((row, text) for row in rows for text in row.texts() if long_enough(text))
    found = {id(row): row for row, text in texts if language(text) not in languages}
    yield from report(
        "warning",
        f"rows of {part} in another language than {', '.join(languages)}",
        list(found.values()),
        f"state data.transforms: [{{kind: filter, languages: [{', '.join(languages)}]}}]",
    )


def long_enough(text: str) -> bool:
    """Whether a text has letters enough to tell its language."""
    return sum(map(str.isalpha, text)) >= LETTERS


def spoken(row: Row) -> Turns:
    """The turns that people and models said; documents and labelled texts have none."""
    if isinstance(row, Text | Labelled):
        return ()
    return row.dialogue() + (row.rejected if isinstance(row, Pair) else ())


def written(row: Row) -> tuple[str, ...]:
    """The texts that stand for themselves: documents and labelled texts."""
    return row.texts() if isinstance(row, Text | Labelled) else ()


def empty(message: Message) -> bool:
    """Whether a turn says nothing and calls nothing."""
    return not (message.content or "").strip() and not message.extra.get("tool_calls")


def trained(message: Message) -> bool:
    """Whether a turn carries loss."""
    return message.role == "assistant" and message.train is not False
