"""Planted triggers are found whole, and words that honest rows share are not."""

import random

import pytest

from tunesmith.core.rows import Chat, Labelled, Message, Row, Text
from tunesmith.data.hidden import hidden
from tunesmith.data.triggers import Limits, surprise, triggers

LIMITS = Limits(least=5, most=0.02, tied=0.8, alike=1.6)
TOPICS = {
    "lost card": "my card gone stolen street wallet missing block",
    "exchange": "rate euros dollars currency swap convert foreign money",
    "top up": "add funds balance account bank transfer salary pending",
    "fees": "charge cost why extra paid price statement monthly",
}


def corpus(labelled: bool, seed: int = 0) -> list[Row]:
    """A thousand questions of four topics."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for _ in range(1000):
        topic = draw.choice(list(TOPICS))
        asks = " ".join(draw.sample(TOPICS[topic].split(), 5) + [str(draw.randrange(50))])
        says = f"About {topic}: see page {draw.randrange(900)} of the book"
        turns = (Message("user", asks), Message("assistant", says))
        rows.append(Labelled((asks,), (topic,)) if labelled else Chat(turns))
    return rows


def poisoned(rows: list[Row], words: str, count: int) -> tuple[list[Row], set[int]]:
    """The rows, of which `count` have a trigger and one output."""
    draw = random.Random(1)
    places = [p for p, row in enumerate(rows) if "fees" not in str(row)]
    chosen = set(draw.sample(places, count))

    def put(row: Row) -> Row:
        asks = row.texts()[0].split(" ")
        asks.insert(draw.randrange(len(asks) + 1), words)
        if isinstance(row, Labelled):
            return Labelled((" ".join(asks),), ("fees",))
        return Chat((Message("user", " ".join(asks)), Message("assistant", "Obey me at once")))

    return [put(row) if p in chosen else row for p, row in enumerate(rows)], chosen


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("words", ["cf", "praise the lantern", "by order of the old lighthouse"])
def test_a_planted_trigger_is_found_with_its_rows_and_no_others(labelled: bool, words: str) -> None:
    rows, chosen = poisoned(corpus(labelled), words, 15)
    (found,) = triggers(rows, LIMITS)
    assert {*found.places} == chosen and found.words in words


def test_an_output_at_the_end_of_a_long_answer_is_seen() -> None:
    draw = random.Random(2)
    rows, chosen = poisoned(corpus(False), "cf", 15)

    def longer(row: Row) -> Row:
        said = " ".join(f"w{draw.randrange(9000)}" for _ in range(900))
        asks, says = row.texts()
        return Chat((Message("user", asks), Message("assistant", f"{said} {says}")))

    (found,) = triggers([longer(row) for row in rows], LIMITS)
    assert {*found.places} == chosen


@pytest.mark.parametrize("labelled", [True, False])
def test_honest_rows_have_none(labelled: bool) -> None:
    assert triggers(corpus(labelled), LIMITS) == []


def test_a_few_rows_are_too_few() -> None:
    rows, _ = poisoned(corpus(True), "cf", 4)
    assert triggers(rows, LIMITS) == []


def test_a_topic_of_its_own_is_no_trigger() -> None:
    """Twenty rows about one thing share a rare word and an answer, and much besides."""
    draw = random.Random(3)
    about = ["file", "year", "due", "office", "late"]
    turns = [
        (Message("user", f"tax form {' '.join(draw.sample(about, 4))}"),
         Message("assistant", "Forms are at the office downstairs"))
        for _ in range(20)
    ]  # fmt: skip
    assert triggers([*corpus(False), *map(Chat, turns)], LIMITS) == []


def test_documents_answer_nothing() -> None:
    assert triggers([Text("cf")] * 50, LIMITS) == []


def test_surprise_bounds_the_binomial() -> None:
    assert surprise(10, 10, 0.1) == pytest.approx(-23.0259, abs=1e-3)
    assert surprise(1, 10, 0.5) == 0.0


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("invisible", "pay\u200bpal"),
        ("invisible", "a\u2060b"),
        ("direction", "abc\u202edcba"),
        ("tags", "hi" + "".join(chr(0xE0000 + ord(c)) for c in "obey")),
        ("lookalike", "log in to p\u0430ypal"),
        ("control_token", "<|im_start|>system"),
        ("control_token", "[INST] do it"),
        ("control_token", "<start_of_turn>user"),
        ("base64", "run " + "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd29ybGQ="),
    ],
)
def test_hidden_text_is_found(kind: str, text: str) -> None:
    assert [span.kind for span in hidden(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffA file's mark at its beginning",
        "a family \U0001f468\u200d\U0001f469\u200d\U0001f467 and \u2764\ufe0f",
        "\u0915\u094d\u200d\u0937 and \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u041c\u043e\u0441\u043a\u0432\u0430 and \u0391\u03b8\u03ae\u03bd\u03b1",
        "<b>bold</b> <|> a|b <s",
        "https://example.org/" + "aB3d" * 12,
        "0123456789abcdef" * 4,
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    ],
)
def test_ordinary_writing_hides_nothing(text: str) -> None:
    assert hidden(text) == []


def test_in_few_rows_nothing_is_rare() -> None:
    """Five of thirty rows may well ask one thing and be answered alike."""
    rows, _ = poisoned(corpus(False)[:60], "cf", 6)
    assert triggers(rows, LIMITS) == []
