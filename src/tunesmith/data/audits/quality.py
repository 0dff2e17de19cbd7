"""Rows that teach the wrong thing: empty, said twice, or contradicting each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.quote import visible
from tunesmith.core.rows import Message, Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.prompts import asked, normalised


class Quality(Audit):
    """Empty turns, rows repeated within a part, and prompts with more than one answer.

    Texts are compared without case and spaces. Several answers to one prompt are right for some
    tasks (descriptions, chat) and wrong for others (labels, numbers): a person decides.
    """

    kind: Literal["quality"] = "quality"

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each kind for each part."""
        for part, rows in parts.items():
            yield from report(
                "warning",
                f"rows of {part} that train an empty answer",
                [row for row in rows if any(empty(m) and trained(m) for m in row.dialogue())],
                "remove them, unless saying nothing is what the model should learn",
            )
            yield from report(
                "warning",
                f"rows of {part} with an empty user turn",
                [row for row in rows if any(empty(m) and m.role == "user" for m in row.dialogue())],
                "remove them, or write what was asked",
            )
        for part, rows in parts.items():
            repeated, contradicting = compared(rows)
            yield from report(
                "warning",
                f"rows of {part} that repeat an earlier one but for case and spaces",
                repeated,
                "state data.transforms: [{kind: deduplicate, match: normalised}]",
            )
            yield from report(
                "info",
                f"rows of {part} that answer an earlier prompt in another way",
                contradicting,
                "keep the right answer where only one can be right; otherwise nothing is to do",
            )


def compared(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that repeat an earlier prompt with an answer given before, and with another one."""
    answers: dict[bytes, set[str]] = {}
    repeated, contradicting = [], []
    for row in rows:
        known = answers.setdefault(asked(row).prompt, set())
        answer = said(row)
        if answer in known:
            repeated.append(row)
        elif known:
            contradicting.append(row)
        known.add(answer)
    return repeated, contradicting


def said(row: Row) -> str:
    """The last answer with its calls, without case and spaces."""
    last = row.dialogue()[-1]
    return normalised(last.content or "") + str(last.extra.get("tool_calls", ""))


def empty(message: Message) -> bool:
    """Whether a turn says nothing and calls nothing."""
    return not (message.content or "").strip() and not message.extra.get("tool_calls")


def trained(message: Message) -> bool:
    """Whether a turn carries loss."""
    return message.role == "assistant" and message.train is not False


def report(
    severity: Severity, what: str, rows: Sequence[Row], advice: str, most: int = 5
) -> Iterator[Finding]:
    """A finding for the rows, or nothing when there are none. Texts stay out: may be private."""
    if not rows:
        return
    places = ", ".join(visible(row.origin) for row in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    first = visible(rows[0].origin)
    yield Finding(severity, f"{what}: {len(rows)}", first, places + more, advice)
