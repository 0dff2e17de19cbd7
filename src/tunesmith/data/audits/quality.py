"""Rows that teach the wrong thing: empty, said twice, contradicting each other, mislabelled."""

import hashlib
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Pair, Row, Text, Turns
from tunesmith.data.audits.base import Audit, Eye
from tunesmith.data.claims import claim_of
from tunesmith.data.found import PLACES, Seen, Sight, of, report
from tunesmith.data.prompts import normalised
from tunesmith.data.seen import seen
from tunesmith.data.shelf import Table, tables


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
    encoder. Takes seconds for a thousand rows; of more than 50,000 a notice says that it was left
    out."""
    sure: Annotated[float, Field(gt=0, le=1)] = 0.2
    """By how much another label must win, of scores from 0 to 1, to call a row mislabelled. With a
    tenth of 770 labels changed, at 0.2 three in four of them are found and four fifths of what is
    told is wrong; at 0.35 a quarter is found, and one in 25 told in vain
    (docs/decisions/0017-audits.md)."""

    def eye(self) -> Eye:
        """The faults of a row by itself."""
        return lambda row: (Sight((fault,)) for fault in faults(row, self.languages))

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each kind for each part."""
        found = {part: seen(rows, self) for part, rows in parts.items()}
        for part, faulty in found.items():
            for fault, (severity, what, advice) in FAULTS.items():
                what = f"rows of {part} {what}"
                yield from report(severity, what, faulty.get((fault,)), advice)
            yield from preferred(part, *(faulty.get((each,), Seen()) for each in LENGTHS))
        for part, rows in parts.items():
            yield from contradictions(part, rows)
        for part, faulty in found.items():
            listed = ", ".join(self.languages)
            yield from report(
                "warning",
                f"rows of {part} in another language than {listed}",
                faulty.get(("foreign",)),
                f"state data.transforms: [{{kind: filter, languages: [{listed}]}}]",
            )
        if self.mislabelled:
            yield from self._doubted(parts)

    def _doubted(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """Rows whose label their neighbours in meaning do not have."""
        from tunesmith.data.doubts import doubts

        for part, rows in parts.items():
            labelled = list(islice((r for r in rows if isinstance(r, Labelled)), MOST + 1))
            if len(labelled) > MOST:
                yield left_out(part, len(rows))
                continue
            found = doubts(labelled, self.sure)
            yield from report(
                "warning",
                f"rows of {part} that are likely mislabelled",
                of(each.row for each in found),
                "read them, the surest first; correct or drop those that are wrong",
                seen="instead of their own: "
                + ", ".join(f"{quoted(each.label)} by {each.margin:.2f}" for each in found[:5]),
            )


FEW, BIASED = 20, 0.65
"""Pairs below which nothing is said of length, and the share from which it is."""
LETTERS = 40
"""Letters below which py3langid guesses."""
MOST = 50_000
"""Labelled rows of a part that are compared with each other by meaning."""
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
KINDS = (*WORDS,)
FAULTS: Mapping[str, tuple[Severity, str, str]] = {
    "empty answer": (
        "warning",
        "that train an empty answer",
        "remove them, unless saying nothing is what the model should learn",
    ),
    "empty turn": (
        "warning",
        "with an empty user turn",
        "remove them, or write what was asked",
    ),
    "empty text": ("warning", "with an empty text", "remove them, or write the text"),
    "same": ("error", "that prefer an answer to itself", "drop them: they teach nothing"),
}
LENGTHS = ("longer", "shorter")


def faults(row: Row, languages: Sequence[str]) -> Iterator[str]:
    """What is wrong with a row by itself, and which answer it prefers."""
    said = spoken(row)
    if any(empty(turn) and trained(turn) for turn in said):
        yield "empty answer"
    if any(empty(turn) and turn.role == "user" for turn in said):
        yield "empty turn"
    if not all(text.strip() for text in written(row)):
        yield "empty text"
    if isinstance(row, Pair):
        chosen, rejected = side(row.chosen), side(row.rejected)
        if chosen == rejected:
            yield "same"
        elif len(chosen) != len(rejected):
            yield LENGTHS[len(chosen) < len(rejected)]
    if languages and foreign(row, languages):
        yield "foreign"


def claims(rows: Sequence[Row]) -> Table:
    """Of each row what it is, what it speaks of, what it says of that, all without case and
    spaces, and its kind: 0 for one that says nothing that could be contradicted. # [rows, 4]"""
    found = np.zeros((len(rows), 4), dtype=np.uint64)
    for place, row in enumerate(rows):
        found[place, 0] = number(row.scope, row.mapped(normalised).digest)
        if (claim := claim_of(row)) is not None:
            about = number(row.scope, claim.about)
            found[place, 1:] = about, number(about, claim.says), KINDS.index(row.kind) + 1
    return found


def number(*what: Hashable) -> int:
    """64 bits of a digest: two of a million rows have the same once in ten million files."""
    return int.from_bytes(hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).digest()[:8])


def contradictions(part: str, rows: Sequence[Row]) -> Iterator[Finding]:
    """Rows that repeat an earlier one, and by kind those that contradict one."""
    if not rows:
        return
    table = np.concatenate(list(tables(rows, claims)))
    repeated = ~firsts(table[:, 0])
    yield from report(
        "warning",
        f"rows of {part} that repeat an earlier one but for case and spaces",
        at(rows, repeated),
        "state data.transforms: [{kind: deduplicate, match: normalised}]",
    )
    new = ~repeated & firsts(table[:, 2]) & ~firsts(table[:, 1])
    for place, kind in enumerate(KINDS, 1):
        severity, what, advice = WORDS[kind]
        found = at(rows, new & (table[:, 3] == place))
        yield from report(severity, f"rows of {part} that {what}", found, advice)


def firsts(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each is the first that is so."""
    found = np.zeros(len(keys), dtype=np.bool_)
    found[np.unique(keys, return_index=True)[1]] = True
    return found


def at(rows: Sequence[Row], wanted: NDArray[np.bool_]) -> Seen:
    """The rows that are wanted."""
    places = np.flatnonzero(wanted)
    found = of(rows[place] for place in places[:PLACES].tolist())
    found.rows = found.count = len(places)
    return found


def preferred(part: str, longer: Seen, shorter: Seen) -> Iterator[Finding]:
    """A preference for length."""
    apart = longer.rows + shorter.rows
    if apart < FEW:
        return
    word, told = max((("longer", longer), ("shorter", shorter)), key=lambda pair: pair[1].rows)
    share = told.rows / apart
    # Three standard errors from a coin: one chance in 370.
    if share >= BIASED and (share - 0.5) * 2 * math.sqrt(apart) >= 3:
        yield from report(
            "warning",
            f"rows of {part} that prefer the {word} answer, {share:.0%} of those that differ in "
            "length",
            told,
            "a model may learn length alone: balance it, or compare results at equal length",
        )


def left_out(part: str, rows: int) -> Finding:
    """The notice that wrong labels were not looked for."""
    return Finding(
        "info",
        f"wrong labels of {part} were not looked for: they are too many to compare each with all",
        "data.audits",
        f"{rows} rows; at most {MOST} labelled ones are compared",
        "prepare a part of them (data.transforms: [{kind: sample, rows: 50000}]) with this audit",
    )


def side(turns: Turns) -> str:
    """The text of one side of a pair, with its calls, without case and spaces."""
    calls = "".join(str(turn.extra.get("tool_calls", "")) for turn in turns)
    return normalised("\n".join(turn.content or "" for turn in turns)) + calls


def foreign(row: Row, languages: Sequence[str]) -> bool:
    """Whether a text is in another language than those named; short texts are left out."""
    from tunesmith.data.transforms.filter import language

    texts = (text for text in row.texts() if long_enough(text))
    return any(language(text) not in languages for text in texts)


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
