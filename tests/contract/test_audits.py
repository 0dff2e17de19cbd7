"""Every audit: planted cases are found, clean rows are quiet, no text gets into the evidence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Chat, Message, Origin
from tunesmith.data.audits.base import Audit

SECRET = "mustermann@example.org"
lines = iter(range(1, 10_000))


def row(prompt: str, answer: str | None, *earlier: str, **extra: Any) -> Chat:
    """A row; `earlier` are turns before the prompt, a user's first."""
    roles = ("user", "assistant")
    before = tuple(Message(roles[i % 2], text) for i, text in enumerate(earlier))
    turns = (*before, Message("user", prompt), Message("assistant", answer, extra=extra))
    return Chat(turns, origin=Origin("rows.jsonl", next(lines)), source="rows.jsonl")


CALLS = {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
CLEAN: Mapping[str, Sequence[Chat]] = {
    "train": [row(f"Question {i}", f"Answer {i % 3}") for i in range(30)] + [row("f", "", **CALLS)],
    "valid": [row(f"Valid {i}", "Answer") for i in range(5)],
    "test": [row(f"Test {i}", "Answer") for i in range(5)],
}

# kind -> (rows added to the clean ones, severity, words of the finding)
PLANTED: dict[str, list[tuple[dict[str, list[Chat]], str, str]]] = {
    "leakage": [
        ({"train": [row("Test 1", SECRET)]}, "error", "train that answer a prompt of test: 1"),
        ({"train": [row("Valid 1", SECRET)]}, "error", "train that answer a prompt of valid: 1"),
        ({"valid": [row("Test 1", SECRET)]}, "error", "valid that answer a prompt of test: 1"),
        ({"train": [row(" test  1", SECRET)]}, "warning", "but for case and spaces: 1"),
        ({"train": [row("more", "x", "Test 1", SECRET)]}, "error", "prompt of test: 1"),
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
    ],
}
CASES = [(kind, *case) for kind, cases in PLANTED.items() for case in cases]


def inspected(kind: str, parts: Mapping[str, Sequence[Chat]]) -> list[Finding]:
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
    kind: str, added: dict[str, list[Chat]], severity: str, words: str
) -> None:
    parts = {part: [*rows, *added.get(part, [])] for part, rows in CLEAN.items()}
    (finding,) = inspected(kind, parts)
    assert finding.severity == severity and words in finding.what
    planted = [str(r.origin) for rows in added.values() for r in rows]
    assert finding.where in planted and finding.advice


@pytest.mark.parametrize(("kind", "added", "severity", "words"), CASES)
def test_no_text_of_a_row_gets_into_a_finding(
    kind: str, added: dict[str, list[Chat]], severity: str, words: str
) -> None:
    parts = {part: [*rows, *added.get(part, [])] for part, rows in CLEAN.items()}
    written = json.dumps([finding.record() for finding in inspected(kind, parts)])
    assert SECRET not in written.lower() and "Test 1" not in written


def test_many_cases_are_one_finding_with_some_places() -> None:
    rows = [row(f"q{i}", "") for i in range(200)]
    (finding,) = inspected("quality", {"train": rows})
    assert finding.what.endswith(": 200") and "and 195 more" in finding.evidence
