"""The dirt that the READMEs of real data sets tell of is found, and by nothing else than it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.rows import Row
from tunesmith.core.tables import read
from tunesmith.data.prompts import normalised
from tunesmith.data.source import Reading, rows
from tunesmith.data.transforms.base import Account, Decision, Transform

DATA = next(
    (p / "shared/data" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None
)
pytestmark = pytest.mark.skipif(
    DATA is None, reason="the data sets of the project (shared/data) are not beside this checkout"
)


def dropped(
    name: str, kind: str, form: Any = None, **settings: Any
) -> tuple[list[Decision], list[Row]]:
    """The rows of a file that a step drops."""
    assert DATA is not None
    told: list[Decision] = []
    step: Any = Transform.members()[kind](kind=kind, **settings)
    given = [row for _, row in rows(Reading(DATA / name, format=form))]
    list(step.apply(given, Account(kind, tell=told.append), 0))
    gone = {decision.row for decision in told}
    return told, [row for row in given if row.origin in gone]


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("banking77/train.jsonl", {"match": "exact"}, 0),
        ("banking77/train.jsonl", {"match": "normalised"}, 4),
        ("instruct_1100/sft_train.jsonl", {"match": "exact"}, 0),
        ("instruct_1100/sft_train.jsonl", {"what": "question"}, 19),
    ],
)
def test_duplicates(name: str, settings: dict[str, Any], count: int) -> None:
    told, _ = dropped(name, "deduplicate", **settings)
    assert len(told) == count


def test_duplicates_of_e2e(tmp_path: Path) -> None:
    """151 in the development file, which train and valid were made of."""
    assert DATA is not None
    folder, pairs = DATA / "e2e_nlg", tmp_path / "dev.jsonl"
    lines = [(each["mr"], each["ref"]) for each in fields(folder / "train.jsonl")]
    lines += [(each["mr"], ref) for each in fields(folder / "valid.jsonl") for ref in each["refs"]]
    records = ({"prompt": meaning, "completion": text} for meaning, text in lines)
    pairs.write_text("".join(f"{json.dumps(each)}\n" for each in records))
    assert len(lines) == 4672 and len(dropped(str(pairs), "deduplicate")[0]) == 151


@pytest.mark.parametrize(
    ("train", "test", "equal", "dropped_rows"),
    [
        ("banking77/train.jsonl", "banking77/test.jsonl", 7, 59),
        ("clinc150/train.jsonl", "clinc150/test.jsonl", 2, 15),
        # One is equal, and one has its instruction of 13 words and another input.
        ("instruct_1100/sft_train.jsonl", "instruct_1100/sft_test.jsonl", 1, 2),
    ],
)
def test_leaks(train: str, test: str, equal: int, dropped_rows: int) -> None:
    """Rows that say what a test row says but for case and spaces, and some that come near."""
    assert DATA is not None
    told, gone = dropped(train, "decontaminate", against=[str(DATA / test)])
    held = {asked(row) for _, row in rows(Reading(DATA / test))}
    known = [row for _, row in rows(Reading(DATA / train)) if asked(row) in held]
    assert len(known) == equal and {row.origin for row in known} <= {row.origin for row in gone}
    assert len(told) == dropped_rows and all(decision.other is not None for decision in told)


def asked(row: Row) -> str:
    """What a row asks, without case and spaces."""
    return normalised(row.texts()[0])


def fields(path: Path) -> list[dict[str, Any]]:
    """The records of a file."""
    return [record.fields for record in read(path)]
