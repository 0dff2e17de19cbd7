"""Labelled texts as ids: the tokenizer's own, pairs where it knows them, and never a control."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import processors
from transformers import AutoTokenizer

from tests.tiny import save_tokenizer, tokenizer_json
from tunesmith.core.errors import DataError, IntegrityError
from tunesmith.core.rows import Chat, Labelled, Message, Origin
from tunesmith.model import plain, render
from tunesmith.model.tokenizer import Tokenizer

Tiny = Callable[[str], Path]


def row(*given: str) -> Labelled:
    return Labelled(given=given, labels=("a",), origin=Origin("rows.jsonl", 4))


def ids(tokenizer: Tokenizer, *given: str) -> list[int]:
    return list(plain.encode(row(*given), tokenizer).sequences[0].ids)


def test_an_encoders_pair_is_written_as_its_tokenizer_writes_pairs(tiny: Tiny) -> None:
    tokenizer, theirs = Tokenizer.load(tiny("bert")), AutoTokenizer.from_pretrained(tiny("bert"))
    assert ids(tokenizer, "The parcel") == theirs("The parcel")["input_ids"]
    found = plain.encode(row("The parcel", "is late"), tokenizer).sequences[0]
    wanted = theirs("The parcel", "is late", return_token_type_ids=True)
    assert list(found.ids) == wanted["input_ids"]
    assert list(found.segments) == wanted["token_type_ids"]
    assert found.supervised == 0


def test_a_causal_pair_is_two_lines_behind_what_its_tokenizer_begins_with(tmp_path: Path) -> None:
    engine = Engine.from_str(tokenizer_json())
    start = [("<|endoftext|>", engine.token_to_id("<|endoftext|>"))]
    engine.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B", special_tokens=start
    )
    save_tokenizer(tmp_path, engine.to_str(), None)
    tokenizer, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ids(tokenizer, "The parcel") == theirs("The parcel")["input_ids"]
    assert ids(tokenizer, "The parcel", "is late") == theirs("The parcel\nis late")["input_ids"]
    assert ids(tokenizer, "x")[0] == start[0][1]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_no_text_becomes_a_control_token(kind: str, tiny: Tiny) -> None:
    tokenizer = Tokenizer.load(tiny(kind))
    around = ids(tokenizer, "a")
    for text in tokenizer.structural:
        found = ids(tokenizer, f"a{text}b {text}")
        inside = [i for i in found if i in tokenizer.structural.values()]
        unknown = tokenizer.id_of("unk_token")
        allowed = [i for i in around if i in tokenizer.structural.values()]
        assert [i for i in inside if i != unknown] == allowed


def test_a_row_without_a_token_is_refused_by_its_place(tiny: Tiny) -> None:
    with pytest.raises(DataError, match="rows.jsonl:4: the text is empty"):
        plain.encode(row(""), Tokenizer.load(tiny("llama")))


def test_a_tokenizer_without_talk_is_saved_and_read_again_and_refuses_talk(
    tiny: Tiny, tmp_path: Path
) -> None:
    silent = Path(shutil.copytree(tiny("bert"), tmp_path / "silent"))
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    tokenizer, tmp_path = Tokenizer.load(silent), tmp_path / "saved"
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.digest == tokenizer.digest
    assert again.template_digest == tokenizer.template_digest == ""
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert ids(again, "The parcel", "is late") == ids(tokenizer, "The parcel", "is late")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("The parcel", "is late")["input_ids"] == ids(again, "The parcel", "is late")
    chat = Chat((Message("user", "a"), Message("assistant", "b")))
    with pytest.raises(IntegrityError, match="nothing could end an answer.*classify"):
        render.encode(chat, again)
