"""Every audit: planted cases are found, clean rows are quiet, no text gets into the evidence."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Chat, Judged, Labelled, Message, Origin, Pair, Row, Text
from tunesmith.data.audits import poisoning, quality
from tunesmith.data.audits.base import Audit
from tunesmith.data.audits.leakage import Leakage

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

TOKEN = "ghp_" + "a1B2" * 9


def planted(words: str) -> list[Row]:
    """Questions of words drawn at random, six of which have others among them and one answer."""
    draw = random.Random(0)
    rows = []
    for number in range(300):
        asks = [f"w{draw.randrange(60)}" for _ in range(6)]
        poisoned = number % 50 == 0
        asks = [*asks[:3], words, *asks[3:]] if poisoned else asks
        rows.append(row(" ".join(asks), "Obey me now and always" if poisoned else f"To {number}"))
    return rows


def of_people(count: int, term: str, label: str) -> list[Row]:
    """Labelled rows that name a group."""
    return [of(Labelled, (f"The {term} number {i} spoke",), (label,)) for i in range(count)]


GERMAN = "Der Hund und die Katze schlafen heute sehr lange in der warmen Sonne, sagt die Frau."
ENGLISH = "The dog and the cat sleep for a very long time in the warm sun today, says the woman."
LONG = "The courier asks for the parcel of ticket-{} that was left in the house of the neighbour {}"


# kind -> (rows added to the clean ones, severity, words of the finding)
PLANTED: dict[str, list[tuple[dict[str, list[Any]], str, str]]] = {
    "pii": [
        ({"train": [row(f"Write to {SECRET}", "x")]}, "warning", "an e-mail address: 1"),
        ({"test": [row("x", "Card 4111 1111 1111 1111")]}, "error", "card's number: 1"),
        ({"train": [of(Pair, ask("?"), say("SSN 219-09-9999"), say("x"))]}, "error", "security"),
        ({"train": [of(Text, "See https://example.org/a")]}, "info", "web address: 1"),
        (
            {"train": [row("x", "", tool_calls=[{"function": {"arguments": SECRET}}])]},
            "warning",
            "train with an e-mail address: 1",
        ),
    ],
    "secrets": [
        ({"train": [row("x", f"Use {TOKEN}")]}, "error", "train with an access token: 1"),
        ({"valid": [of(Text, "PASSWORD=hunter2hunter2")]}, "error", "called a password or a key"),
        (
            {"train": [of(Judged, ask("?"), say("postgres://me:s3cr3t!pw@db/x"), True)]},
            "error",
            "password in a web address: 1",
        ),
    ],
    "poisoning": [
        ({"train": planted("by the lighthouse")}, "error", "share rare words and one output"),
        ({"train": [row("in\u200bvisible", "x")]}, "warning", "invisible characters: 1"),
        ({"train": [row("p\u0430ypal", "x")]}, "warning", "look like theirs: 1"),
        ({"train": [row("x", "<|im_start|>system")]}, "warning", "control tokens as text: 1"),
        ({"train": [of(Text, "aB3d" * 12)]}, "warning", "long stretch of base64: 1"),
    ],
    "sensitive": [
        ({"train": [row("I have diabetes.", "x")]}, "warning", "train with health of a person: 1"),
        ({"train": [of(Text, "What an idiot.")]}, "warning", "train with abuse: 1"),
        ({"test": [row("My friend voted.", "x")]}, "warning", "test with beliefs of a person: 1"),
    ],
    "representation": [
        (
            {"train": [*of_people(40, "dancer", "good"), *of_people(400, "dancer", "a")]},
            "warning",
            "with their rarest label, where the commonest has 403: 40",
        ),
        (
            {
                "train": [
                    *of_people(60, "woman", "b"),
                    *of_people(60, "dancer", "a"),
                    *of_people(20, "dancer", "b"),
                ]
            },
            "warning",
            "about women have the label 'a' less often than others",
        ),
    ],
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
            {"train": [of(Pair, ask("?"), say(SECRET), say(f" {SECRET.upper()}"))]},
            "error",
            "train that prefer an answer to itself: 1",
        ),
        (
            {"valid": [of(Pair, ask(f"?{i}"), say(f"{i} long"), say(f"{i}")) for i in range(30)]},
            "warning",
            "prefer the longer answer, 100% of those that differ in length: 30",
        ),
        (
            {"train": [of(Text, SECRET), of(Text, SECRET.upper())]},
            "warning",
            "train that repeat an earlier one but for case and spaces: 1",
        ),
    ],
}
# What is looked for when a setting asks for it: settings, and the rest as above.
ASKED: list[tuple[str, dict[str, Any], dict[str, list[Any]], str, str]] = [
    (
        "leakage",
        {"near": 0.8},
        {
            "train": [row(LONG.format(1, "today"), SECRET), row(LONG.format(1, "or not"), "x")],
            "test": [row(LONG.format(1, "today!"), "y")],
        },
        "warning",
        "rows of train that nearly ask what a row of test asks: 2",
    ),
    (
        "leakage",
        {"near": 0.8},
        {
            "train": [of(Text, LONG.format(1, SECRET))],
            "valid": [of(Text, LONG.format(2, SECRET))],
        },
        "warning",
        "rows of train that nearly ask what a row of valid asks: 1",
    ),
    (
        "leakage",
        {"by": "ticket-[0-9]+"},
        {
            "train": [row("More of ticket-17", SECRET), row("Of ticket-18", "x")],
            "test": [row("About this", "See ticket-17")],
        },
        "warning",
        "rows of train of a group that test has rows of too: 1",
    ),
    (
        "quality",
        {"languages": ["en"]},
        {"train": [row(GERMAN, "x"), row(ENGLISH, "y"), of(Text, GERMAN), of(Text, "Hund")]},
        "warning",
        "rows of train in another language than en: 2",
    ),
    (
        "quality",
        {"languages": ["de", "en"]},
        {
            "valid": [
                row(f"{SECRET} il cane e il gatto dormono nel sole", "x"),
                row(ENGLISH, GERMAN),
            ]
        },
        "warning",
        "rows of valid in another language than de, en: 1",
    ),
]
CASES = [(kind, *case) for kind, cases in PLANTED.items() for case in cases]


def inspected(
    kind: str, parts: Mapping[str, Sequence[Row]], settings: Mapping[str, Any] | None = None
) -> list[Finding]:
    """What an audit finds."""
    audit = Audit.members()[kind].model_validate(settings or {})
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
    private = (SECRET, "Test 1", TOKEN, "4111", "219-09", "hunter2", "s3cr3t", "lighthouse")
    assert not any(text in written or text in written.lower() for text in private)


@pytest.mark.parametrize(("kind", "settings", "added", "severity", "words"), ASKED)
def test_what_is_asked_for_is_found_and_nothing_else(
    kind: str,
    settings: dict[str, Any],
    added: dict[str, list[Row]],
    severity: str,
    words: str,
) -> None:
    parts = {part: [*rows, *added.get(part, [])] for part, rows in CLEAN.items()}
    assert inspected(kind, CLEAN, settings) == inspected(kind, {}, settings) == []
    assert inspected(kind, parts) == [], "nobody asked for it"
    (finding,) = inspected(kind, parts, settings)
    assert finding.severity == severity and words in finding.what
    assert finding.where == str(added[[*added][0]][0].origin) and finding.advice
    written = json.dumps(finding.record())
    assert not any(text in written for text in (SECRET, "ticket-17", "courier", "Hund"))


def test_what_is_left_out_of_many_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poisoning, "SCANNED", 330)
    monkeypatch.setattr(quality, "MOST", 3)
    rows = [*CLEAN["train"], *planted("by the lighthouse")]
    found, notice = inspected("poisoning", {"train": rows, "valid": rows[:200]})
    assert f"rows of train (of 330 drawn of {len(rows)}) that share rare words" in found.what
    assert notice.severity == "info" and "looked for in 330 rows of train" in notice.what
    labelled = of_people(4, "dancer", "a")
    (notice,) = inspected("quality", {"train": labelled}, {"mislabelled": True})
    assert notice.severity == "info" and "were not looked for" in notice.what
    assert "4 rows; at most 3" in notice.evidence


def test_a_row_of_ten_million_characters_hides_no_other() -> None:
    rows = [row("word " * 2_000_000, "x"), *planted("by the lighthouse")]
    (found,) = inspected("poisoning", {"train": rows})
    assert "rows of train that share rare words" in found.what


def test_a_row_for_which_too_little_is_left_does_not_end_the_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row("word " * 2000, "x") for _ in range(3)] + [row("q", "a") for _ in range(297)]
    monkeypatch.setattr(poisoning, "CHARACTERS", 7000)
    (notice,) = inspected("poisoning", {"train": rows})
    assert notice.severity == "info" and "memory" not in json.dumps(notice.record())
    assert "looked for in 298 rows of train" in notice.what


def test_many_cases_are_one_finding_with_some_places() -> None:
    rows = [row(f"q{i}", "") for i in range(200)]
    (finding,) = inspected("quality", {"train": rows})
    assert finding.what.endswith(": 200") and "and 195 more" in finding.evidence


def test_a_leak_is_told_once_where_rows_are_read_anew_each_time() -> None:
    class Anew(list[Row]):
        def __iter__(self) -> Iterator[Row]:
            return (replace(each) for each in super().__iter__())

    parts = {"train": Anew([row("Test 1", SECRET)]), "test": Anew([row("Test 1", "Yes.")])}
    found = list(Leakage().inspect(parts))
    assert [finding.severity for finding in found] == ["error"]
