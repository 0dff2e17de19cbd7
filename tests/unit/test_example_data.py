"""Checks on the support desk rows shipped in tunesmith/examples/support."""

import itertools
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "src" / "tunesmith" / "examples" / "support"
SPLITS = ("train", "valid", "test")
FIELDS = ["intent", "product", "order", "urgency", "sentiment", "summary"]
ALLOWED = {
    "intent": {"cancel", "refund", "replace", "delivery", "account", "question"},
    "product": {"kettle", "lamp", "fan", "radio", "chair", "heater", None},
    "urgency": {"low", "normal", "high"},
    "sentiment": {"angry", "neutral", "happy"},
}


def read(split):
    text = (FOLDER / f"{split}.jsonl").read_text(encoding="ascii")
    return [json.loads(line)["messages"] for line in text.splitlines()]


@pytest.fixture(scope="module")
def rows():
    return {split: read(split) for split in SPLITS}


def tickets(rows):
    """Pairs of (customer's message, ticket) over all splits."""
    for split in SPLITS:
        for messages in rows[split]:
            yield messages[1]["content"], json.loads(messages[2]["content"])


def test_counts(rows):
    assert sum(len(rows[split]) for split in SPLITS) >= 700
    assert len(rows["train"]) >= 540
    assert len(rows["valid"]) >= 60
    assert len(rows["test"]) >= 100


def test_chat_shape_and_one_system_prompt(rows):
    prompts = set()
    for split in SPLITS:
        for messages in rows[split]:
            assert [m["role"] for m in messages] == ["system", "user", "assistant"]
            assert all(set(m) == {"role", "content"} for m in messages)
            assert all(m["content"] == m["content"].strip() for m in messages)
            prompts.add(messages[0]["content"])
    assert len(prompts) == 1
    prompt = prompts.pop()
    for field in FIELDS:
        assert field in prompt
    for values in ALLOWED.values():
        for value in values:
            assert (value or "null") in prompt


def test_ticket_is_compact_json_with_fields_in_order(rows):
    for split in SPLITS:
        for messages in rows[split]:
            text = messages[2]["content"]
            ticket = json.loads(text)
            assert list(ticket) == FIELDS
            assert text == json.dumps(ticket, separators=(",", ":"))


def test_closed_fields_hold_allowed_values_only(rows):
    seen = {field: set() for field in ALLOWED}
    for _, ticket in tickets(rows):
        for field, values in ALLOWED.items():
            assert ticket[field] in values
            seen[field].add(ticket[field])
    assert seen == ALLOWED


def test_order_is_the_first_five_digit_number_or_null(rows):
    for message, ticket in tickets(rows):
        found = re.search(r"(?<!\d)\d{5}(?!\d)", message)
        assert ticket["order"] == (found.group() if found else None)


def test_null_product_means_none_is_named(rows):
    named = re.compile(r"\b(?:arm)?(?:kettle|lamp|fan|radio|chair|heater)s?\b", re.IGNORECASE)
    for message, ticket in tickets(rows):
        if ticket["product"] is None:
            assert not named.search(message), message


def test_summary_is_one_short_line(rows):
    for _, ticket in tickets(rows):
        assert "\n" not in ticket["summary"]
        assert 4 <= len(ticket["summary"].split()) <= 9
        assert not re.search(r"\d{5}", ticket["summary"])


@pytest.mark.parametrize("field", ["intent", "urgency", "sentiment", "product"])
def test_no_value_dominates(rows, field):
    values = [ticket[field] for _, ticket in tickets(rows)]
    for value in ALLOWED[field]:
        limit = 0.55 if value in (None, "normal") else 0.46
        assert 0.05 <= values.count(value) / len(values) <= limit


def test_no_near_duplicates_and_no_leak(rows):
    """Over all rows, so inside a split and between splits."""
    seen = set()
    bags = []
    for message, _ in tickets(rows):
        masked = re.sub(r"\d", "0", message.lower())
        tokens = re.findall(r"[a-z0]+", masked)
        key = " ".join(tokens)
        assert key not in seen, message
        seen.add(key)
        bags.append((frozenset(tokens), message))
    for (a, first), (b, second) in itertools.combinations(bags, 2):
        both = len(a & b)
        assert both / (len(a) + len(b) - both) <= 0.6, (first, second)
