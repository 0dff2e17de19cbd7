"""Names by a model of the user's: read from safetensors, spans to the character, faults refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_encoder
from tunesmith.core.errors import IntegrityError
from tunesmith.core.rows import Origin, Text
from tunesmith.data.audits.pii import Pii
from tunesmith.model.tagger import Tagger, joined

LABELS = ("O", "B-PER", "I-PER")


def ner(folder: Path, wanted: str) -> Path:
    """A tiny BERT whose head calls one word a person: it reads the word's own embedding."""
    tiny_encoder("bert", folder)
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the cat and the dog", return_tensors="pt")
    with torch.no_grad():
        states = model(**ids).last_hidden_state[0]
    place = tokenizer.convert_ids_to_tokens(ids["input_ids"][0]).index(wanted)
    rest = torch.cat([states[:place], states[place + 1 :]])
    ordered = torch.cat([states[place : place + 1], rest])
    wish = torch.tensor([1.0] + [-1.0] * len(rest))
    joint = torch.cat([ordered, torch.ones(len(ordered), 1)], 1)
    found = torch.linalg.lstsq(joint, wish[:, None]).solution[:, 0]
    tensors = {f"bert.{name}": t for name, t in load_file(folder / "model.safetensors").items()}
    weight = torch.stack([-found[:-1], found[:-1], torch.zeros_like(found[:-1])])
    bias = torch.stack([-found[-1], found[-1], torch.tensor(-99.0)])
    tensors |= {"classifier.weight": weight.contiguous(), "classifier.bias": bias}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["BertForTokenClassification"]}
    config |= {"id2label": {str(i): label for i, label in enumerate(LABELS)}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_tokens_are_joined_to_spans() -> None:
    tags = ["O", "B-PER", "I-PER", "B-PER", "LOC", "LOC", "O"]
    places = [(0, 0), (0, 3), (4, 7), (8, 9), (10, 12), (12, 14), (15, 16)]
    assert list(joined(tags, places)) == [("PER", 0, 7), ("PER", 8, 9), ("LOC", 10, 14)]


def test_names_are_found_and_masked(tmp_path: Path) -> None:
    text = "the cat and the dog"
    folder = ner(tmp_path / "ner", "cat")
    assert Tagger(folder).spans(text) == [("PER", 4, 7)]
    rows = [Text(text, origin=Origin("rows.txt", 1))]
    (found,) = Pii(names=str(folder)).inspect({"train": rows})
    assert found.what == "rows of train with PER (by model): 1" and "cat" not in found.evidence
    assert list(Pii().inspect({"train": rows})) == []


def test_a_model_that_labels_no_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="labels no tokens"):
        Tagger(tiny_encoder("bert", tmp_path / "plain"))


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = tiny_encoder("bert", tmp_path / "ner")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(IntegrityError, match="pytorch_model.bin"):
        Tagger(folder)
