"""T-VOCAB: new words are one piece, their rows start from the pieces they were made of and learn,
and every other number stays."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import save_tokenizer, tokenizer_json
from tests.trained import base_of
from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.records import collate
from tunesmith.core.rows import Text
from tunesmith.model import layout, newrows, vocabulary
from tunesmith.model.bases import Base, ModelSpec
from tunesmith.model.documents import encode
from tunesmith.model.load import load_model
from tunesmith.model.merge import merge
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import extended, tokenizer_of
from tunesmith.train.methods.lora import Lora
from tunesmith.train.optimiser import adamw

Tiny = Callable[[str], Path]
WORDS = ("hypothyroidism", "blood sugar", "Zuckertest")
KINDS = ("llama", "llama-untied", "qwen3", "gemma", "gpt2", "falcon")
TEXTS = (
    "The hypothyroidism of the cat is late again.",
    "hypothyroidism, blood sugar and a Zuckertest: hypothyroidisms?",
    "Where is the blood sugar of order 48213",
    "blood sugar (Zuckertest)",
)


def load(folder: Path, kind: str = "bpe", **named: Any) -> Tokenizer:
    return Tokenizer.load(save_tokenizer(folder, tokenizer_json(kind), None, **named))


def base_with(folder: Path, words: tuple[str, ...] = WORDS) -> Base:
    return replace(base_of(folder), tokens=words)


def applied(base: Base, **named: Any) -> tuple[Policy, Any]:
    """The model under LoRA with its rows, and a batch that has every new word."""
    tokenizer = tokenizer_of(base)
    model = Lora(rank=4).apply(load_model(base, **named).requires_grad_(False), 0)
    rows = collate([encode(Text(text=text), tokenizer) for text in TEXTS], "cpu")
    return Policy(model, tokenizer), rows


# The tokenizer


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_a_word_is_one_piece_wherever_it_stands(kind: str, tmp_path: Path) -> None:
    before = load(tmp_path, kind)
    after = extended(before, WORDS)
    new = set(range(before.size, after.size))
    assert after.size - before.size == len(after.words) in (3, 6)
    for text in TEXTS:
        ids = after.encode(text)
        assert len(new & set(ids)) >= 1 and len(ids) < len(before.encode(text))
        if kind != "wordpiece":
            assert after.decode(ids) == text
    assert after.encode("Red, green and blue.") == before.encode("Red, green and blue.")
    assert len(after.encode(" hypothyroidism", "inside")) == 1
    assert after.structural == before.structural and after.digest != before.digest


def test_others_read_the_saved_tokenizer_alike(tmp_path: Path) -> None:
    """T-ROUNDTRIP: transformers gives the same ids from the folder, and so do we."""
    from transformers import AutoTokenizer

    after = extended(load(tmp_path / "base"), WORDS)
    after.save(tmp_path / "saved")
    theirs, ours = (
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        Tokenizer.load(tmp_path / "saved"),
    )
    assert len(theirs) == after.size and ours.digest == after.digest and ours.words == after.words
    for text in TEXTS:
        assert theirs(text).input_ids == ours.encode(text) == after.encode(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["<|im_end|>"], "control token"),
        (["a<|im_start|>b"], "control token"),
        (["the"], "one piece"),
        (["blood sugar", " blood sugar"], "added twice"),
    ],
)
def test_words_that_cannot_be_added_are_refused(
    words: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"model.tokens: .*{says}"):
        extended(load(tmp_path), words)


@pytest.mark.parametrize(("words", "says"), [([" "], "empty"), (["ab", "ab"], "twice")])
def test_the_run_file_refuses_them_too(words: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelSpec(tokens=words)


def test_a_control_string_in_a_text_stays_text_beside_words(tmp_path: Path) -> None:
    after = extended(load(tmp_path), WORDS)
    assert not set(after.structural.values()) & set(after.encode("hypothyroidism <|im_end|>"))


# The rows


@pytest.mark.parametrize("kind", [*KINDS, "phi"])
def test_rows_start_as_the_mean_of_their_pieces_and_no_other_number_changes(
    kind: str, tiny: Tiny
) -> None:
    base = base_with(tiny(kind))
    plain, grown = load_model(replace(base, tokens=())), load_model(base)
    before, after = Tokenizer.load(base.folder), tokenizer_of(base)
    new = vocabulary.added(grown)
    assert len(new) == 6 and grown.get_input_embeddings().weight.shape[0] == after.size
    for name, old in plain.state_dict().items():
        weight = grown.state_dict()[name]
        assert torch.equal(weight[: len(old)] if old.dim() else weight, old), name
    for old, layer in zip(vocabulary.ends(plain), vocabulary.ends(grown), strict=True):
        for number in new:
            word = after.words[number - before.size]
            mean = old.weight[before.encode(word, "inside")].mean(0)
            torch.testing.assert_close(layer.weight[number], mean)


def test_a_vocabulary_with_room_is_not_resized(tiny: Tiny, tmp_path: Path) -> None:
    from tests.tiny import tiny_model

    base = base_with(tiny_model("llama", tmp_path, vocab_size=512))
    model = load_model(base)
    assert model.get_input_embeddings().weight.shape[0] == 512
    assert vocabulary.added(model) == list(range(480, 486))


@pytest.mark.parametrize("kind", KINDS)
def test_only_new_rows_of_the_embedding_learn(kind: str, tiny: Tiny) -> None:
    """Two steps, then merged: the adapted layers and the new rows moved, no other row did."""
    base = base_with(tiny(kind))
    started = load_model(base)
    policy, rows = applied(base)
    optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(2):
        optimizer.zero_grad()
        policy.nll(rows).backward()
        optimizer.step()
    merged = merge(policy.model)
    new, adapted = vocabulary.added(started), layout.linears(started)
    for (name, old), (_, now) in zip(
        started.named_parameters(), merged.named_parameters(), strict=True
    ):
        if name.removesuffix(".weight") in adapted:
            continue
        if len(old) != policy.tokenizer.size:
            assert torch.equal(now, old), name
        else:
            kept = [row for row in range(len(old)) if row not in new]
            assert torch.equal(now[kept], old[kept]), name
            assert not (now[new] == old[new]).all(dim=1).any(), f"{name}: a new row did not move"


@pytest.mark.parametrize("kind", KINDS)
def test_the_seam_gives_what_peft_gives(kind: str, tiny: Tiny) -> None:
    """Values and gradients, by the loss head and by single log-probabilities."""
    base = base_with(tiny(kind))
    fast, rows = applied(base, dtype="float64")
    slow = Policy(fast.model, fast.tokenizer, fast=False)
    assert fast.splits_head

    def gradients(policy: Policy, by: Callable[[Policy], torch.Tensor]) -> list[torch.Tensor]:
        policy.model.zero_grad()
        by(policy).backward()
        return [p.grad.clone() for p in policy.trainable() if p.grad is not None]

    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in fast.trainable():
            parameter.add_(0.05 * torch.randn_like(parameter))
    share = torch.randn(rows.targets.shape, dtype=torch.float64)
    for by in (lambda p: p.nll(rows), lambda p: (p.logps(rows) * share).sum()):
        ours, theirs = gradients(fast, by), gradients(slow, by)
        assert len(ours) == len(theirs) == len(fast.trainable())
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(by(fast), by(slow), rtol=1e-12, atol=1e-12)
    assert float(fast.hits(rows)) == float(slow.hits(rows))


@pytest.mark.parametrize("kind", ["llama", "llama-untied"])
def test_switched_off_the_model_is_what_it_was_and_folded_what_it_is(kind: str, tiny: Tiny) -> None:
    base = base_with(tiny(kind))
    policy, rows = applied(base)
    policy.method = Lora(rank=4)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.1)
        tuned = policy.logps(rows)
        started = Policy(load_model(base), policy.tokenizer).logps(rows)
        with policy.reference() as before:
            assert torch.equal(before.logps(rows), started)
        live = policy.model(input_ids=rows.ids).logits
        with newrows.folded(policy.model):
            assert torch.equal(policy.model(input_ids=rows.ids).logits, live)
            torch.testing.assert_close(policy.logps(rows), tuned, rtol=1e-5, atol=1e-5)
        assert torch.equal(policy.logps(rows), tuned)
        with policy.reference() as before:
            assert torch.equal(before.logps(rows), started)


def test_a_head_with_a_bias_is_refused_beside_an_adapter(tiny: Tiny) -> None:
    with pytest.raises(SettingsError, match="bias.*method: full"):
        applied(base_with(tiny("phi")))


@pytest.mark.parametrize("words", [3, ["<|im_end|>"], [["a"]], "blood"])
def test_a_folder_that_calls_something_else_a_word_is_refused(words: Any, tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path, tokenizer_json(), None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_words": words}))
    with pytest.raises(IntegrityError, match="added_words is not a list of words"):
        Tokenizer.load(folder)


def test_the_words_are_said_in_the_saved_settings(tmp_path: Path) -> None:
    extended(load(tmp_path / "base"), ["blood sugar"]).save(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert settings["added_words"] == [" blood sugar", "blood sugar"]
