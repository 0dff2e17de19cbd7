"""The decoder says what transformers' own `generate` says, row by row, whatever the batch."""

import copy
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny import KINDS, tiny_model
from tunesmith.core.errors import DataError
from tunesmith.model import slots
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.generate import Answer, Decoder, Request, Sampling, answers
from tunesmith.model.load import load_model
from tunesmith.model.tokenizer import Tokenizer

LENGTHS = (3, 17, 1, 40, 9, 26, 5)
FAST = [kind for kind in KINDS if kind != "falcon"]


@dataclass
class Tiny:
    """A model with the tokenizer that belongs to it."""

    model: Any
    tokenizer: Tokenizer

    def prompts(self, lengths: Iterable[int] = LENGTHS) -> list[tuple[int, ...]]:
        draw = random.Random(1)
        return [tuple(draw.randrange(5, 480) for _ in range(n)) for n in lengths]

    def decoded(
        self,
        prompts: Iterable[tuple[int, ...]],
        *,
        rows: int = 4,
        tokens: int = 24,
        fast: bool = True,
        **sampling: Any,
    ) -> dict[str, Answer]:
        decoder = Decoder(
            self.model, self.tokenizer, rows=rows, sampling=Sampling(**sampling), fast=fast
        )
        wanted = [Request(str(i), p, tokens, seed=i) for i, p in enumerate(prompts)]
        return {answer.key: answer for answer in answers(decoder, wanted)}

    def generated(self, prompt: tuple[int, ...], tokens: int = 24) -> list[int]:
        """transformers' greedy continuation, its stop token left out."""
        ids = torch.tensor([prompt])
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=list(self.tokenizer.stop_ids),
            pad_token_id=0,
        )
        said = output[0, len(prompt) :].tolist()
        return said[:-1] if said[-1] in self.tokenizer.stop_ids else said


def loaded(folder: Path) -> Tiny:
    base = resolve(ModelSpec(source=str(folder)))
    return Tiny(load_model(base), Tokenizer.load(folder))


@pytest.fixture
def made(tiny: Callable[[str], Path]) -> Callable[[str], Tiny]:
    return lambda kind: loaded(tiny(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_transformers_greedy(kind: str, made: Callable[[str], Tiny]) -> None:
    model = made(kind)
    prompts = model.prompts()
    found = model.decoded(prompts)
    for number, prompt in enumerate(prompts):
        assert list(found[str(number)].ids) == model.generated(prompt), LENGTHS[number]


@pytest.mark.parametrize("kind", FAST)
def test_the_fast_path_is_taken(kind: str, made: Callable[[str], Tiny]) -> None:
    assert isinstance(slots.chosen(made(kind).model, 4), slots.Slots)


def test_a_model_outside_the_attention_interface_takes_the_reference(
    made: Callable[[str], Tiny],
) -> None:
    assert isinstance(slots.chosen(made("falcon").model, 4), slots.Alone)


@pytest.mark.parametrize("kind", FAST)
def test_fast_logits_are_the_references(kind: str, made: Callable[[str], Tiny]) -> None:
    """In float64 to 1e-10, with rows that enter and leave between passes."""
    model = made(kind).model.double()
    prompts = made(kind).prompts()
    with torch.no_grad():
        fast, slow = (life(rows, prompts) for rows in (slots.Slots(model, 6), slots.Alone(model)))
    assert (fast - slow).abs().max() <= 1e-10
    assert slow.abs().max() > 0.1


def life(rows: Any, prompts: list[tuple[int, ...]]) -> torch.Tensor:
    """Every logit of a fixed coming and going."""
    found = [rows.enter(prompts[:3]), rows.extend([7, 8, 9])]
    rows.drop(0)
    found += [rows.extend([10, 11]), rows.enter(prompts[3:6]), rows.extend([12, 13, 14, 15, 16])]
    rows.drop(4)
    rows.drop(1)
    found += [rows.enter(prompts[6:7]), *(rows.extend([20 + i, 30, 40, 50]) for i in range(5))]
    return torch.cat(found)


@pytest.mark.parametrize(
    ("kind", "window"),
    [
        ("MistralConfig", {"sliding_window": 6}),
        (
            "Gemma3TextConfig",
            {
                "sliding_window": 6,
                "layer_types": ["sliding_attention", "full_attention"],
                "head_dim": 8,
            },
        ),
    ],
)
def test_a_sliding_window_stays_one(kind: str, window: dict[str, Any]) -> None:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, kind)(
        vocab_size=480,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        **window,
    )
    model = AutoModelForCausalLM.from_config(config).eval().double()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    draw = random.Random(1)
    prompts = [tuple(draw.randrange(5, 480) for _ in range(n)) for n in LENGTHS]
    with torch.no_grad():
        assert isinstance(slots.chosen(model, 6), slots.Slots)
        fast, slow = (life(rows, prompts) for rows in (slots.Slots(model, 6), slots.Alone(model)))
    assert (fast - slow).abs().max() <= 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_alone_is_batched(kind: str, made: Callable[[str], Tiny]) -> None:
    """T-PAD: the rows beside a row change nothing."""
    model = made(kind)
    prompts = model.prompts()
    together = model.decoded(prompts, rows=7)
    for number, prompt in enumerate(prompts):
        (alone,) = model.decoded([prompt], rows=1).values()
        assert alone.ids == together[str(number)].ids


def test_a_broken_row_spoils_no_other(made: Callable[[str], Tiny]) -> None:
    """A row of NaN leaves its slot, or moves to another: who comes next inherits nothing."""
    model = made("llama").model
    rows = slots.Slots(model, 2)
    with torch.no_grad():
        rows.enter([(5, 6, 7, 8, 9), (9, 8, 7, 6)])
        for layer in rows.layers:
            layer.keys[1].fill_(torch.nan)
            layer.values[1].fill_(torch.nan)
        rows.drop(0)
        rows.enter([(5, 6)])
        assert torch.isfinite(rows.extend([7, 8])[1]).all()
        rows.drop(0)
        rows.drop(0)
        rows.enter([(5, 6)])
        assert torch.isfinite(rows.extend([7])).all()


def test_sampling_does_not_depend_on_the_rows_beside(made: Callable[[str], Tiny]) -> None:
    model = made("llama")
    prompts = model.prompts()
    settings = {"temperature": 1.0, "top_p": 0.9}
    together = model.decoded(prompts, rows=7, **settings)
    few = model.decoded(prompts, rows=2, **settings)
    assert {k: a.ids for k, a in together.items()} == {k: a.ids for k, a in few.items()}
    greedy = model.decoded(prompts)
    assert any(together[key].ids != greedy[key].ids for key in greedy)


def test_sampling_follows_the_models_chances() -> None:
    from tunesmith.model.generate import _Row, choose

    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = [_Row(Request(str(i), (1,), 1), random.Random(i)) for i in range(4000)]
    logits = chances.log().expand(4000, 4)
    drawn = torch.tensor(choose(logits, rows, Sampling(temperature=1.0)))
    assert torch.allclose(torch.bincount(drawn, minlength=4) / 4000, chances, atol=0.03)
    nucleus = torch.tensor(choose(logits, rows, Sampling(temperature=1.0, top_p=0.7)))
    shares = torch.bincount(nucleus, minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.03)


def test_training_mode_is_off_inside_and_restored(tmp_path: Path) -> None:
    """T-MODE: with dropout one half, generation is the same twice, and leaves no trace."""
    folder = tiny_model(
        "gpt2", tmp_path / "dropping", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5
    )
    model = loaded(folder)
    prompts = model.prompts()
    quiet = model.decoded(prompts)
    model.model.train()
    model.model.transformer.h[0].eval()
    before = [module.training for module in model.model.modules()]
    assert model.decoded(prompts) == quiet == model.decoded(prompts)
    assert [module.training for module in model.model.modules()] == before
    assert model.model.config._attn_implementation != slots.NAME


def test_an_answer_ends_by_stop_token_limit_or_text(made: Callable[[str], Tiny]) -> None:
    model = made("llama")
    (prompt,) = model.prompts([12])
    long = model.decoded([prompt], tokens=30)["0"]
    assert not long.stopped and long.tokens == 30 == len(long.ids)

    cut = long.ids.index(long.ids[7])
    stopping = copy.copy(model.tokenizer)
    stopping.__dict__["stop_ids"] = (long.ids[7],)
    found = Tiny(model.model, stopping).decoded([prompt], tokens=30)["0"]
    assert found.stopped and found.ids == long.ids[:cut] and found.tokens == cut + 1
    assert model.decoded([prompt], tokens=1)["0"].ids == long.ids[:1]

    said = [model.tokenizer.decode([token]) for token in long.ids]
    text = next(piece for piece in said if piece.strip().isascii() and piece.strip().isalpha())
    ended = model.decoded([prompt], tokens=30, stop=[text])["0"]
    assert ended.stopped and ended.text == long.text[: long.text.index(text)]


def test_rows_come_and_go_one_by_one(made: Callable[[str], Tiny]) -> None:
    model = made("qwen3")
    prompts = model.prompts()
    decoder = Decoder(model.model, model.tokenizer, rows=2)
    assert decoder.free == 2
    decoder.admit(Request("a", prompts[0], 50))
    decoder.step()
    decoder.admit(Request("b", prompts[1], 3))
    assert decoder.free == 0
    with pytest.raises(ValueError, match="no row is free"):
        decoder.admit(Request("c", prompts[2], 5))
    finished = [answer for _ in range(3) for answer in decoder.step()]
    assert [answer.key for answer in finished] == ["b"]
    given_up = decoder.retire("a")
    assert given_up is not None and not given_up.stopped and decoder.free == 2
    assert given_up.ids == model.decoded([prompts[0]], rows=1)["0"].ids[: len(given_up.ids)]
    assert decoder.retire("a") is None


def test_a_prompt_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = loaded(tiny_model("gpt2", tmp_path / "short", n_positions=16))
    with pytest.raises(DataError, match="16 tokens and this model reads at most 16"):
        model.decoded([tuple(range(5, 21))])
    with pytest.raises(DataError, match="empty"):
        model.decoded([()])
    (near,) = model.decoded([tuple(range(5, 17))]).values()
    assert len(near.ids) == 4 and not near.stopped
