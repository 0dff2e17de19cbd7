"""What a base in few bits promises: it is the same base in every use, and nothing moves it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rows import batch
from tests.tiny import tiny_model
from tests.trained import base_of, prepared, settings, trained
from tunesmith.core.errors import SettingsError
from tunesmith.model import heads, layout, quantise
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model
from tunesmith.model.merge import merge, merge_onto
from tunesmith.model.policy import Policy
from tunesmith.model.trained import load_trained
from tunesmith.train.methods.lora import Lora
from tunesmith.train.optimiser import adamw

Tiny = Callable[[str], Path]
METHODS = {
    "lora": Lora(rank=4),
    "rslora": Lora(rank=4, scaling="rslora"),
    "dora": Lora(rank=4, dora=True),
    "attention": Lora(rank=4, targets="attention"),
}
GOALS = [
    *((kind, goal) for kind in ("llama", "llama-untied", "qwen3") for goal in ("tokens", "labels")),
    ("bert", "labels"),
]
"""What is asked of which model: `sft` and `lm` both ask for tokens, `classify` for labels."""
CASES = [
    *((kind, goal, "lora") for kind, goal in GOALS),
    *((kind, goal, name) for kind, goal in (GOALS[0], GOALS[-1]) for name in list(METHODS)[1:]),
]


@pytest.fixture(params=(4, 8))
def bits(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str, Lora]:
    kind, goal, name = request.param
    return kind, goal, METHODS[name]


def policy_of(model: Any, goal: str, method: Lora | None = None) -> Policy:
    """The model under a method, with a head of three labels where labels are asked for; without
    dropout, so that equal means equal."""
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = 0.0
    head = None
    if goal == "labels":
        head = heads.fresh(
            heads.Meaning(("a", "b", "c"), "mean", False), layout.width(model), seed=0
        )
    return Policy(
        model if method is None else method.apply(model, 0), None, method=method, head=head
    )


def loss(policy: Policy, rows: Any) -> torch.Tensor:
    """What is trained."""
    if policy.head is None:
        return policy.nll(rows) / 20
    return torch.nn.functional.cross_entropy(policy.scores(rows), torch.tensor([0, 1, 2]))


def said(policy: Policy, rows: Any) -> torch.Tensor:
    """What the policy says of rows, after use rather than in training."""
    policy.model.eval()
    with torch.no_grad():
        return policy.logps(rows) if policy.head is None else policy.scores(rows)


def stepped(policy: Policy, rows: Any, steps: int = 3) -> Policy:
    """The policy after a few steps."""
    policy.model.train()
    optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(steps):
        optimizer.zero_grad()
        loss(policy, rows).backward()
        optimizer.step()
    optimizer.zero_grad()
    return policy


def frozen(model: Any) -> dict[str, torch.Tensor]:
    """Every number that must not move: what takes no gradient, and what the bits stand for."""
    found = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    return found | {f"{n} in floats": quantise.floats(m) for n, m in quantise.layers(model)}


ROWS = (9, 12, 7)


def test_it_learns_and_the_base_stays_to_the_bit(
    case: tuple[str, str, Lora], bits: Any, tiny: Tiny
) -> None:
    kind, goal, method = case
    policy = policy_of(load_model(base_of(tiny(kind), bits=bits)), goal, method)
    before, moving = frozen(policy.model), {n: p.detach().clone() for n, p in policy.named()}
    rows = batch(ROWS, 300)
    first = loss(policy, rows).detach()
    stepped(policy, rows)
    assert loss(policy, rows).detach() < first
    after = frozen(policy.model)
    assert before.keys() == after.keys() and len(list(quantise.layers(policy.model))) > 0
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name, parameter in policy.named():
        assert torch.equal(parameter, moving[name]) != parameter.requires_grad, name


def test_switched_off_it_is_the_base_in_bits(
    case: tuple[str, str, Lora], bits: Any, tiny: Tiny
) -> None:
    kind, goal, method = case
    base, rows = base_of(tiny(kind), bits=bits), batch(ROWS, 300)
    policy = stepped(policy_of(load_model(base), goal, method), rows)
    plain = Policy(load_model(base), None, head=policy.head)
    assert not torch.allclose(said(policy, rows), said(plain, rows), atol=1e-3)
    with policy.reference() as before:
        assert torch.equal(said(before, rows), said(plain, rows))


def test_saved_it_comes_back_to_the_bit_and_merged_within_1e_5(
    case: tuple[str, str, Lora], bits: Any, tiny: Tiny, tmp_path: Path
) -> None:
    kind, goal, method = case
    base, rows = base_of(tiny(kind), bits=bits), batch(ROWS, 300)
    policy = stepped(policy_of(load_model(base), goal, method), rows)
    wanted = said(policy, rows)
    method.save(policy.model, tmp_path)
    again = method.load(load_model(base).requires_grad_(False), tmp_path)
    assert torch.equal(said(Policy(again, None, head=policy.head), rows), wanted)
    plain = merge(policy.model)
    assert {type(m) for m in layout.linears(plain).values()} == {torch.nn.Linear}
    assert not hasattr(plain, "peft_config")
    found = said(Policy(plain, None, head=policy.head), rows)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_merging_onto_another_base_moves_it(bits: Any, tiny: Tiny) -> None:
    """Why the floats that the bits stand for are the default."""
    base, rows = base_of(tiny("llama"), bits=bits), batch(ROWS, 300)
    policy = stepped(policy_of(load_model(base), "tokens", Lora(rank=4)), rows)
    wanted = said(policy, rows)
    others = (load_model(base_of(tiny("llama"))), load_model(base))
    moved = [said(Policy(merge_onto(other, policy.model), None), rows) for other in others]
    assert all((found - wanted).abs().max() > 1e-3 for found in moved)
    assert torch.equal(said(policy, rows), wanted), "the trained model is left as it is"


def gradients(policy: Policy, rows: Any) -> torch.Tensor:
    policy.model.train()
    loss(policy, rows).backward()
    found = torch.cat([p.grad.flatten().clone() for p in policy.trainable() if p.grad is not None])
    for parameter in policy.trainable():
        parameter.grad = None
    return found


def test_an_evaluation_in_between_leaves_the_next_gradient_alone(
    case: tuple[str, str, Lora], bits: Any, tiny: Tiny
) -> None:
    kind, goal, method = case
    rows = batch(ROWS, 300)
    model = load_model(base_of(tiny(kind), bits=bits))
    policy = stepped(policy_of(model, goal, method), rows)
    before = gradients(policy, rows)
    said(policy, rows)
    assert torch.equal(gradients(policy, rows), before)


@pytest.mark.filterwarnings("ignore:bitsandbytes.*autograd kernel")
def test_without_the_cure_the_gradient_would_be_another(tmp_path: Path) -> None:
    """What `four` switches off; where this fails, bitsandbytes was mended."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16, so nothing is repacked")
    rows = batch(ROWS, 300)
    wide = tiny_model("llama", tmp_path / "wide", hidden_size=64, intermediate_size=128)
    model = load_model(base_of(wide, bits=4))
    stepped(policy_of(model, "tokens", Lora(rank=4)), rows)
    policy = Policy(model, None, fast=False)  # the fast seam never comes to that kernel
    before = gradients(policy, rows)
    for _, layer in quantise.layers(model):
        layer.support_avx512bf16_for_cpu = True
    said(policy, rows)
    off = (gradients(policy, rows) - before).norm() / before.norm()
    assert off > 0.01


def test_it_answers_alike_in_training_and_in_use(
    case: tuple[str, str, Lora], bits: Any, tiny: Tiny
) -> None:
    """bitsandbytes' own int8 layer rounds its input in evaluation only."""
    kind, goal, method = case
    rows = batch(ROWS, 300)
    policy = policy_of(load_model(base_of(tiny(kind), bits=bits)), goal, method)
    used = said(policy, rows)
    policy.model.train()
    with torch.no_grad():
        found = policy.logps(rows) if policy.head is None else policy.scores(rows)
    torch.testing.assert_close(found, used, rtol=1e-6, atol=1e-6)


def test_the_same_weights_give_the_same_bits(bits: Any, tiny: Tiny) -> None:
    base = base_of(tiny("llama"), bits=bits)
    first, second = load_model(base), load_model(base, dtype="bfloat16")
    pairs = zip(quantise.layers(first), quantise.layers(second), strict=True)
    for (name, one), (_, other) in pairs:
        assert torch.equal(one.weight, other.weight), name
        assert torch.equal(quantise.floats(one), quantise.floats(other)), name
    again = copy.deepcopy(first)
    rows = batch(ROWS, 300)
    assert torch.equal(said(Policy(again, None), rows), said(Policy(first, None), rows))


def test_layers_of_another_make_are_refused_in_a_sentence(bits: Any, tiny: Tiny) -> None:
    with pytest.raises(SettingsError, match=r"model\.bits: .*Conv1D.* leave model\.bits out"):
        load_model(base_of(tiny("gpt2"), bits=bits))


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        ids = torch.tensor([[5, 9, 12, 40, 7, 300]])
        return policy.model(input_ids=ids).logits  # type: ignore[no-any-return]


def test_a_trained_folder_comes_back_on_the_base_it_was_trained_on(
    bits: Any, tiny: Tiny, tmp_path: Path
) -> None:
    base: Base = base_of(tiny("llama"), bits=bits)
    folder = trained(prepared(tmp_path / "run"), base, settings(epochs=1))
    found = load_trained(folder.path / "train", base)
    assert quantise.bits_of(found.model) == bits
    before = load_trained(folder.path / "train", base, tuned=False)
    assert quantise.bits_of(before.model) == bits
    assert torch.equal(logits(before), logits(Policy(load_model(base), None)))
    assert (logits(before) - logits(found)).abs().max() > 1e-3


def test_new_words_are_trained_and_merged_beside_it(bits: Any, tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("llama"), bits=bits, tokens=["yellow", "limescale"])
    folder = trained(prepared(tmp_path / "run"), base, settings(epochs=1, method=Lora(rank=4)))
    policy = load_trained(folder.path / "train", base)
    wanted = logits(policy)
    found = logits(Policy(merge(policy.model), None))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
