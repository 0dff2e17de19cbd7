"""Penalties on what was said before, against transformers' own logits processors."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM
from transformers.generation import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from tests.trained import base_of
from tunesmith.model import repeats
from tunesmith.model.generate import Decoder, Request, Sampling, answers
from tunesmith.model.load import load_model
from tunesmith.model.tokenizer import Tokenizer

Tiny = Callable[[str], Path]


@pytest.mark.parametrize("seed", range(5))
def test_logits_are_those_of_transformers(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    said = torch.randint(3, (40,), generator=draw)
    logits = torch.randn(50, generator=draw)
    for size in (1, 2, 3, 7):
        wanted = NoRepeatNGramLogitsProcessor(size)(said[None], logits.clone()[None])[0]
        found = logits.clone()
        repeats.forbid(found, said.tolist(), size)
        assert torch.equal(found, wanted), size
        assert bool(torch.isinf(found).any()) or size > 2
    wanted = RepetitionPenaltyLogitsProcessor(1.3)(said[None], logits.clone()[None])[0]
    found = logits.clone()
    repeats.penalise(found, said.tolist(), 1.3)
    assert torch.equal(found, wanted)


def test_too_little_was_said_to_be_said_again() -> None:
    logits = torch.zeros(9)
    repeats.forbid(logits, [3, 3], 4)
    repeats.forbid(logits, [], 2)
    assert not torch.isinf(logits).any()


@pytest.mark.parametrize(
    "settings", [{"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.5}], ids=str
)
def test_answers_are_those_of_generate(settings: dict[str, float], tiny: Tiny) -> None:
    base = base_of(tiny("llama"))
    model, tokenizer = load_model(base), Tokenizer.load(base.folder)
    asked = [(5, 9, 5, 7), (11, 4, 4, 4, 4, 8, 30), (2, 3)]
    plain = AutoModelForCausalLM.from_pretrained(base.folder).eval()
    decoder = Decoder(model, tokenizer, rows=2, sampling=Sampling.model_validate(settings))
    requests = [Request(str(number), ids, 12) for number, ids in enumerate(asked)]
    found = {answer.key: answer.ids for answer in answers(decoder, requests)}
    free = Decoder(model, tokenizer, rows=3)
    loose = {answer.key: answer.ids for answer in answers(free, requests[:1])}
    for number, ids in enumerate(asked):
        given = plain.generate(
            torch.tensor([ids]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=list(tokenizer.stop_ids),
            pad_token_id=0,
            **settings,
        )[0, len(ids) :].tolist()
        assert list(found[str(number)]) == [i for i in given if i not in tokenizer.stop_ids]
    assert loose["0"] != found["0"]


def test_choices_have_no_part_in_it() -> None:
    with pytest.raises(ValidationError, match="leave them out"):
        Sampling(choices=["a", "b"], repetition_penalty=1.2)
