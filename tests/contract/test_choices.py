"""A closed set of answers: only they are given, as the model ranks them, in few passes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny import KINDS, tiny_model
from tests.trained import base_of
from tunesmith.core.errors import DataError
from tunesmith.core.rows import Chat, Message
from tunesmith.model import tree
from tunesmith.model.generate import Decoder, Request, Sampling, answers
from tunesmith.model.load import load_model
from tunesmith.model.render import encode, encode_prompt
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.trie import Trie, closed, grown

Tiny = Callable[[str], Path]
FAST = [kind for kind in KINDS if kind != "falcon"]
LABELS = (
    "card",
    "card lost",
    "card lost abroad",
    "cash",
    "order late today",
    "order late and wrong",
    "order refused",
    "none of these",
)
PROMPTS = tuple(
    Chat((Message("user", text),))
    for text in ("Where is it?", "I am in France, my parcel is late", "a", "1 2 3 4 5 6 7 8")
)


@pytest.fixture
def made(tiny: Tiny) -> Callable[[str], tuple[Any, Tokenizer, Trie]]:
    def model(kind: str) -> tuple[Any, Tokenizer, Trie]:
        tokenizer = Tokenizer.load(tiny(kind))
        return load_model(base_of(tiny(kind))), tokenizer, closed(LABELS, tokenizer)

    return model


def ids_of(prompts: Sequence[Chat], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    return [encode_prompt(prompt, tokenizer) for prompt in prompts]


def test_a_choice_is_tokenised_as_training_does(tiny: Tiny) -> None:
    """To the id, whatever was said before, and with the end of turn that training teaches."""
    tokenizer = Tokenizer.load(tiny("llama"))
    trie = closed(LABELS, tokenizer)
    before = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"))
    for text, path in zip(LABELS, trie.paths, strict=True):
        row = Chat((*before, Message("user", "c"), Message("assistant", text)))
        (sequence,) = encode(row, tokenizer).sequences
        prompt = encode_prompt(row.prompt(), tokenizer)
        assert sequence.ids[: len(prompt) + len(path)] == (*prompt, *path)
        assert path[-1] in tokenizer.stop_ids and path.count(path[-1]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_gives_what_a_pass_for_each_label_gives(
    kind: str, made: Callable[[str], tuple[Any, Tokenizer, Trie]]
) -> None:
    model, tokenizer, trie = made(kind)
    assert tree.works(model) == (kind in FAST)
    for prompt in ids_of(PROMPTS, tokenizer):
        with torch.no_grad():
            expected = tree.one_by_one(model, prompt, trie)
        assert (tree.logps(model, prompt, trie) - expected).abs().max() <= 1e-5
        assert expected.max() < -1 and expected.std() > 0.1


@pytest.mark.parametrize("kind", FAST)
def test_the_fast_path_is_exact(
    kind: str, made: Callable[[str], tuple[Any, Tokenizer, Trie]]
) -> None:
    model, tokenizer, trie = made(kind)
    model.double()
    # RMSNorm rounds to single precision inside.
    bound = 1e-10 if kind in ("gpt2", "phi") else 1e-5
    with torch.no_grad():
        for prompt in ids_of(PROMPTS, tokenizer):
            fast, slow = (path(model, prompt, trie) for path in (tree.together, tree.one_by_one))
            assert (fast - slow).abs().max() <= bound


def test_an_adapter_takes_the_fast_path_too(
    made: Callable[[str], tuple[Any, Tokenizer, Trie]],
) -> None:
    from tunesmith.train.methods.lora import Lora

    plain, tokenizer, trie = made("llama")
    model = Lora(rank=4).apply(plain.requires_grad_(False), 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1)
    assert tree.works(model)
    (prompt, *_) = ids_of(PROMPTS, tokenizer)
    with torch.no_grad():
        expected = tree.one_by_one(model, prompt, trie)
    assert (tree.logps(model, prompt, trie) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("window", [3, 6])
def test_a_sliding_window_stays_one(window: int) -> None:
    import transformers

    config = transformers.MistralConfig(
        vocab_size=480,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=window,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    paths = ((5, 6, 7, 8, 2), (5, 6, 9, 2), (5, 2), (11, 12, 13, 2))
    trie = grown([str(path) for path in paths], paths)
    assert tree.works(model)
    for size in (1, 4, 12):
        prompt = tuple(range(20, 20 + size))
        with torch.no_grad():
            expected = tree.one_by_one(model, prompt, trie)
        assert (tree.logps(model, prompt, trie) - expected).abs().max() <= 1e-5


def test_another_models_attention_is_left_as_it_was(
    made: Callable[[str], tuple[Any, Tokenizer, Trie]],
) -> None:
    model, tokenizer, trie = made("llama")
    (prompt, *_) = ids_of(PROMPTS, tokenizer)
    model.train()
    tree.logps(model, prompt, trie)
    assert model.training and model.config._attn_implementation != tree.NAME


def test_two_texts_of_the_same_tokens_are_refused(tiny: Tiny) -> None:
    with pytest.raises(DataError, match="cannot tell them apart"):
        grown(("one", "two"), ((5, 2), (5, 2)))
    with pytest.raises(DataError, match="cannot be a choice"):
        closed(("yes", ""), Tokenizer.load(tiny("llama")))


def decoded(model: Any, tokenizer: Tokenizer, **sampling: Any) -> dict[str, Any]:
    decoder = Decoder(model, tokenizer, rows=3, sampling=Sampling(**sampling))
    wanted = [Request(str(i), ids, 2, seed=i) for i, ids in enumerate(ids_of(PROMPTS, tokenizer))]
    return {answer.key: answer for answer in answers(decoder, wanted)}


def greedy(model: Any, prompt: tuple[int, ...], trie: Trie) -> str:
    """The reference: the likeliest of the tokens that may follow, a whole pass for each."""
    node, said = 0, list[int]()
    while node not in trie.ends:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0, -1]
        said.append(max(trie.children[node], key=lambda token: logits[token]))
        node = trie.children[node][said[-1]]
    return trie.texts[trie.ends[node]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_gives_the_greedy_choice(
    kind: str, made: Callable[[str], tuple[Any, Tokenizer, Trie]]
) -> None:
    model, tokenizer, trie = made(kind)
    found = decoded(model, tokenizer, choices=list(LABELS))
    for number, prompt in enumerate(ids_of(PROMPTS, tokenizer)):
        assert found[str(number)].text == greedy(model, prompt, trie)
        assert found[str(number)].stopped


def test_sampled_choices_are_choices_too(
    made: Callable[[str], tuple[Any, Tokenizer, Trie]],
) -> None:
    model, tokenizer, _ = made("llama")
    seen = {
        answer.text
        for top_p in (0.5, 0.9, 1.0)
        for answer in decoded(
            model, tokenizer, choices=list(LABELS), temperature=1.5, top_p=top_p
        ).values()
    }
    assert seen <= set(LABELS) and len(seen) > 2


def test_what_is_decided_needs_no_pass(
    made: Callable[[str], tuple[Any, Tokenizer, Trie]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that differ in their first token: the prompt's pass decides, and none follows."""
    model, tokenizer, _ = made("llama")
    decoder = Decoder(
        model, tokenizer, rows=4, sampling=Sampling(choices=["late and wrong", "Name three"])
    )
    for number, ids in enumerate(ids_of(PROMPTS, tokenizer)):
        decoder.admit(Request(str(number), ids, 50))
    assert len(decoder.step()) == 4 and decoder.free == 4


def test_a_prompt_without_room_for_the_longest_choice_is_refused(tmp_path: Path) -> None:
    folder = tiny_model("gpt2", tmp_path / "short", n_positions=40)
    tokenizer = Tokenizer.load(folder)
    decoder = Decoder(
        load_model(base_of(folder)), tokenizer, sampling=Sampling(choices=list(LABELS))
    )
    depth = closed(LABELS, tokenizer).depth
    assert decoder.refusal((5,) * (40 - depth)) is None
    assert "at most 40" in str(decoder.refusal((5,) * (41 - depth)))
