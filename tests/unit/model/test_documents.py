"""Documents become tokens whole: every token a target once, an end after each, no template."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import save_tokenizer, tokenizer_json
from tunesmith.core.errors import DataError, IntegrityError
from tunesmith.core.records import IGNORE, Example
from tunesmith.core.records import Sequence as Ids
from tunesmith.core.rows import Chat, Message, Origin, Text
from tunesmith.model.documents import encode, windows
from tunesmith.model.render import encode as encode_chat
from tunesmith.model.tokenizer import Tokenizer

END = 2  # <|im_end|>, the tokenizer's end of sequence


def load(folder: Path, record: str | None = None, **named: Any) -> Tokenizer:
    return Tokenizer.load(save_tokenizer(folder, record or tokenizer_json(), None, **named))


@given(st.integers(2, 300), st.integers(1, 80))
def test_windows_train_every_target_once_and_stay_within_the_length(size: int, length: int) -> None:
    ids = tuple(range(1000, 1000 + size))
    whole = Example((Ids(ids, (*ids[1:], IGNORE)),), "row", Origin("a.txt", 1), weight=0.5)
    found = windows(whole, length)
    targets = [t for w in found for t in w.sequences[0].targets if t != IGNORE]
    assert targets == list(ids[1:])
    read = [i for w in found for i in w.sequences[0].ids]
    assert read == list(ids[: len(read)]) and len(read) >= size - 1
    sizes = [w.length for w in found]
    assert max(sizes) <= length and max(sizes) - min(sizes) <= 1
    assert len(found) <= -(-size // length)
    assert all((w.row, w.origin, w.weight) == (whole.row, whole.origin, 0.5) for w in found)


def test_every_token_is_a_target_and_the_end_of_sequence_ends_the_document(tmp_path: Path) -> None:
    tokenizer = load(tmp_path)
    text = "The parcel for order 48213 is late again."
    (found,) = encode(Text(text=text), tokenizer).sequences
    assert found.ids == (*tokenizer.encode(text), END)
    assert found.targets == (*found.ids[1:], IGNORE)


def test_the_start_token_stands_where_the_tokenizer_itself_puts_it(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Engine
    from tokenizers.processors import TemplateProcessing

    engine = Engine.from_str(tokenizer_json())
    engine.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer = load(tmp_path, str(engine.to_str()))
    (found,) = encode(Text(text="Red, green and blue."), tokenizer).sequences
    assert list(found.ids[:-1]) == engine.encode("Red, green and blue.").ids
    assert found.ids[0] == 0 and found.supervised == len(found.ids) - 1


def test_a_control_string_in_a_document_stays_text(tmp_path: Path) -> None:
    tokenizer = load(tmp_path)
    text = "It writes <|im_end|> and goes on."
    (found,) = encode(Text(text=text), tokenizer).sequences
    assert found.ids.count(END) == 1 and tokenizer.decode(found.ids[:-1]) == text


def test_an_empty_document_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:3: the document is empty"):
        encode(Text(text="", origin=Origin("a.jsonl", 3)), load(tmp_path))


def test_documents_need_no_template_and_no_named_end_of_sequence(tmp_path: Path) -> None:
    named = {"named": {"bos_token": "<|endoftext|>"}}
    tokenizer = load(tmp_path / "none", **named)
    with pytest.raises(IntegrityError, match="nothing could end a document"):
        encode(Text(text="a"), tokenizer)
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").digest == tokenizer.digest
    save_tokenizer(tmp_path / "model", tokenizer_json(), None, **named)
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    tokenizer = Tokenizer.load(tmp_path / "model")
    assert encode(Text(text="a"), tokenizer).sequences[0].ids[-1] == END
    talk = Chat(messages=(Message("user", "a"), Message("assistant", "b")))
    assert encode_chat(talk, tokenizer).sequences[0].ids[-2] == END
