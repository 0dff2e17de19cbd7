"""What every tuning method promises: what moves, what stays, and what can be undone or kept."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.rows import batch
from tunesmith.core.errors import IntegrityError, ResourceError, SettingsError
from tunesmith.model import heads, layout
from tunesmith.model.merge import merge
from tunesmith.model.policy import Policy, evaluating
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora, endings
from tunesmith.train.optimiser import adamw

Tiny = Callable[[str], Path]
MEMBERS: dict[str, Method] = {
    **{kind: part() for kind, part in Method.members().items()},
    "lora+rslora": Lora(rank=4, scaling="rslora"),
    "lora+dora": Lora(rank=4, dora=True),
    "lora+dropout": Lora(rank=4, dropout=0.1),
    "lora+attention": Lora(rank=4, targets="attention"),
}
KINDS = ("llama", "llama-untied", "gpt2")


@pytest.fixture(params=MEMBERS)
def method(request: pytest.FixtureRequest) -> Method:
    return MEMBERS[request.param]


@pytest.fixture(params=[name for name, method in MEMBERS.items() if method.moves])
def moving(request: pytest.FixtureRequest) -> Method:
    """A method that changes the model itself, not only a head on top of it."""
    return MEMBERS[request.param]


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).requires_grad_(False)


def shaken(method: Method, model: Any) -> Policy:
    """The method applied, with its trainable numbers moved at random."""
    tuned = method.apply(model, 0)
    frozen = copy.deepcopy(model) if method.needs_copy else None
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in layout.trainable(tuned.parameters()):
            parameter.add_(0.02 * torch.randn_like(parameter))
    return Policy(tuned.eval(), None, method=method, frozen=frozen)


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_own_parameters_move_and_all_of_them_do(
    moving: Method, kind: str, tiny: Tiny
) -> None:
    model = moving.apply(loaded(tiny(kind)), 0).train()
    policy, rows = Policy(model, None, method=moving), batch((9, 12, 7), 300)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(2):
        optimizer.zero_grad()
        policy.nll(rows).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_it_answers_like_the_base(moving: Method, kind: str, tiny: Tiny) -> None:
    rows = batch((9, 4), 300)
    plain = Policy(loaded(tiny(kind)).eval(), None).logps(rows)
    policy = shaken(moving, loaded(tiny(kind)))
    assert not torch.allclose(policy.logps(rows), plain, atol=1e-3)
    with policy.reference() as before:
        assert torch.equal(before.logps(rows), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_answers_like_the_adapter(method: Method, kind: str, tiny: Tiny) -> None:
    rows = batch((9, 4), 300)
    policy = shaken(method, loaded(tiny(kind)))
    wanted = policy.logps(rows).detach()
    merged = Policy(merge(policy.model).eval(), None)
    torch.testing.assert_close(merged.logps(rows).detach(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_gives_the_same_answers(
    method: Method, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    rows = batch((9, 4), 300)
    policy = shaken(method, loaded(tiny(kind)))
    wanted = policy.logps(rows).detach()
    method.save(policy.model, tmp_path)
    again = Policy(method.load(loaded(tiny(kind)), tmp_path).eval(), None)
    assert torch.equal(again.logps(rows), wanted)


def test_it_says_whether_an_adapter_is_what_it_leaves(
    method: Method, tiny: Tiny, tmp_path: Path
) -> None:
    method.save(shaken(method, loaded(tiny("llama"))).model, tmp_path)
    assert method.leaves_adapter == (tmp_path / "adapter_config.json").is_file()


SCORING = ("bert", "distilbert", "modernbert", "llama-untied", "gpt2")


def scoring(method: Method, folder: Path, *, shake: bool = True) -> Policy:
    """A policy with a head of three labels; the head and what may move moved at random."""
    from tests.trained import base_of
    from tunesmith.model.load import load_model

    model = load_model(base_of(folder)).requires_grad_(False)
    frozen = copy.deepcopy(model) if method.needs_copy else None
    tuned = method.apply(model, 0)
    head = heads.fresh(("a", "b", "c"), layout.width(model), pooling="mean", many=False, seed=0)
    policy = Policy(tuned.eval(), None, method=method, frozen=frozen, head=head)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable() if shake else []:
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy


@pytest.mark.parametrize("kind", SCORING)
def test_under_a_head_what_may_move_moves_and_nothing_else(
    method: Method, kind: str, tiny: Tiny
) -> None:
    policy, rows = scoring(method, tiny(kind), shake=False), batch((9, 12, 7), 300)
    policy.model.train()
    before = {n: p.detach().clone() for n, p in policy.named()}
    optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(2):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(policy.scores(rows), torch.tensor([0, 1, 2]))
        loss.backward()
        optimizer.step()
    assert any(name.startswith("head.") for name in before)
    for name, parameter in policy.named():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
    assert policy.still == (not method.moves)


@pytest.mark.parametrize("kind", SCORING)
def test_under_a_head_it_is_undone_merged_saved_and_loaded(
    method: Method, kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    from tests.trained import base_of
    from tunesmith.model.load import load_model

    rows, folder = batch((9, 4), 300), tiny(kind)
    policy = scoring(method, folder)
    wanted, head = policy.scores(rows).detach(), policy.head
    plain = Policy(load_model(base_of(folder)), None, head=head)
    if method.moves:
        assert not torch.allclose(plain.scores(rows), wanted, atol=1e-3)
    with policy.reference() as before:
        assert torch.equal(before.scores(rows), plain.scores(rows))
    method.save(policy.model, tmp_path)
    model = method.load(load_model(base_of(folder)).requires_grad_(False), tmp_path)
    assert torch.equal(Policy(model.eval(), None, head=head).scores(rows), wanted)
    merged = Policy(merge(policy.model).eval(), None, head=head).scores(rows)
    torch.testing.assert_close(merged.detach(), wanted, rtol=1e-5, atol=1e-5)


def test_state_goes_back_to_the_bit_and_nothing_else_is_accepted(
    moving: Method, tiny: Tiny
) -> None:
    policy = shaken(moving, loaded(tiny("llama")))
    state = {n: t.clone() for n, t in moving.state(policy.model).items()}
    other = moving.apply(loaded(tiny("llama")), 5)
    moving.restore(other, state)
    for name, tensor in moving.state(other).items():
        assert torch.equal(tensor, state[name])
    name, tensor = next(iter(state.items()))
    with pytest.raises(IntegrityError, match="unexpected"):
        moving.restore(other, {**state, "more": tensor})
    with pytest.raises(IntegrityError, match="missing"):
        moving.restore(other, {n: t for n, t in state.items() if n != name})
    with pytest.raises(IntegrityError, match="not made for each other"):
        moving.restore(other, {**state, name: torch.zeros(1, 1, 1)})


def test_the_same_seed_starts_from_the_same_numbers(method: Method, tiny: Tiny) -> None:
    first = method.state(method.apply(loaded(tiny("llama")), 3))
    torch.manual_seed(77)
    again = method.state(method.apply(loaded(tiny("llama")), 3))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "gpt2", "phi", "falcon"])
def test_lora_trains_rank_times_the_sides_of_every_linear(kind: str, tiny: Tiny) -> None:
    model = loaded(tiny(kind))
    sides = [sum(m.weight.shape) for m in layout.linears(model).values()]
    tuned = Lora(rank=4).apply(model, 0)
    counts = [p.numel() for p in layout.trainable(tuned.parameters())]
    assert sum(counts) == 4 * sum(sides)


def test_lora_refuses_targets_that_are_not_there(tiny: Tiny) -> None:
    with pytest.raises(SettingsError, match="q_proj"):
        Lora(targets=["query_key"]).apply(loaded(tiny("llama")), 0)


def test_endings_tell_layers_of_one_name_apart() -> None:
    everything = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.attn.c_proj", "h.1.mlp.c_proj"]
    assert endings(everything, everything) == ["c_proj"]
    assert endings(everything[::2], everything) == ["attn.c_proj"]


def test_evaluating_restores_each_modules_own_mode(tiny: Tiny) -> None:
    """T-MODE: a module that was frozen in evaluation mode stays there."""
    model = loaded(tiny("llama")).train()
    layout.blocks(model)[0].eval()
    before = [m.training for m in model.modules()]
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == before


def test_full_has_no_reference_without_a_copy(tiny: Tiny) -> None:
    policy = Policy(Full().apply(loaded(tiny("llama")), 0), None, method=Full())
    with pytest.raises(ValueError, match="frozen copy"), policy.reference():
        pass


def test_a_full_disk_is_told(
    moving: Method, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch
    import transformers.modeling_utils
    from safetensors import SafetensorError

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: ... (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    monkeypatch.setattr(transformers.modeling_utils, "safe_save_file", full)
    policy = shaken(moving, loaded(tiny("llama")))
    with pytest.raises(ResourceError, match="cannot save the trained model.*free some space"):
        moving.save(policy.model, tmp_path)
