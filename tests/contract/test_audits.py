"""Every audit: planted cases are found, clean rows are quiet, no text gets into the evidence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.data.audits.base import Audit

SECRET = "mustermann@example.org"
lines = iter(range(1, 10_000))


def row(prompt: str, answer: str | None, *earlier: str, **extra: Any) -> Chat:
    """A row; `earlier` are turns before the prompt, a user's first."""
    roles = ("user", "assistant")
    before = tuple(Message(roles[i % 2], text) for i, text in enumerate(earlier))
    turns = (*before, Message("user", prompt), Message("assistant", answer, extra=extra))
    return Chat(turns, origin=Origin("rows.jsonl", next(lines)), source="rows.jsonl")


def of(kind: type[Row], *content: Any) -> Any:
    """A row of another kind; texts in it are a user's first turn, or answers."""
    return kind(*content, origin=Origin("rows.jsonl", next(lines)), source="rows.jsonl")


def ask(text: str) -> tuple[Message, ...]:
    """A prompt."""
    return (Message("user", text),)


def say(text: str, **extra: Any) -> tuple[Message, ...]:
    """An answer."""
    return (Message("assistant", text, extra=extra),)


CALLS = {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
CLEAN: Mapping[str, Sequence[Row]] = {
    "train": [
        *(row(f"Question {i}", f"Answer {i % 3}") for i in range(30)),
        row("f", "", **CALLS),
        *(of(Text, f"Document {i}") for i in range(3)),
        *(of(Labelled, (f"Text {i}", f"Text {i % 2}"), ("a",)) for i in range(3)),
        of(Labelled, ("Text",), (), True),
        # One prompt may have several pairs and several judged answers.
        *(of(Pair, ask("Pair"), say(f"Good {i}"), say("Bad")) for i in range(2)),
        of(Pair, ask("Pair"), say("", **CALLS), say("Bad")),
        *(of(Judged, ask("Judged"), say(f"Answer {i}"), i == 0) for i in range(2)),
    ],
    "valid": [row(f"Valid {i}", "Answer") for i in range(5)],
    "test": [
        *(row(f"Test {i}", "Answer") for i in range(5)),
        of(Text, "Test 1"),
        of(Labelled, ("Test 1", "Test"), ("a",)),
    ],
}

# kind -> (rows added to the clean ones, severity, words of the finding)
PLANTED: dict[str, list[tuple[dict[str, list[Any]], str, str]]] = {
    "leakage": [
        ({"train": [row("Test 1", SECRET)]}, "error", "train that answer a prompt of test: 1"),
        ({"train": [row("Valid 1", SECRET)]}, "error", "train that answer a prompt of valid: 1"),
        ({"valid": [row("Test 1", SECRET)]}, "error", "valid that answer a prompt of test: 1"),
        ({"train": [row(" test  1", SECRET)]}, "warning", "but for case and spaces: 1"),
        ({"train": [row("more", "x", "Test 1", SECRET)]}, "error", "prompt of test: 1"),
        ({"train": [of(Text, "Test 1")]}, "error", "prompt of test: 1"),
        ({"train": [of(Labelled, ("Test 1", "Test"), ("b",))]}, "error", "prompt of test: 1"),
        ({"train": [of(Labelled, ("Test 1", "TEST "), ("b",))]}, "warning", "of test but for"),
        ({"train": [of(Pair, ask("Test 1"), say(SECRET), say("x"))]}, "error", "of test: 1"),
        ({"train": [of(Judged, ask("Test 1"), say(SECRET), False)]}, "error", "of test: 1"),
    ],
    "quality": [
        ({"train": [row(SECRET, " \n")]}, "warning", "train that train an empty answer: 1"),
        ({"test": [row(" ", SECRET)]}, "warning", "test with an empty user turn: 1"),
        (
            {"train": [row(SECRET, "x"), row(SECRET.upper(), " X ")]},
            "warning",
            "train that repeat an earlier one but for case and spaces: 1",
        ),
        (
            {"train": [row(SECRET, "x"), row(f" {SECRET}", "y"), row(SECRET, "z")]},
            "info",
            "train that answer an earlier prompt in another way: 2",
        ),
        ({"train": [of(Text, " \n")]}, "warning", "train with an empty text: 1"),
        ({"train": [of(Labelled, (SECRET, ""), ("a",))]}, "warning", "with an empty text: 1"),
        ({"train": [of(Pair, ask("?"), say(SECRET), say(" "))]}, "warning", "an empty answer: 1"),
        (
            {"train": [of(Labelled, (SECRET,), ("a",)), of(Labelled, (SECRET.upper(),), ("b",))]},
            "warning",
            "train that give an earlier text another label: 1",
        ),
        (
            {"train": [of(Judged, ask("?"), say(SECRET), liked) for liked in (True, False)]},
            "info",
            "train that judge an earlier answer otherwise: 1",
        ),
        (
            {
                "train": [
                    of(Pair, ask("?"), *map(say, two)) for two in ((SECRET, "b"), ("B", SECRET))
                ]
            },
            "warning",
            "train that prefer the answer that an earlier row rejects: 1",
        ),
        (
            {"train": [of(Text, SECRET), of(Text, SECRET.upper())]},
            "warning",
            "train that repeat an earlier one but for case and spaces: 1",
        ),
    ],
}
CASES = [(kind, *case) for kind, cases in PLANTED.items() for case in cases]


def inspected(kind: str, parts: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """What an audit finds."""
    audit = Audit.members()[kind].model_validate({})
    return list(audit.inspect(parts))  # type: ignore[attr-defined]


def test_every_audit_is_tested() -> None:
    assert set(PLANTED) == set(Audit.members())


@pytest.mark.parametrize("kind", PLANTED)
def test_clean_and_empty_parts_are_quiet(kind: str) -> None:
    assert inspected(kind, CLEAN) == []
    assert inspected(kind, {"train": []}) == inspected(kind, {}) == []


@pytest.mark.parametrize(("kind", "added", "severity", "words"), CASES)
def test_what_is_planted_is_found_and_nothing_else(
    kind: str, added: dict[str, list[Row]], severity: str, words: str
) -> None:
    parts = {part: [*rows, *added.get(part, [])] for part, rows in CLEAN.items()}
    (finding,) = inspected(kind, parts)
    assert finding.severity == severity and words in finding.what
    planted = [str(r.origin) for rows in added.values() for r in rows]
    assert finding.where in planted and finding.advice


@pytest.mark.parametrize(("kind", "added", "severity", "words"), CASES)
def test_no_text_of_a_row_gets_into_a_finding(
    kind: str, added: dict[str, list[Row]], severity: str, words: str
) -> None:
    parts = {part: [*rows, *added.get(part, [])] for part, rows in CLEAN.items()}
    written = json.dumps([finding.record() for finding in inspected(kind, parts)])
    assert SECRET not in written.lower() and "Test 1" not in written


def test_many_cases_are_one_finding_with_some_places() -> None:
    rows = [row(f"q{i}", "") for i in range(200)]
    (finding,) = inspected("quality", {"train": rows})
    assert finding.what.endswith(": 200") and "and 195 more" in finding.evidence
