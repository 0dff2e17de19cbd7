"""Steps that multiply in bfloat16 or in bytes: near those in floats, and steps alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rows import batch
from tests.tiny import tiny_model
from tests.trained import base_of, prepared, settings, trained
from tests.workflow.test_resume import result, stop_after
from tunesmith.core.errors import Preempted, SettingsError
from tunesmith.model import arithmetic, coarse, recompute
from tunesmith.model.layout import blocks, head
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.train.loop import Train
from tunesmith.train.methods.adapter import Adapter
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora
from tunesmith.train.methods.prefix import Prefix

Tiny = Callable[[str], Path]
METHODS = (
    Lora(rank=4),
    Lora(rank=4, scaling="rslora"),
    Lora(rank=4, dora=True),
    Lora(rank=4, targets="attention"),
    Lora(rank=4, init="pissa"),
    Adapter(size=4),
    Prefix(length=3),
)
ROWS = (9, 12, 7)
NEAR = {"bfloat16": (5e-3, 0.999), "bytes": (1e-2, 0.99)}
"""How far a loss may lie off as a share of it, and the least cosine of gradients."""


@pytest.fixture(autouse=True)
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right does not depend on what is fast."""
    monkeypatch.setattr(coarse, "multiplies", lambda kind: True)


def made(folder: Path, method: Any, bits: int | None = None, *, fast: bool = True) -> Policy:
    model = load_model(base_of(folder, bits=bits)).requires_grad_(False)
    torch.manual_seed(0)
    return Policy(method.apply(model, 0).train(), None, method=method, fast=fast)


def step(policy: Policy, rows: Any) -> tuple[float, torch.Tensor]:
    """The loss of a training step, and all gradients in one."""
    policy.model.zero_grad()
    torch.manual_seed(0)  # of dropout
    loss = policy.nll(rows)
    loss.backward()
    found = [p.grad.flatten() for p in policy.trainable() if p.grad is not None]
    return loss.item(), torch.cat(found).double()


def said(policy: Policy, rows: Any) -> torch.Tensor:
    with policy.looking(rows):
        return policy.logps(rows)


def check(policy: Policy, kind: Any) -> None:
    """Near the step in floats and not equal to it; what is only asked stays to the bit."""
    rows = batch(ROWS, 300)
    before, plain = said(policy, rows), step(policy, rows)
    arithmetic.choose(policy.model, kind)
    rounded = step(policy, rows)
    apart, alike = NEAR[kind]
    assert 0 < abs(rounded[0] / plain[0] - 1) < apart
    likeness = torch.nn.functional.cosine_similarity(rounded[1], plain[1], dim=0)
    assert alike < likeness < 1 - 1e-9
    assert torch.equal(said(policy, rows), before)


@pytest.mark.parametrize("kind", ("llama", "llama-untied", "qwen3", "gemma", "gpt2", "phi"))
def test_a_step_in_bfloat16_is_near_the_one_in_floats(kind: str, tiny: Tiny) -> None:
    check(made(tiny(kind), Lora(rank=4)), "bfloat16")


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_step_in_bfloat16_is_near_under_every_method(method: Any, tiny: Tiny) -> None:
    check(made(tiny("llama"), method), "bfloat16")


@pytest.mark.parametrize("bits", (4, 8))
def test_a_step_in_bfloat16_is_near_over_a_base_in_bits(bits: int, tiny: Tiny) -> None:
    check(made(tiny("llama"), Lora(rank=4), bits), "bfloat16")


@pytest.mark.parametrize("fast", (True, False))
@pytest.mark.parametrize("method", METHODS[:4] + METHODS[5:6], ids=repr)
def test_a_step_in_bytes_is_near_the_one_in_floats(method: Any, fast: bool, tmp_path: Path) -> None:
    wide = tiny_model("llama", tmp_path / "wide", hidden_size=64, intermediate_size=128)
    check(made(wide, method, 8, fast=fast), "bytes")


def test_blocks_made_again_give_the_same_step_in_bfloat16(tiny: Tiny) -> None:
    policy, rows = made(tiny("llama"), Lora(rank=4)), batch(ROWS, 300)
    arithmetic.choose(policy.model, "bfloat16")
    loss, plain = step(policy, rows)
    policy.recomputed = recompute.chosen(list(blocks(policy.model)), 1)
    again, gradients = step(policy, rows)
    assert again == loss and torch.equal(gradients, plain)


def test_products_in_bfloat16_are_those_of_the_rounded_numbers() -> None:
    """Against the same numbers in double precision; what comes out has 8 bits."""
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 40), torch.randn(24)
    x, upstream = torch.randn(2, 5, 40), torch.randn(2, 5, 24)
    halves = coarse.Halves(weight.detach, bias)
    plain = weight.bfloat16().double()
    wanted = (x.bfloat16().double() @ plain.t()).bfloat16().float() + bias
    torch.testing.assert_close(halves.there(x), wanted, rtol=1e-2, atol=1e-2)
    assert torch.equal(halves.there(x.bfloat16()), halves.there(x))
    wanted = upstream.bfloat16().double() @ plain
    torch.testing.assert_close(halves.back(upstream), wanted.float(), rtol=1e-2, atol=1e-2)


def test_products_in_bytes_are_those_of_the_rounded_numbers() -> None:
    """Against the same bytes in double precision; a row of zeros, one of no numbers, a bias."""
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (24, 40), dtype=torch.int8)
    steps, bias = torch.rand(24), torch.randn(24)
    made = coarse.Bytes(weight, steps, bias)
    x, upstream = torch.randn(2, 5, 40), torch.randn(2, 5, 24)
    x[0, 1], x[1, 2, 3] = 0, torch.nan
    plain = weight.double() * steps.double()[:, None]
    whole, unit = coarse.rounded(x.view(-1, 40))
    wanted = (whole.double() * unit.double()) @ plain.t() + bias
    torch.testing.assert_close(made.there(x).view(-1, 24), wanted.float(), equal_nan=True)
    assert made.there(x)[1, 2].isnan().all() and torch.equal(made.there(x)[0, 1], bias)
    assert ((whole * unit - x.view(-1, 40)).abs() <= unit / 2 * 1.001)[:7].all()
    whole, unit = coarse.rounded((upstream * steps).view(-1, 24))
    wanted = (whole.double() * unit.double()) @ weight.double()
    torch.testing.assert_close(made.back(upstream).view(-1, 40), wanted.float())
    apart = upstream.transpose(0, 1).contiguous().transpose(0, 1)  # as a mean over rows leaves it
    assert torch.equal(made.back(apart), made.back(upstream))


def test_weights_that_move_and_slow_processors_are_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("bfloat16", "bytes"):
        with pytest.raises(SettingsError, match=f"train.arithmetic: {kind} is for"):
            arithmetic.choose(made(tiny("llama"), Full()).model, kind)
    monkeypatch.setattr(coarse, "multiplies", lambda kind: False)
    for kind, bits in (("bfloat16", None), ("bytes", 8)):
        with pytest.raises(SettingsError, match="on a processor with"):
            arithmetic.choose(made(tiny("llama"), Lora(), bits).model, kind)


def test_the_reference_path_has_no_bfloat16() -> None:
    with pytest.raises(ValueError, match="say seams: fast, or arithmetic: floats"):
        Train(arithmetic="bfloat16", seams="reference")


def test_a_head_that_trains_stays_in_floats(tiny: Tiny) -> None:
    policy = made(tiny("llama-untied"), Lora(rank=4))
    head(policy.model).weight.requires_grad_(True)
    arithmetic.choose(policy.model, "bfloat16")
    assert not hasattr(head(policy.model), "in_halves")


def test_a_training_in_bfloat16_stops_and_goes_on_to_the_bit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = base_of(tiny("llama")), settings(arithmetic="bfloat16")
    whole = result(trained(prepared(tmp_path / "whole"), base, spec))
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patched, pytest.raises(Preempted):
        stop_after(patched, 4)
        trained(folder, base, spec)
    assert result(trained(folder, base, spec)) == whole
    assert result(trained(prepared(tmp_path / "floats"), base)) != whole
