"""Answers by parts made for the time of answering are those of the model's own forward pass."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contract.test_methods import MEMBERS, loaded, shaken
from tunesmith.model import decode, slots
from tunesmith.model.generate import Decoder, Request, Sampling, answers
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train import optimiser
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.lora import Lora

Tiny = Callable[[str], Path]
KINDS = ("llama", "llama-untied", "qwen3", "gemma", "gpt2", "phi")
WHOLE = {"llama": 4, "llama-untied": 4, "qwen3": 4, "gemma": 2}
"""Joined products of two layers where attention, and feed-forward parts by SiLU, are known."""


def prompts() -> list[tuple[int, ...]]:
    """The first five begin alike, the last two like nothing else."""
    draw = random.Random(1)
    begin, *ends = ([draw.randrange(5, 480) for _ in range(n)] for n in (11, 3, 17, 1, 9, 2, 5, 14))
    return [(*begin, *end) for end in ends[:5]] + [tuple(end) for end in ends[5:]]


def life(rows: Any) -> torch.Tensor:
    """Every logit of a fixed coming and going, of rows that begin alike and rows that do not."""
    asked = prompts()
    found = [rows.enter(asked[:3]), rows.extend([7, 8, 9])]
    rows.drop(0)
    found += [rows.extend([10, 11]), rows.enter(asked[3:5]), rows.enter(asked[5:])]
    found += [rows.extend([12, 13, 14, 15, 16, 17])]
    rows.drop(4)
    rows.drop(1)
    found += [rows.extend([20 + i, 30, 40, 50]) for i in range(5)]
    return torch.cat(found)


def assert_same(model: Any) -> slots.Slots:
    """The same logits by slots with parts as by the reference; the slots are returned."""
    ready = slots.Slots(model, 6, least=1)
    with torch.no_grad(), evaluating(model):
        given, wanted = life(ready), life(slots.Alone(model))
    assert wanted.abs().max() > 0.1
    assert (given - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    return ready


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_model_with_parts_answers_like_without(kind: str, tiny: Tiny) -> None:
    ready = assert_same(loaded(tiny(kind)).eval())
    assert ready.parts is not None
    whole = sum(len(product.sizes) > 1 for product in ready.parts.products)
    assert whole == WHOLE.get(kind, 0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", [name for name, each in MEMBERS.items() if each.moves])
def test_a_tuned_model_with_parts_answers_like_without(name: str, kind: str, tiny: Tiny) -> None:
    policy = shaken(MEMBERS[name], loaded(tiny(kind)))
    ready = assert_same(policy.model)
    assert ready.parts is not None and ready.parts.products
    with policy.reference() as before:
        assert_same(before.model)


def lora(folder: Path) -> Any:
    return shaken(Lora(rank=4), loaded(folder)).model


def test_a_plain_adapter_is_folded_into_whole_parts(tiny: Tiny) -> None:
    ready = assert_same(lora(tiny("llama")))
    assert ready.parts is not None
    assert sum(len(product.sizes) > 1 for product in ready.parts.products) == 4


def stepped(model: Any) -> None:
    """One step of the optimiser that training uses, whose writing torch does not count."""
    policy = Policy(model, None)
    optimizer = optimiser.adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    for parameter in policy.trainable():
        parameter.grad = torch.ones_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    policy.weights_moved()


@pytest.mark.parametrize("change", ["a step of training", "the adapter switched off"])
def test_the_copy_follows_the_model(change: str, tiny: Tiny) -> None:
    model = lora(tiny("llama"))
    ready = slots.Slots(model, 2, least=1)
    with torch.no_grad():
        ready.enter([(5, 6, 7)])
        ready.drop(0)
        first = ready.parts
        assert first is not None and first.current
        ready.enter([(5, 6, 7)])
        ready.drop(0)
        assert ready.parts is first
        if change == "a step of training":
            stepped(model)
        else:
            model.disable_adapter_layers()
        given = ready.enter([(5, 6, 7)])
        wanted = slots.Alone(model).enter([(5, 6, 7)])
    assert ready.parts is not first
    assert (given - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def said(model: Any, tokenizer: Tokenizer, *, fast: bool, rows: int, **sampling: Any) -> Any:
    decoder = Decoder(model, tokenizer, rows=rows, sampling=Sampling(**sampling), fast=fast)
    asked = [Request(str(at), ids, 6 + 3 * at, seed=at) for at, ids in enumerate(prompts())]
    found = {answer.key: answer.ids for answer in answers(decoder, asked)}
    return found, decoder._rows


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("after", [0, 5])
def test_answers_are_the_references_greedy_and_sampled(
    settings: dict[str, Any], after: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "AFTER", after)
    model, tokenizer = lora(tiny("llama")), Tokenizer.load(tiny("llama"))
    wanted, _ = said(model, tokenizer, fast=False, rows=5, **settings)
    for rows in (5, 7):
        given, used = said(model, tokenizer, fast=True, rows=rows, **settings)
        assert used.parts is not None
        assert given == wanted


def test_few_rows_or_a_large_or_double_model_have_no_copy(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = lora(tiny("llama")), Tokenizer.load(tiny("llama"))
    monkeypatch.setattr(slots, "AFTER", 1000)
    _, used = said(model, tokenizer, fast=True, rows=5)
    assert used.parts is None  # a few short answers are too few
    monkeypatch.setattr(slots, "AFTER", 0)
    _, used = said(model, tokenizer, fast=True, rows=slots.LEAST - 1)
    assert used.parts is None and used.least == slots.LEAST
    assert not decode.possible(loaded(tiny("llama")).double())
    monkeypatch.setattr(decode, "LARGEST", 1000)
    _, used = said(model, tokenizer, fast=True, rows=5)
    assert used.parts is None and used.least is None


def test_parts_that_answer_otherwise_are_not_taken(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = decode.feed_forward
    monkeypatch.setattr(decode, "feed_forward", lambda *given: 1.01 * right(*given))
    ready = assert_same(lora(tiny("llama")))
    assert ready.parts is None and ready.least is None


def test_every_method_is_looked_at() -> None:
    assert {each.kind for each in MEMBERS.values()} == set(Method.members())
