"""Real data sets: found in the right format, and trained on exactly what people answered."""

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.records import IGNORE
from tunesmith.core.rows import Chat
from tunesmith.data.formats.base import Format
from tunesmith.data.source import Reading, rows
from tunesmith.model.render import encode
from tunesmith.model.tokenizer import Tokenizer

DATA = next(
    (p / "shared/data" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None
)
pytestmark = pytest.mark.skipif(
    DATA is None, reason="the data sets of the project (shared/data) are not beside this checkout"
)


def read(name: str, **stated: Any) -> tuple[str, list[Any]]:
    """The format of a data set and its rows."""
    assert DATA is not None
    reading = Reading(DATA / name, **stated)
    found = [row for _, row in rows(reading)]
    assert reading.format is not None
    return reading.format.kind, found


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("oasst_sample/threads.jsonl", "chat", 100),
        ("instruct_1100/sft_test.jsonl", "alpaca", 110),
        ("instruct_1100/prefs_test.jsonl", "preference", 110),
        ("persona_prefs/persona_test.jsonl", "preference", 1200),
        ("banking77/test.jsonl", "labelled", 3080),
        ("general_probes/wiki_text_27.jsonl", "text", 27),
    ],
)
def test_a_data_set_is_found_in_its_format(name: str, kind: str, count: int) -> None:
    found, read_rows = read(name)
    assert (found, len(read_rows)) == (kind, count)


def test_any_table_is_read_by_its_columns() -> None:
    columns = Format.members()["columns"](user="question", assistant="answer")  # type: ignore[call-arg]
    _, found = read("math_verifiable/svamp_test.jsonl", format=columns)
    assert len(found) == 300 and found[0].answer() == "51.0"


START = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)
"""What the bundled model's template writes where a conversation has no system turn."""


def stretches(chat: Chat, tokenizer: Tokenizer) -> list[tuple[bool, str]]:
    """The row from its ids and targets alone: trained and untrained text in turn."""
    sequence = encode(chat, tokenizer).sequences[0]
    trained = [False, *(target != IGNORE for target in sequence.targets[:-1])]
    marked = groupby(zip(trained, sequence.ids, strict=True), key=lambda pair: pair[0])
    return [(on, tokenizer.decode([i for _, i in ids], special=True)) for on, ids in marked]


def test_real_threads_train_every_answer_and_no_other_token(smollm2: Any) -> None:
    """T-MASK on people's own conversations, of up to several thousand tokens."""
    tokenizer = Tokenizer.load(smollm2.folder)
    answers = 0
    for chat in read("oasst_sample/threads.jsonl")[1]:
        expected, around = [], START
        for message in chat.messages:
            around += f"<|im_start|>{message.role}\n"
            if message.role == "assistant":
                expected += [(False, around), (True, f"{message.content}<|im_end|>")]
                around = "\n"
            else:
                around += f"{message.content}<|im_end|>\n"
        assert stretches(chat, tokenizer) == [*expected, (False, around)]
        answers += len(expected) // 2
    assert answers == 142
