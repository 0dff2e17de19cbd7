"""Blocks computed again on the way back: the same gradients to the bit, and less is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rows import batch
from tests.tiny import ENCODERS, KINDS
from tests.trained import base_of, prepared, settings, trained
from tests.workflow.test_resume import result
from tunesmith.core.errors import SettingsError
from tunesmith.model import devices, heads, layout, recompute
from tunesmith.model.load import load_model
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy
from tunesmith.train import room
from tunesmith.train.methods.adapter import Adapter
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.ia3 import Ia3
from tunesmith.train.methods.lora import Lora
from tunesmith.train.methods.prefix import Prefix
from tunesmith.train.methods.prompt import Prompt
from tunesmith.train.objectives.sft import Sft

Tiny = Callable[[str], Path]
METHODS = [Lora(rank=4), Lora(rank=4, dropout=0.3), Full(), Adapter(), Prefix(), Prompt(), Ia3()]
RUN_TWICE = [kind for kind in KINDS if kind != "falcon"]


def gradients(policy: Policy, rows: Any, every: int | None) -> tuple[dict[str, torch.Tensor], int]:
    """Of the loss, and how many bytes were kept for them."""
    policy.recomputed = recompute.chosen(list(layout.blocks(policy.model)), every)
    for parameter in policy.trainable():
        parameter.grad = None
    torch.manual_seed(0)
    with recompute.counting(list(policy.model.parameters())) as kept:
        loss = policy.nll(rows) if policy.head is None else policy.scores(rows).square().sum()
    loss.backward()
    return {n: p.grad.clone() for n, p in policy.named() if p.grad is not None}, sum(kept.values())


def said(method: Method) -> str:
    return f"{method.kind}{'+dropout' if getattr(method, 'dropout', 0) else ''}"


@pytest.mark.parametrize("kind", RUN_TWICE)
@pytest.mark.parametrize("method", METHODS, ids=said)
def test_the_same_gradients_from_less(method: Method, kind: str, tiny: Tiny) -> None:
    model = load_model(base_of(tiny(kind))).requires_grad_(False)
    policy = Policy(method.apply(model, 0).train(), None, method=method)
    rows = batch((9, 14, 6), 300, share=0.7)
    wanted, everything = gradients(policy, rows, None)
    assert policy.recomputes and wanted
    for every in (1, 2):
        found, kept = gradients(policy, rows, every)
        assert kept < everything
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], grad) for name, grad in wanted.items())


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_too(kind: str, tiny: Tiny) -> None:
    model = Lora(rank=4).apply(load_model(base_of(tiny(kind))).requires_grad_(False), 0).train()
    head = heads.fresh(heads.Meaning(("a", "b"), "mean", False), layout.width(model), seed=0)
    policy, rows = Policy(model, None, head=head), batch((9, 14, 6), 300)
    wanted, everything = gradients(policy, rows, None)
    found, kept = gradients(policy, rows, 1)
    assert kept < everything and wanted
    assert all(torch.equal(found[name], grad) for name, grad in wanted.items())


def test_as_many_blocks_as_memory_asks_for() -> None:
    need = room.Need(kept=800.0, rest=100.0)
    assert room.every(need, 2000.0, 8) is None
    assert room.every(need, 1100.0, 8) == 8  # 20 too much, and a block keeps 100
    assert room.every(need, 700.0, 8) == 2  # 340 too much
    assert room.every(need, 100.0, 8) == 1
    assert room.every(room.Need(1900.0, 0.0), 1710.0 / room.SPARE, 19) == 9  # 1.9 blocks' worth


def test_a_container_may_give_back_what_it_has_read(tmp_path: Path) -> None:
    assert devices.left_of(tmp_path) is None
    for name, text in (("memory.max", "1000"), ("memory.current", "900")):
        (tmp_path / name).write_text(text)
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 600\n")
    assert devices.left_of(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.left_of(tmp_path) is None


def test_the_mode_of_a_block_is_that_of_its_forward_pass(tiny: Tiny) -> None:
    """Contrast reads rows in evaluation mode and goes back outside of it."""
    plain = load_model(base_of(tiny("llama"))).requires_grad_(False)
    model = Lora(rank=4, dropout=0.5).apply(plain, 0)
    policy, rows = Policy(model.train(), None), batch((9, 14, 6), 300)
    found = []
    for every in (None, 1):
        policy.recomputed = recompute.chosen(list(layout.blocks(model)), every)
        model.zero_grad()
        with evaluating(model), recompute.counting(list(model.parameters())) as kept:
            loss = policy.nll(rows)
        loss.backward()
        assert model.training
        grads = {n: p.grad.clone() for n, p in policy.named() if p.grad is not None}
        found.append((sum(kept.values()), grads))
    (everything, wanted), (less, again) = found
    assert less < everything and wanted.keys() == again.keys()
    assert all(torch.equal(again[name], gradient) for name, gradient in wanted.items())


def test_out_of_memory_in_the_pass_that_asks(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be measured is computed again, and training still halves what it must."""
    base, spec = base_of(tiny("llama")), settings(lr=1e-3)
    wanted = result(trained(prepared(tmp_path / "whole"), base, spec))

    def full(*_: Any) -> int:
        raise MemoryError

    monkeypatch.setattr(room, "kept_by", full)
    assert result(trained(prepared(tmp_path / "short"), base, spec)) == wanted


def test_more_blocks_than_there_are(tiny: Tiny) -> None:
    policy = Policy(load_model(base_of(tiny("llama"))), None)
    with pytest.raises(SettingsError, match="3 of 2 blocks leaves none"):
        room.checked(3, policy)


def test_a_run_with_little_memory_goes_on_the_same_way(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = base_of(tiny("llama")), settings(lr=1e-3)
    wanted = result(trained(prepared(tmp_path / "whole"), base, spec))
    seen = []
    monkeypatch.setattr(devices, "free_memory", lambda: 100_000)
    chosen = recompute.chosen
    monkeypatch.setattr(recompute, "chosen", lambda *given: seen.append(given[1]) or chosen(*given))
    assert result(trained(prepared(tmp_path / "short"), base, spec)) == wanted
    assert seen == [1]


def test_blocks_with_a_cache_are_not_run_twice(tiny: Tiny) -> None:
    policy = Policy(load_model(base_of(tiny("falcon"))), None)
    assert not policy.recomputes
    with pytest.raises(SettingsError, match="gradient_checkpointing: .* into a cache"):
        room.checked(1, policy)
    room.checked("auto", policy)


def test_on_mps_the_refusal_names_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(load_model(base_of(tiny("llama"))), None)
    monkeypatch.setattr(policy, "device", torch.device("mps"))
    with pytest.raises(SettingsError, match="gradient_checkpointing: on mps .* say off"):
        room.checked(1, policy)
    assert room.plan("auto", policy, Sft(), [], 512) == (None, "")
