"""Steps that multiply in bfloat16 or in bytes: near those in floats, and steps alone."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rows import batch
from tests.tiny import tiny_model
from tests.trained import base_of, labelled, prepared, settings, trained
from tests.workflow.test_resume import result, stop_after
from tunesmith.core.errors import Preempted, SettingsError
from tunesmith.model import (
    arithmetic,
    attention,
    coarse,
    coarse_attention,
    heads,
    layout,
    recompute,
)
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.train import optimiser
from tunesmith.train.loop import Train
from tunesmith.train.methods.adapter import Adapter
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.ia3 import Ia3
from tunesmith.train.methods.lora import Lora
from tunesmith.train.methods.prefix import Prefix
from tunesmith.train.methods.prompt import Prompt
from tunesmith.train.objectives.classify import Classify
from tunesmith.train.stage import refuse_unfit

Tiny = Callable[[str], Path]
Loss = Callable[[Policy, Any], torch.Tensor]
METHODS = (
    Lora(rank=4),
    Lora(rank=4, scaling="rslora"),
    Lora(rank=4, dora=True),
    Lora(rank=4, targets="attention"),
    Lora(rank=4, init="pissa"),
    Lora(rank=4, dropout=0.1),
    Ia3(),
    Adapter(size=4),
    Prefix(length=3),
    Full(),
)
OVER_BITS = (
    Lora(rank=4),
    Lora(rank=4, targets="attention"),
    Lora(rank=4, dropout=0.1),
    Lora(rank=4, dora=True),
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


@contextmanager
def counted() -> Iterator[list[str]]:
    """Every product in bfloat16, there, back or to a weight."""
    found: list[str] = []
    plain = {way: getattr(coarse.Halves, way) for way in ("there", "back", "to_weight")}

    def noted(way: str) -> Callable[..., torch.Tensor]:
        return lambda *given: (found.append(way), plain[way](*given))[1]

    with pytest.MonkeyPatch.context() as patched:
        for way in plain:
            patched.setattr(coarse.Halves, way, noted(way))
        yield found


def check(policy: Policy, kind: Any) -> None:
    """Near the step in floats and not equal to it; what is only asked stays to the bit."""
    rows = batch(ROWS, 300)
    before, plain = said(policy, rows), step(policy, rows)
    arithmetic.choose(policy, kind)
    rounded = step(policy, rows)
    apart, alike = NEAR[kind]
    assert 0 < abs(rounded[0] / plain[0] - 1) < apart
    likeness = torch.nn.functional.cosine_similarity(rounded[1], plain[1], dim=0)
    assert alike < likeness < 1 - 1e-9
    assert torch.equal(said(policy, rows), before)


def check_all(policy: Policy, layers: int, loss: Loss = Policy.nll) -> None:
    """Every layer is multiplied in bfloat16, once there and, below the first that has something to
    learn, once back."""
    rows = batch(ROWS, 300)
    arithmetic.choose(policy, "bfloat16")
    with counted() as found:
        loss(policy, rows).backward()
    assert found.count("there") == layers
    assert layers - 4 <= found.count("back") <= layers
    with counted() as found, policy.looking(rows):
        loss(policy, rows)
    assert not found


@pytest.mark.parametrize("kind", ("llama", "llama-untied", "qwen3", "gemma", "phi"))
@pytest.mark.parametrize("fast", (True, False))
def test_a_step_in_bfloat16_is_near_the_one_in_floats(kind: str, fast: bool, tiny: Tiny) -> None:
    check(made(tiny(kind), Lora(rank=4), fast=fast), "bfloat16")
    layers = 6 if kind == "phi" else 7
    check_all(made(tiny(kind), Lora(rank=4), fast=fast), 2 * layers + 1)


@pytest.mark.parametrize("method", (Lora(rank=4), Full()), ids=repr)
def test_of_a_model_without_linear_layers_only_the_head_is_rounded(method: Any, tiny: Tiny) -> None:
    """GPT-2's stand the other way round."""
    policy = made(tiny("gpt2"), method)
    check(policy, "bfloat16")
    check_all(policy, 1)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_layer_is_in_bfloat16_under_every_method(method: Any, tiny: Tiny) -> None:
    check(made(tiny("llama"), method), "bfloat16")
    check_all(made(tiny("llama"), method), 2 * 7 + 1)


def test_a_prompt_that_is_read_by_itself_is_in_bfloat16_too(tiny: Tiny) -> None:
    """Of its last block only keys and values are asked for."""
    check(made(tiny("llama"), Prompt(length=3)), "bfloat16")
    policy, rows = made(tiny("llama"), Prompt(length=3)), batch(ROWS, 300)
    arithmetic.choose(policy, "bfloat16")
    with counted() as found:
        policy.nll(rows).backward()
    assert found.count("there") == 2 * 2 * 7 + 1
    assert found.count("back") > 2 * 7 + 1


@pytest.mark.parametrize("bits", (4, 8))
@pytest.mark.parametrize("fast", (True, False))
@pytest.mark.parametrize("method", OVER_BITS, ids=repr)
def test_a_step_in_bfloat16_is_near_over_a_base_in_bits(
    method: Any, fast: bool, bits: int, tiny: Tiny
) -> None:
    check(made(tiny("llama"), method, bits, fast=fast), "bfloat16")
    check_all(made(tiny("llama"), method, bits, fast=fast), 2 * 7 + 1)


@pytest.mark.parametrize("fast", (True, False))
@pytest.mark.parametrize(("bits", "kind"), ((None, "bfloat16"), (8, "bfloat16"), (8, "bytes")))
def test_a_bias_trains_over_a_weight_that_stays(
    bits: int | None, kind: Any, fast: bool, tiny: Tiny
) -> None:
    """As in BitFit (arXiv 2106.10199)."""
    model = load_model(base_of(tiny("phi"), bits=bits)).requires_grad_(False).train()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.endswith("bias"))
    policy, rows = Policy(model, None, fast=fast), batch(ROWS, 300)
    _, plain = step(policy, rows)
    arithmetic.choose(policy, kind)
    _, rounded = step(policy, rows)
    assert all(weight.grad is not None for weight in policy.trainable())
    likeness = torch.nn.functional.cosine_similarity(rounded, plain, dim=0)
    assert NEAR[kind][1] < likeness < 1 - 1e-9


def test_under_a_head_of_labels_the_layers_are_in_bfloat16_and_the_models_own_head_is_not(
    tiny: Tiny,
) -> None:
    meaning = heads.Meaning(("a", "b", "c"), "mean", False)
    for kind, layers in (("llama", 14), ("bert", 12)):
        model = load_model(base_of(tiny(kind))).requires_grad_(False)
        head = heads.fresh(meaning, layout.width(model), seed=0)
        policy = Policy(Lora(rank=4).apply(model, 0).train(), None, head=head)
        check_all(policy, layers, lambda policy, rows: policy.scores(rows).square().sum())


@pytest.mark.parametrize("kind", ("llama", "llama-untied"))
def test_a_head_some_of_whose_rows_train_is_in_bfloat16(kind: str, tiny: Tiny) -> None:
    base = replace(base_of(tiny(kind)), tokens=("hypothyroidism",))
    model = load_model(base).requires_grad_(False)
    torch.manual_seed(0)
    policy = Policy(Lora(rank=4).apply(model, 0).train(), None)
    assert policy.new_rows
    check_all(policy, 2 * 7 + 1)


@pytest.mark.parametrize("fast", (True, False))
@pytest.mark.parametrize("method", (*METHODS[:4], Adapter(size=4)), ids=repr)
def test_a_step_in_bytes_is_near_the_one_in_floats(method: Any, fast: bool, tmp_path: Path) -> None:
    wide = tiny_model("llama", tmp_path / "wide", hidden_size=64, intermediate_size=128)
    check(made(wide, method, 8, fast=fast), "bytes")


@pytest.mark.parametrize(("bits", "kind"), ((None, "bfloat16"), (8, "bytes")))
def test_blocks_made_again_give_the_same_step(bits: int | None, kind: Any, tiny: Tiny) -> None:
    policy, rows = made(tiny("llama"), Lora(rank=4), bits), batch(ROWS, 300)
    arithmetic.choose(policy, kind)
    loss, plain = step(policy, rows)
    policy.recomputed = recompute.chosen(list(layout.blocks(policy.model)), 1)
    again, gradients = step(policy, rows)
    assert again == loss and torch.equal(gradients, plain)


LONG = (310, 290)
"""Rows whose attention is rounded too."""


@pytest.mark.parametrize("kind", ("llama", "qwen3", "gemma", "phi"))
@pytest.mark.parametrize("rows", (LONG, (40, 5)), ids=("long", "short"))
@pytest.mark.parametrize("tiles", (False, True), ids=("blocks", "kernel"))
def test_attention_of_long_rows_is_in_bfloat16(
    kind: str, rows: tuple[int, ...], tiles: bool, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of long rows only, in steps only, and blocks that are made again give the same."""
    monkeypatch.setattr(coarse_attention, "tiles", lambda: tiles)
    policy, long = made(tiny(kind), Lora(rank=4)), rows == LONG
    asked: list[int] = []
    whole = coarse_attention.blocks

    def noted(time: int, keys: int) -> Any:
        asked.append(time)
        return whole(time, keys)

    monkeypatch.setattr(coarse_attention, "blocks", noted)
    given = batch(rows, 300)
    _, plain = step(policy, given)
    before = said(policy, given)
    arithmetic.choose(policy, "bfloat16")
    assert not asked
    loss, rounded = step(policy, given)
    each_way_in_both_blocks = sorted((2 if tiles else 4) * rows) if long else []
    assert sorted(asked) == each_way_in_both_blocks
    cosine = torch.nn.functional.cosine_similarity(rounded, plain, dim=0)
    assert 0.999 < cosine < 1 - 1e-9
    policy.recomputed = recompute.chosen(list(layout.blocks(policy.model)), 1)
    again, gradients = step(policy, given)
    assert again == loss and torch.equal(gradients, rounded)
    asked.clear()
    assert torch.equal(said(policy, given), before) and not asked


@pytest.mark.parametrize(
    ("time", "rest", "rounds"),
    [
        (300, {}, True),
        (300, {"sliding_window": 300}, True),
        (300, {"sliding_window": 299}, False),
        (300, {"dropout": 0.1}, False),
        (255, {}, False),
    ],
)
def test_what_attention_in_bfloat16_cannot_do_is_left_to_the_kernel(
    time: int, rest: dict[str, Any], rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    whole = coarse_attention.blocks
    monkeypatch.setattr(coarse_attention, "tiles", lambda: False)
    monkeypatch.setattr(
        coarse_attention, "blocks", lambda *sizes: (asked.append(1), whole(*sizes))[1]
    )
    query, key = (torch.randn(1, n, time, 8, requires_grad=True) for n in (4, 2))
    told = attention.Plan([time], rounds=True)
    attention.documents(None, query, key, key, None, plan=told, **rest)
    assert bool(asked) == rounds


@pytest.mark.parametrize("time", (1, 7, 256, 257, 600))
@pytest.mark.parametrize("before", (0, 90))
@pytest.mark.parametrize(("heads", "shared"), ((4, 4), (6, 2)))
@pytest.mark.parametrize("tiles", (False, True), ids=("blocks", "kernel"))
def test_attention_in_bfloat16_is_that_of_double_precision_but_for_its_digits(
    time: int, before: int, heads: int, shared: int, tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and the three gradients, with keys before the first query and heads that share."""
    monkeypatch.setattr(coarse_attention, "tiles", lambda: tiles)
    torch.manual_seed(0)
    counts = ((heads, time), (shared, time + before), (shared, time + before))
    states = [torch.randn(1, n, length, 16, requires_grad=True) for n, length in counts]
    upstream = torch.randn(1, heads, time, 16)
    found = coarse_attention.attended(*states, 0.3)
    given = torch.autograd.grad(found, states, upstream)
    query, key, value = (each.detach().double().requires_grad_() for each in states)
    places = torch.arange(time + before)
    mask = places[before:].unsqueeze(1) >= places
    alike = [each.repeat_interleave(heads // shared, dim=1) for each in (key, value)]
    scores = (query @ alike[0].transpose(2, 3) * 0.3).masked_fill(~mask, float("-inf"))
    wanted = scores.softmax(dim=-1) @ alike[1]
    exact = torch.autograd.grad(wanted, (query, key, value), upstream.double())
    for ours, theirs in zip((found, *given), (wanted, *exact), strict=True):
        assert (ours.double() - theirs).norm() <= 1e-2 * theirs.norm() + 1e-6


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


def unit_of(rows: torch.Tensor) -> torch.Tensor:
    """What a byte of each row stands for: its largest number is 127 of them."""
    return rows.abs().amax(dim=1, keepdim=True).clamp(min=coarse.LEAST) / 127


def test_products_in_bytes_are_those_of_the_rounded_numbers() -> None:
    """Against the same bytes in double precision, the ten columns with the largest numbers in full;
    a row of zeros, two with what is no number in a column of either kind, a bias."""
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (24, 40), dtype=torch.int8)
    steps, bias = torch.rand(24), torch.randn(24)
    made = coarse.Bytes(weight, steps, bias)
    x, upstream = torch.randn(2, 5, 40), torch.randn(2, 5, 24)
    large = [3, *range(7, 40, 4)]
    x[..., large] *= 8
    x[0, 1] = 0
    plain, flat = weight.double() * steps.double()[:, None], x.view(-1, 40)
    whole, unit, columns, beside = coarse.Rounded.of(flat)
    assert sorted(columns.tolist()) == large
    rest = flat.index_fill(1, columns, 0)
    torch.testing.assert_close(unit, unit_of(rest), rtol=1e-6, atol=0)
    assert ((whole * unit - rest).abs() <= unit / 2 * 1.001).all()
    wanted = (whole * unit).index_copy(1, columns, beside).double() @ plain.t() + bias
    assert (made.there(x).view(-1, 24) - wanted).norm() < 1e-6 * wanted.norm()
    assert torch.equal(made.there(x)[0, 1], bias)
    assert torch.equal(made.there(coarse.taken(flat, [made, made])), made.there(flat))
    x[1, 2, 3] = x[1, 3] = torch.nan
    assert made.there(x).isnan().any(dim=-1).nonzero().tolist() == [[1, 2], [1, 3]]
    given = (upstream * steps).view(-1, 24)
    whole, unit = coarse.rounded_(given.clone())
    torch.testing.assert_close(unit, unit_of(given), rtol=1e-6, atol=0)
    assert ((whole * unit - given).abs() <= unit / 2 * 1.001).all()
    wanted = (whole.double() * unit.double()) @ weight.double()
    assert (made.back(upstream).view(-1, 40) - wanted).norm() < 1e-6 * wanted.norm()
    apart = upstream.transpose(0, 1).contiguous().transpose(0, 1)  # as a mean over rows leaves it
    assert torch.equal(made.back(apart), made.back(upstream))


@pytest.mark.parametrize("fast", (True, False))
@pytest.mark.parametrize("kind", ("llama", "llama-untied", "phi"))
def test_a_weight_that_moves_has_its_gradient_in_bfloat16(
    kind: str, fast: bool, tiny: Tiny
) -> None:
    """Every layer's of the block that trains; the head's, which is made chunk by chunk, in floats.
    Biases count as well."""
    policy, rows = made(tiny(kind), Full(blocks=1), fast=fast), batch(ROWS, 300)
    _, plain = step(policy, rows)
    arithmetic.choose(policy, "bfloat16")
    with counted() as found:
        _, rounded = step(policy, rows)
    assert found.count("to_weight") == (6 if kind == "phi" else 7)
    cosine = torch.nn.functional.cosine_similarity(rounded, plain, dim=0)
    assert 0.999 < cosine < 1 - 1e-9


def test_a_copy_is_made_again_after_a_step_that_moved_its_weight(tiny: Tiny) -> None:
    rows, policies = batch(ROWS, 300), [made(tiny("llama"), Full()) for _ in range(2)]
    moving, fresh = policies
    arithmetic.choose(moving, "bfloat16")
    first, _ = step(moving, rows)
    optimizer = optimiser.adamw(moving.trainable(), decay=0.0, betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    optimizer.step()
    moving.weights_moved()
    fresh.model.load_state_dict(moving.model.state_dict())
    arithmetic.choose(fresh, "bfloat16")
    loss, gradients = step(moving, rows)
    wanted, others = step(fresh, rows)
    assert loss == wanted != first
    assert torch.equal(gradients, others)


def test_a_trunk_that_is_read_once_is_not_read_in_bytes(tiny: Tiny) -> None:
    base = base_of(tiny("llama"), bits=8)
    frozen = settings(method=Frozen(), objective=Classify(), arithmetic="bytes")
    with pytest.raises(SettingsError, match="say bfloat16 or floats"):
        refuse_unfit(frozen, base, "auto")
    refuse_unfit(frozen.model_copy(update={"method": Lora()}), base, "auto")


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_trunk_is_read_in_bfloat16_for_steps_and_exactly_for_looks(
    kind: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    base = base_of(tiny(kind))
    plain = settings(method=Frozen(), objective=Classify(), epochs=4)
    rounded = plain.model_copy(update={"arithmetic": "bfloat16"})
    exact = learnt(tmp_path / "floats", base, plain)
    with counted() as found:
        first = learnt(tmp_path / "first", base, rounded)
    assert found.count("there") and not found.count("back")
    assert first["held_out_before"] == exact["held_out_before"]
    assert 0 < abs(first["first_loss"] / exact["first_loss"] - 1) < 5e-3
    assert first["best_value"] == pytest.approx(exact["best_value"], rel=1e-2)
    with counted() as found:
        assert learnt(tmp_path / "again", base, rounded) == first
        assert learnt(tmp_path / "exact", base, plain) == exact
    assert found == [], "each kind of state is kept, and apart from the other"


def test_attention_of_a_row_that_is_kept_is_exact_however_long_it_is(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which documents it rounds depends on what they are laid with."""
    model = load_model(base_of(tiny("llama"))).requires_grad_(False).eval()
    head = heads.fresh(heads.Meaning(("a", "b"), "last", False), layout.width(model), seed=0)
    policy = Policy(model, None, head=head)
    arithmetic.choose(policy, "bfloat16")
    monkeypatch.setattr(coarse_attention, "attended", None)
    with torch.no_grad(), coarse.as_in_steps(), counted() as found:
        policy.pooled(batch(LONG, 300))
    assert found


def learnt(path: Path, base: Base, spec: Train) -> dict[str, Any]:
    """What a training of a head on labelled rows says of itself, times left out."""
    folder = trained(prepared(path, rows=18, held=6, row=labelled), base, spec)
    found = json.loads((folder.stage("train").path / "train.json").read_text())
    return {name: found[name] for name in ("held_out_before", "first_loss", "best_value")}


def test_a_model_without_linear_layers_is_refused(tiny: Tiny) -> None:
    base = base_of(tiny("gpt2"))
    model = load_model(base).requires_grad_(False)
    meaning = heads.Meaning(("a", "b", "c"), "mean", False)
    head = heads.fresh(meaning, layout.width(model), seed=0)
    policy = Policy(Lora(rank=4).apply(model, 0), None, head=head)
    with pytest.raises(SettingsError, match="no step of this training multiplies by one"):
        arithmetic.choose(policy, "bfloat16")


def test_copies_are_there_before_the_room_for_a_step_is_asked_for(tiny: Tiny) -> None:
    policy = made(tiny("llama-untied"), Lora(rank=4))
    arithmetic.choose(policy, "bfloat16")
    made_now = sum(copy.made.nbytes for copy in policy.copies)
    found = arithmetic.layers(policy.model, "bfloat16", scores=False)
    assert made_now == 2 * sum(layer.weight.numel() for layer in found)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("bytes", {"moves": False, "bits": 8}, "bytes cannot serve train.method: frozen"),
        (
            "bytes",
            {"bits": 4},
            "bytes is for a base in 8 bits; say model.bits: 8 with it, or floats",
        ),
        ("bfloat16", {"dtype": "bfloat16"}, "bfloat16 rounds numbers of model.dtype: float32"),
        ("bfloat16", {"slow": True}, "bfloat16 needs a processor with AVX512-BF16, or is slower"),
        ("bytes", {"bits": 8, "slow": True}, "bytes needs a processor with AVX512-VNNI"),
    ],
)
def test_what_would_not_be_faster_is_refused_before_a_model_is_loaded(
    kind: Any, given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given.pop("slow", False):
        monkeypatch.setattr(coarse, "multiplies", lambda kind: False)
    named = {"bits": None, "dtype": "auto", "device": "cpu", "moves": True} | given
    with pytest.raises(SettingsError, match=f"train.arithmetic: {said}"):
        arithmetic.refuse_unfit(kind, **named)


@pytest.mark.parametrize(
    ("kind", "method"),
    (
        ("bfloat16", Lora(rank=4)),
        ("bfloat16", Lora(rank=4, init="pissa")),
        ("bfloat16", Full()),
        ("bytes", Lora(rank=4)),
    ),
    ids=repr,
)
def test_a_training_in_coarse_numbers_stops_and_goes_on_to_the_bit(
    kind: str, method: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(tiny("llama"), bits=8 if kind == "bytes" else None)
    plain = settings(method=method)
    spec = plain.model_copy(update={"arithmetic": kind})
    whole = result(trained(prepared(tmp_path / "whole"), base, spec))
    folder = prepared(tmp_path / "stopped")
    with monkeypatch.context() as patched, pytest.raises(Preempted):
        stop_after(patched, 4)
        trained(folder, base, spec)
    assert result(trained(folder, base, spec)) == whole
    assert result(trained(prepared(tmp_path / "floats"), base, plain)) != whole
