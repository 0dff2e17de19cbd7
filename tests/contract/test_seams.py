"""Every fast seam gives what its slow reference path gives, outputs and gradients."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, OPTConfig, SeedOssConfig

from tests.rows import batch, examples
from tests.tiny import ENCODERS, KINDS, SMALL, WIDE
from tests.trained import base_of
from tunesmith.core.records import IGNORE, Batch, collate
from tunesmith.model import attention, forwards, heads, layout, losshead
from tunesmith.model.generate import Decoder, Request, answers
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.prefix import Prefix
from tunesmith.train.methods.prompt import Prompt

Tiny = Callable[[str], Path]
LENGTHS = (7, 2, 13, 1, 5)
PACKED = [kind for kind in KINDS if kind != "falcon"]


@pytest.fixture(params=[False, True], ids=["piece by piece", "at once"])
def launches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of attention: that of a CPU, and that of a device whose launches cost."""
    monkeypatch.setattr(attention, "waits", lambda device: request.param)


def model_of(folder: Path, **changes: Any) -> Any:
    """The tiny model in double precision, whose last bits no rounding hides."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(folder, **changes).double().eval()


def gradients(policy: Policy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.model.zero_grad()
    loss.backward()
    named = policy.model.named_parameters()
    return {n: p.grad.clone() for n, p in named if p.grad is not None and p.grad.any()}


def bound(kind: str) -> float:
    """RMSNorm rounds to single precision inside, so a last bit before it is 1e-7 after it."""
    return 1e-12 if kind in ("gpt2", "phi", "falcon") else 1e-6


def assert_close(
    given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], kind: str
) -> None:
    assert given.keys() == wanted.keys()
    assert wanted
    for name, tensor in wanted.items():
        assert (given[name] - tensor).norm() <= bound(kind) * tensor.norm(), name


@pytest.mark.parametrize("kind", KINDS)
def test_nll_and_gradients_equal_the_models_own(kind: str, tiny: Tiny) -> None:
    model = model_of(tiny(kind))
    rows = batch(LENGTHS, 300, share=0.7)
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    assert fast.packs == (kind in PACKED)
    loss, expected = fast.nll(rows), slow.nll(rows)
    torch.testing.assert_close(loss, expected, rtol=bound(kind), atol=0)
    assert_close(gradients(fast, loss), gradients(slow, expected), kind)


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize("kind", KINDS)
def test_logps_under_any_upstream_gradient(kind: str, tiny: Tiny) -> None:
    model = model_of(tiny(kind))
    rows = batch(LENGTHS, 300, share=0.7)
    upstream = torch.randn(rows.mask.shape, dtype=torch.float64)
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    given, wanted = fast.logps(rows), slow.logps(rows)
    torch.testing.assert_close(given, wanted, rtol=bound(kind), atol=bound(kind))
    assert (given[rows.targets == IGNORE] == 0).all()
    fast_gradients = gradients(fast, (given * upstream).sum())
    assert_close(fast_gradients, gradients(slow, (wanted * upstream).sum()), kind)


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize("kind", PACKED)
def test_packed_documents_do_not_see_each_other(kind: str, tiny: Tiny) -> None:
    model = model_of(tiny(kind))
    rows = batch((6, 9), 300)
    packed = attention.pack(rows)
    alone = torch.cat(
        [
            model.base_model(input_ids=rows.ids[i : i + 1, :n]).last_hidden_state[0]
            for i, n in enumerate((6, 9))
        ]
    )
    torch.testing.assert_close(
        attention.hidden(model, packed), alone, rtol=bound(kind), atol=bound(kind)
    )


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize("kind", PACKED)
def test_gradient_of_one_document_with_respect_to_another_is_zero(kind: str, tiny: Tiny) -> None:
    model = model_of(tiny(kind))
    packed = attention.pack(batch((6, 9), 300))
    seen: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    hook = model.get_input_embeddings().register_forward_hook(keep)
    states = attention.hidden(model, packed)
    hook.remove()
    states[:6].square().sum().backward()
    gradient = seen[0].grad
    assert gradient is not None
    assert (gradient[0, 6:] == 0).all()
    assert gradient[0, :6].abs().sum() > 0


def alike(lengths: tuple[int, ...], common: int) -> Batch:
    """Rows that begin with the same `common` tokens, some of them supervised."""
    rows = batch(lengths, 300, share=0.9)
    rows.ids[1:, :common] = rows.ids[:1, :common]
    return rows


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize("kind", PACKED)
def test_a_common_beginning_is_read_once_and_counts_for_every_row(kind: str, tiny: Tiny) -> None:
    model, rows = model_of(tiny(kind)), alike((20, 14, 17), 12)
    packed = attention.pack(rows, share=True)
    assert packed.shared and packed.ids.shape[1] == 12 + 8 + 2 + 5
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    given, wanted = fast.logps(rows), slow.logps(rows)
    torch.testing.assert_close(given, wanted, rtol=bound(kind), atol=bound(kind))
    upstream = torch.randn(rows.mask.shape, dtype=torch.float64)
    fast_gradients = gradients(fast, (given * upstream).sum())
    assert_close(fast_gradients, gradients(slow, (wanted * upstream).sum()), kind)


def test_what_is_short_or_random_is_not_shared(tiny: Tiny) -> None:
    assert not attention.pack(alike((20, 14), attention.LEAST_SHARED - 1), share=True).shared
    whole = attention.pack(alike((14, 14), 14), share=True)
    assert whole.shared and whole.ids.shape[1] == 13 + 1 + 1, "each keeps a token of its own"
    assert not attention.pack(alike((14,), 14), share=True).shared
    model = model_of(tiny("llama")).train()
    assert not layout.drops(model)
    model.append = torch.nn.Dropout(0.1)
    assert layout.drops(model) and not layout.drops(model.eval())
    by_function = AutoModelForCausalLM.from_config(OPTConfig(**SMALL, ffn_dim=32, vocab_size=99))
    assert layout.drops(by_function.train()) and not layout.drops(by_function.eval())


@pytest.mark.parametrize("at_once", [False, True])
def test_a_sliding_window_reaches_into_the_common_beginning(at_once: bool) -> None:
    query, key = torch.randn(1, 4, 12, 8).double(), torch.randn(1, 2, 12, 8).double()
    plan = attention.Plan([6, 3, 3], shared=True)  # 6 common, then two rows of 3
    if at_once:
        plan = replace(plan, grid=attention.gridded(plan.lengths, 1, query.device))
    given, _ = attention.documents(None, query, key, key, None, plan=plan, sliding_window=4)
    for own in (slice(6, 9), slice(9, 12)):
        row = torch.cat([torch.arange(6), torch.arange(own.start, own.stop)])
        distance = torch.arange(9).unsqueeze(1) - torch.arange(9)
        mask = (distance >= 0) & (distance < 4)
        wanted = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, row], key[:, :, row], key[:, :, row], attn_mask=mask, enable_gqa=True
        )
        torch.testing.assert_close(given[0, own], wanted[0, :, 6:].transpose(0, 1))


@pytest.mark.parametrize("at_once", [False, True])
def test_sliding_window_and_dropout_take_the_general_path(at_once: bool) -> None:
    query, key = torch.randn(1, 4, 12, 8).double(), torch.randn(1, 2, 12, 8).double()
    plan = attention.Plan([7, 5])
    if at_once:
        plan = replace(plan, grid=attention.gridded(plan.lengths, 0, query.device))
    given, _ = attention.documents(None, query, key, key, None, plan=plan, sliding_window=3)
    distance = torch.arange(12).unsqueeze(1) - torch.arange(12)
    same = (torch.arange(12).unsqueeze(1) < 7) == (torch.arange(12) < 7)
    mask = (distance >= 0) & (distance < 3) & same
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, key, attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(given, wanted.transpose(1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "packs"), [("Mistral", True), ("Qwen2Moe", False)])
def test_how_far_a_layer_looks_is_kept_beyond_the_probes_documents(kind: str, packs: bool) -> None:
    """Mistral tells its attention of the window; Qwen2-MoE says it by the mask alone."""
    torch.manual_seed(0)
    settings = {**WIDE, "vocab_size": 300, "sliding_window": 24, "pad_token_id": 0}
    if kind == "Qwen2Moe":
        settings |= {"use_sliding_window": True, "moe_intermediate_size": 16, "num_experts": 4}
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    assert fast.packs == packs
    rows = batch((90, 40), 300)
    torch.testing.assert_close(fast.nll(rows), slow.nll(rows), rtol=1e-6, atol=0)


def test_a_model_with_a_capped_head_keeps_its_own_forward_pass() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
    )
    model = Gemma2ForCausalLM(config).double().eval()
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    assert not fast.splits_head
    rows = batch(LENGTHS, 64)
    torch.testing.assert_close(fast.nll(rows), slow.nll(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_head_equals_materialised_cross_entropy(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(1)
    head = torch.nn.Linear(16, 700, bias=bias, dtype=dtype)
    targets = torch.randint(700, (2 * losshead.CHUNK + 3,))
    weights = torch.rand(len(targets), dtype=dtype)
    bound = 1e-6 if dtype == torch.float32 else 1e-12
    results = []
    for path in (losshead.nll, losshead.nll_reference):
        hidden = torch.randn(
            len(targets), 16, dtype=dtype, generator=torch.Generator().manual_seed(2)
        )
        hidden.requires_grad_()
        head.zero_grad()
        loss = path(hidden, head, targets, weights)
        (loss * 0.37).backward()
        results.append([loss.detach(), hidden.grad, *(p.grad.clone() for p in head.parameters())])
    for fast, slow in zip(*results, strict=True):
        assert torch.linalg.norm(fast - slow) <= bound * torch.linalg.norm(slow)


def test_a_batch_without_supervised_tokens_gives_a_differentiable_zero(tiny: Tiny) -> None:
    policy = Policy(model_of(tiny("llama")), None)
    rows = batch((4, 3), 300, share=0.0)
    loss = policy.nll(rows)
    assert float(loss.detach()) == 0.0
    loss.backward()


def test_hits_counts_first_choices(tiny: Tiny) -> None:
    model = model_of(tiny("llama"))
    rows = collate(examples(LENGTHS, 300, share=0.9), "cpu")
    logits = model(input_ids=rows.ids, attention_mask=rows.mask.long()).logits
    wanted = ((logits.argmax(-1) == rows.targets) & (rows.targets != IGNORE)).sum()
    assert Policy(model, None).hits(rows) == wanted
    assert layout.width(model) == model.config.hidden_size


@pytest.mark.parametrize("kind", KINDS)
def test_lora_arithmetic_equals_pefts(kind: str, tiny: Tiny) -> None:
    from tunesmith.train.methods.lora import Lora

    model = Lora(rank=4).apply(model_of(tiny(kind)).requires_grad_(False), 0).double()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layout.trainable(model.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    assert bool(fast.low_rank) == (kind not in ("gpt2", "falcon"))
    rows = batch(LENGTHS, 300, share=0.7)
    loss, expected = fast.nll(rows), slow.nll(rows)
    torch.testing.assert_close(loss, expected, rtol=bound(kind), atol=0)
    assert_close(gradients(fast, loss), gradients(slow, expected), kind)


FUSED = {  # what is recognised in two blocks; GPT-2 and Phi have LayerNorm and no gate
    "llama": {"norm": 5, "feed_forward": 2, "attend": 2, "shortened": 1},
    "llama-untied": {"norm": 5, "feed_forward": 2, "attend": 2, "shortened": 1},
    "qwen3": {"norm": 9, "feed_forward": 2, "attend": 2, "shortened": 1},
    "gemma": {"norm": 5, "attend": 2, "shortened": 1},  # its gate is a GELU
    "gpt2": {},
    "phi": {},
    "falcon": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_block_are_known_by_what_they_hold(kind: str, tiny: Tiny) -> None:
    found = [
        part.forward.func.__name__ for part in Policy(model_of(tiny(kind)).float(), None).fused
    ]
    assert {name: found.count(name) for name in found} == FUSED[kind]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FUSED[kind]])
@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
def test_fused_parts_equal_the_modules_own(kind: str, full: bool, tiny: Tiny) -> None:
    """Single precision, in which all of them run; in double the norms keep their own."""
    from tunesmith.train.methods.lora import Lora

    model = model_of(tiny(kind)).float()
    if not full:
        model = Lora(rank=4).apply(model.requires_grad_(False), 0)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layout.trainable(model.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    assert fast.fused
    rows = batch(LENGTHS, 300, share=0.7)
    found = gradients(fast, fast.nll(rows))
    wanted = gradients(slow, slow.nll(rows))
    assert found.keys() == wanted.keys() and len(wanted) >= 12
    for name, tensor in wanted.items():
        assert (found[name] - tensor).norm() <= 1e-5 * tensor.norm(), name


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_base_in_16_bits_takes_the_fast_way_too(kind: str, tiny: Tiny) -> None:
    """Against the same numbers in double precision its gradients are as right as peft's."""
    from tunesmith.train.methods.lora import Lora

    narrow = model_of(tiny(kind)).bfloat16().requires_grad_(False)
    model = Lora(rank=4).apply(narrow, 0)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layout.trainable(model.parameters()):
            assert parameter.dtype == torch.float32
            parameter.add_(0.1 * torch.randn_like(parameter))
    rows = batch(LENGTHS, 300, share=0.7)
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    assert fast.low_rank and fast.fused
    found, other = (gradients(each, each.nll(rows)) for each in (fast, slow))
    precise = Policy(model.double(), None, fast=False)
    wanted = gradients(precise, precise.nll(rows))
    assert found.keys() == other.keys() == wanted.keys()

    def error(given: dict[str, torch.Tensor]) -> float:
        apart = [(given[n] - w).norm() / w.norm() for n, w in wanted.items()]
        return float(torch.stack(apart).mean())

    assert error(found) <= 1.5 * error(other) < 0.1


def compared(fast: Any, slow: Any, given: list[torch.Tensor]) -> None:
    """Outputs and all gradients of two functions under the same upstream, in double precision."""
    results = []
    for function in (fast, slow):
        inputs = [each.clone().requires_grad_() for each in given]
        output = function(*inputs)
        upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(5)).double()
        results.append([output.detach(), *torch.autograd.grad((output * upstream).sum(), inputs)])
    for found, wanted in zip(*results, strict=True):
        assert wanted.norm() > 0
        assert (found - wanted).norm() <= 1e-12 * wanted.norm()


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norm_equals_plain_arithmetic(offset: float) -> None:
    from functools import partial

    from tunesmith.model import norms

    settings = {"epsilon": 1e-5, "offset": offset}
    pair = partial(norms.normed, **settings), partial(norms.reference, **settings)
    compared(*pair, [double(2, 7, 16), double(16)])


def test_rotation_equals_plain_arithmetic() -> None:
    from tunesmith.model import rotary

    cos, sin = double(1, 7, 1, 8), double(1, 7, 1, 8)
    compared(
        lambda x: rotary.rotated(x, cos, sin),
        lambda x: rotary.reference(x, cos, sin),
        [double(2, 7, 3, 8)],
    )


@pytest.mark.parametrize("ranks", [(0, 0, 0), (4, 4, 4), (4, 0, 2)])
def test_layers_over_one_input_equal_plain_arithmetic(ranks: tuple[int, ...]) -> None:
    """Alone and inside a gated feed-forward part; with biases, and with weights that train."""
    from tunesmith.model import gated, lowrank

    sides, scale = [(6, 10), (6, 10), (10, 6)], 1.7
    given = [double(5, 6)]
    for (inputs, outputs), rank in zip(sides, ranks, strict=True):
        given += [double(outputs, inputs), double(outputs)]
        given += [double(rank, inputs), double(outputs, rank)] if rank else []

    def read(parts: tuple[torch.Tensor, ...]) -> list[lowrank.Linear]:
        left, found = list(parts), []
        for rank in ranks:
            low = [left.pop(0) for _ in range(4 if rank else 2)]
            found.append(lowrank.Linear(*low, *([] if rank else [None, None]), scale))
        return found

    def plain(x: torch.Tensor, linear: lowrank.Linear) -> torch.Tensor:
        base = torch.nn.functional.linear(x, linear.weight, linear.bias)
        if linear.first is None or linear.second is None:
            return base
        return base + scale * x @ linear.first.t() @ linear.second.t()

    def slow(x: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        gate, up, down = read(parts)
        return plain(torch.nn.functional.silu(plain(x, gate)) * plain(x, up), down)

    compared(lambda x, *parts: gated.feed_forward(x, read(parts)), slow, given)
    both = given[: -(4 if ranks[2] else 2)]
    ranks = ranks[:2]
    compared(
        lambda x, *parts: torch.cat(lowrank.together(x, read(parts)), -1),
        lambda x, *parts: torch.cat([plain(x, each) for each in read(parts)], -1),
        both,
    )


def test_a_part_that_does_more_than_it_looks_keeps_its_own_forward(tiny: Tiny) -> None:
    """Found by the answer: nothing in the structure tells."""
    model = model_of(tiny("llama")).float()
    layer = model.model.layers[1]
    layer.mlp.act_fn = torch.nn.GELU()
    layer.self_attn.rotates = False
    own = type(layer.self_attn).forward
    layer.self_attn.forward = lambda hidden_states, **named: own(
        layer.self_attn, 2 * hidden_states, **named
    )
    kept = {part.module for part in Policy(model, None).fused}
    assert layer.mlp not in kept and layer.self_attn not in kept
    assert model.model.layers[0].mlp in kept and model.model.layers[0].self_attn in kept


def test_a_part_that_drops_numbers_in_training_keeps_its_own_forward() -> None:
    """By a function, as Starcoder2 and Seed-OSS do: a probe in evaluation mode cannot tell."""
    torch.manual_seed(0)
    settings = {"vocab_size": 300, "residual_dropout": 0.5, "pad_token_id": 0, **WIDE}
    model = AutoModelForCausalLM.from_config(SeedOssConfig(**settings, head_dim=8)).train()
    policy = Policy(model, None)
    assert {part.forward.func.__name__ for part in policy.fused} == {"norm"}
    assert policy.packs and policy.laid == "packed", "no two beginnings are alike"
    assert all(module.training for module in model.modules())
    rows = batch(LENGTHS, 300, share=0.7)
    assert policy.nll(rows) != policy.nll(rows)
    model.eval()
    assert policy.nll(rows) == policy.nll(rows)


def test_a_probe_that_fails_leaves_every_module_in_its_mode(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise NotImplementedError

    model = model_of(tiny("llama")).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    monkeypatch.setattr(attention, "hidden", broken)
    assert not Policy(model, None).packs
    assert [module.training for module in model.modules()] == before


ENDS = ("llama", "llama-untied", "qwen3", "gemma")


@pytest.mark.parametrize("kind", KINDS)
def test_behind_the_last_attention_only_what_is_asked_for_is_computed(
    kind: str, tiny: Tiny
) -> None:
    model = model_of(tiny(kind))
    policy, rows = Policy(model, None), batch(LENGTHS, 300, share=0.5)
    asked, seen = int((rows.targets != IGNORE).sum()), list[int]()
    assert ends(policy) == (kind in ENDS)
    assert 0 < asked < int(rows.mask.sum()) - 1
    for block in layout.blocks(model):
        if kind in ENDS:
            block.mlp.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-2]))
    policy.nll(rows)
    assert seen == ([int(rows.mask.sum()), asked] if kind in ENDS else [])


def test_a_last_block_that_does_more_than_its_modules_tell_is_left_whole() -> None:
    """Granite scales what a part adds; Gemma 2 has norms behind its parts too."""
    plain = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    kinds = {
        "GraniteConfig": {"residual_multiplier": 0.5},
        "Gemma2Config": {"head_dim": 8, "sliding_window": 64, **plain},
    }
    for name, own in kinds.items():
        settings = {"vocab_size": 300, "pad_token_id": 0, **WIDE, **own}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings))
        policy = Policy(model, None)
        known = [part.module for part in policy.fused]
        assert layout.blocks(model)[-1].self_attn in known, name
        assert not ends(policy), name


def ends(policy: Policy) -> bool:
    """Whether the last block is one of the parts."""
    return layout.blocks(policy.model)[-1] in [part.module for part in policy.fused]


def test_nobody_asks_for_a_token_or_everybody_for_all(tiny: Tiny) -> None:
    model = model_of(tiny("llama"))
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    rows = batch(LENGTHS, 300, share=0.0)
    assert fast.nll(rows).item() == slow.nll(rows).item() == 0
    everything = rows.mask.flatten().nonzero().squeeze(1)
    whole = slow.hidden(rows, everything)
    torch.testing.assert_close(fast.hidden(rows, everything), whole, rtol=1e-6, atol=1e-6)


def test_several_rows_ask_for_a_token_of_their_common_beginning(tiny: Tiny) -> None:
    model, rows = model_of(tiny("llama")), alike((20, 14, 17), 12)
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    width = rows.mask.shape[1]
    asked = torch.tensor([5, 13, width + 5, width + 13, 2 * width + 5, 2 * width])
    assert fast.laid == "shared" and ends(fast)
    found, wanted = fast.hidden(rows, asked), slow.hidden(rows, asked)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[0], found[2])


def test_dropout_of_attention_leaves_the_last_block_short(tiny: Tiny) -> None:
    model = model_of(tiny("llama"), attention_dropout=0.3).train()
    policy, rows = Policy(model, None), batch(LENGTHS, 300, share=0.7)
    assert ends(policy) and policy.laid == "packed"
    assert policy.nll(rows) != policy.nll(rows), "and it is still dropped"
    plain = Policy(model.eval(), None, fast=False)
    assert policy.nll(rows).item() == pytest.approx(plain.nll(rows).item(), rel=1e-6)
    assert {block.self_attn.attention_dropout for block in layout.blocks(model)} == {0.3}


def test_what_stood_in_for_a_forward_before_comes_back() -> None:
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    layer.forward = noted = lambda x: x + 1
    with forwards.standing_in({layer: lambda x: x + 2, other: lambda x: x + 3}):
        assert layer(torch.zeros(1)) == 2 and other(torch.zeros(1)) == 3
    assert layer.forward is noted and "forward" not in vars(other)


def test_a_look_makes_no_gradient_of_a_head_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(losshead, "_to_head", lambda *given: asked.append(given[2]))
    head, hidden = torch.nn.Linear(4, 9, bias=False), torch.randn(3, 4)
    given = hidden, head, torch.tensor([1, 2, 3]), torch.ones(3)
    with torch.no_grad():
        looked = losshead.nll(*given)
    assert asked == [None]
    assert losshead.nll(*given) == looked and asked[1] is not None


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"dora": True}], ids=["dropout", "dora"])
def test_fused_parts_leave_other_kinds_of_lora_to_peft(changes: dict[str, Any], tiny: Tiny) -> None:
    from tunesmith.train.methods.lora import Lora

    model = Lora(rank=4, **changes).apply(model_of(tiny("llama")).float().requires_grad_(False), 0)
    model.eval()
    rows = batch(LENGTHS, 300, share=0.7)
    fast, slow = Policy(model, None), Policy(model, None, fast=False)
    torch.testing.assert_close(fast.nll(rows), slow.nll(rows), rtol=1e-5, atol=0)
    names = {part.forward.func.__name__ for part in fast.fused}
    assert "norm" in names


def test_the_quick_product_is_the_plain_one() -> None:
    from tunesmith.model import products

    rows, weight, bias = torch.randn(9, 7), torch.randn(5, 7), torch.randn(5)
    wanted = rows.double() @ weight.double().t() + bias
    for each in (weight, weight.t().contiguous().t()):
        given = products.product(rows, each, bias)
        torch.testing.assert_close(given, wanted.float(), rtol=1e-5, atol=1e-5)
    assert products.product(rows[:0], weight).shape == (0, 5)


@pytest.mark.parametrize("kind", [*KINDS, *ENCODERS])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_scores_and_gradients_equal_the_models_own(kind: str, pooling: Any, tiny: Tiny) -> None:
    """Packed or padded, by our LoRA arithmetic or by peft's."""
    from tunesmith.train.methods.lora import Lora

    plain = load_model(base_of(tiny(kind))).double().requires_grad_(False)
    model = Lora(rank=4).apply(plain, 0).double()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layout.trainable(model.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    head = heads.fresh(heads.Meaning(("a", "b"), pooling, False), layout.width(model), seed=0)
    head.linear.double()
    fast, slow = (Policy(model, None, head=head, fast=way) for way in (True, False))
    assert bool(fast.low_rank) == (kind not in ("gpt2", "falcon"))
    rows = batch(LENGTHS, 300)
    given, wanted = fast.scores(rows), slow.scores(rows)
    tolerance = max(bound(kind), 1e-9)
    torch.testing.assert_close(given, wanted, rtol=tolerance, atol=tolerance)
    found = gradients(fast, given.square().sum())
    expected = gradients(slow, wanted.square().sum())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"dora": True}], ids=["dropout", "dora"])
def test_other_kinds_of_lora_keep_pefts_forward(changes: dict[str, Any], tiny: Tiny) -> None:
    from tunesmith.train.methods.lora import Lora

    model = model_of(tiny("llama")).requires_grad_(False)
    policy = Policy(Lora(rank=4, **changes).apply(model, 0), None)
    assert policy.low_rank == []


def test_lora_switched_off_is_the_base_on_the_fast_path_too(tiny: Tiny) -> None:
    from tunesmith.train.methods.lora import Lora

    plain, rows = model_of(tiny("llama")), batch(LENGTHS, 300)
    wanted = Policy(plain, None).logps(rows)
    model = Lora(rank=4).apply(model_of(tiny("llama")).requires_grad_(False), 0).double()
    for parameter in layout.trainable(model.parameters()):
        parameter.data.add_(0.1)
    policy = Policy(model, None, method=Lora(rank=4))
    assert policy.low_rank
    with policy.reference() as before:
        assert torch.equal(before.logps(rows), wanted)


SOFT = [Prefix(length=5), Prompt(length=5)]


def behind(method: Method, model: Any) -> Any:
    """The model under virtual tokens whose numbers were moved at random."""
    tuned = method.apply(model.requires_grad_(False), 0)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in layout.trainable(tuned.parameters()):
            weight.add_(0.1 * torch.randn_like(weight))
    return tuned.eval()


@pytest.mark.parametrize("method", SOFT, ids=lambda method: method.kind)
@pytest.mark.parametrize("kind", KINDS)
def test_behind_virtual_tokens_all_paths_equal_pefts_own(
    kind: str, method: Method, tiny: Tiny
) -> None:
    """peft's forward pass is the reference: losses and gradients, packed and in padded rows."""
    tuned = behind(method, model_of(tiny(kind)))
    rows = batch(LENGTHS, 300, share=0.7)
    wanted = torch.zeros((), dtype=torch.float64)
    for at, length in enumerate(rows.mask.sum(1).tolist()):
        ids = rows.ids[at : at + 1, :length]
        logits = tuned(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -length:]
        targets = rows.targets[at, :length]
        told = targets != IGNORE
        chosen = logits.log_softmax(1)[told].gather(1, targets[told].unsqueeze(1))
        wanted = wanted - chosen.sum() * rows.weights[at]
    expected = gradients(Policy(tuned, None, fast=False), wanted)
    for fast in (True, False):
        policy = Policy(tuned, None, fast=fast)
        assert policy.packs == (fast and kind in PACKED)
        loss = policy.nll(rows)
        torch.testing.assert_close(loss, wanted, rtol=bound(kind), atol=0)
        # peft 0.21 keeps what it trains in single precision.
        found = gradients(policy, loss)
        assert found.keys() == expected.keys() and expected
        for name, tensor in expected.items():
            assert (found[name] - tensor).norm() <= 1e-6 * tensor.norm(), name


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize("method", SOFT, ids=lambda method: method.kind)
def test_rows_that_begin_alike_share_their_beginning_behind_virtual_tokens(
    method: Method, tiny: Tiny
) -> None:
    tuned = behind(method, model_of(tiny("llama")))
    alike = batch((20, 14, 17), 300)
    alike.ids[:, :12] = alike.ids[0, :12]
    fast, slow = Policy(tuned, None), Policy(tuned, None, fast=False)
    assert attention.pack(alike, share=True).shared
    torch.testing.assert_close(fast.logps(alike), slow.logps(alike), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("method", SOFT, ids=lambda method: method.kind)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "gpt2", "phi", "falcon"])
def test_answers_behind_virtual_tokens_are_those_of_pefts_generate(
    kind: str, method: Method, tiny: Tiny
) -> None:
    tuned = behind(method, model_of(tiny(kind)))
    tokenizer = Tokenizer.load(tiny(kind))
    prompts = [tuple(e.sequences[0].ids) for e in examples((9, 4, 14), 300)]
    said = []
    for fast in (True, False):
        decoder = Decoder(tuned, tokenizer, rows=2, fast=fast)
        asked = [Request(str(at), ids, 12) for at, ids in enumerate(prompts)]
        said.append({answer.key: answer.ids for answer in answers(decoder, asked)})
        used = type(decoder._rows).__name__
        assert used == ("Slots" if fast and kind != "falcon" else "Alone")
    assert said[0] == said[1]
    for at, ids in enumerate(prompts):
        given = torch.tensor([ids])
        whole = tuned.generate(
            input_ids=given, attention_mask=torch.ones_like(given), do_sample=False,
            max_new_tokens=12, eos_token_id=list(tokenizer.stop_ids), pad_token_id=0,
        )  # fmt: skip
        found = list(said[0][str(at)])
        assert found and whole[0, len(ids) :].tolist()[: len(found)] == found


@pytest.mark.parametrize("method", SOFT, ids=lambda method: method.kind)
def test_choices_behind_virtual_tokens_have_the_chances_of_reading_each_alone(
    method: Method, tiny: Tiny
) -> None:
    from tunesmith.model import tree
    from tunesmith.model.trie import grown

    tuned = behind(method, model_of(tiny("llama")))
    paths = ((5, 2), (5, 4, 1, 2), (5, 4, 3, 2), (3, 2))
    trie = grown([str(path) for path in paths], paths)
    prompt = (7, 9, 11, 4)
    assert tree.works(tuned)
    torch.testing.assert_close(
        tree.together(tuned, prompt, trie),
        tree.one_by_one(tuned, prompt, trie),
        rtol=1e-6,
        atol=1e-6,
    )
    with torch.no_grad():
        ids = torch.tensor([[*prompt, 5, 4, 1]])
        logits = tuned(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -4:]
    wanted = logits.log_softmax(1)[range(4), [5, 4, 1, 2]].sum()
    torch.testing.assert_close(tree.logps(tuned, prompt, trie)[1], wanted, rtol=1e-6, atol=1e-6)
