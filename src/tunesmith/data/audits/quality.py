"""Rows that teach the wrong thing: empty, said twice, or contradicting each other."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from tunesmith.core.findings import Finding, Severity
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
    for others (labels, numbers): a person decides.
    """

    kind: Literal["quality"] = "quality"

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
