"""What every tuning method promises: what moves, what stays, and what can be undone or kept."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from transformers import AutoModelForCausalLM

from tests.rows import batch
from tunesmith.core.errors import IntegrityError, ResourceError, SettingsError
from tunesmith.model import bottleneck, heads, layout
from tunesmith.model.merge import merge
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy
from tunesmith.model.trained import has_adapter
from tunesmith.train.methods.adapter import Adapter
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.ia3 import Ia3
from tunesmith.train.methods.lora import Lora
from tunesmith.train.methods.prefix import Prefix
from tunesmith.train.methods.prompt import Prompt
from tunesmith.train.optimiser import adamw

Tiny = Callable[[str], Path]
MEMBERS: dict[str, Method] = {
    **{kind: part() for kind, part in Method.members().items()},
    "lora+rslora": Lora(rank=4, scaling="rslora"),
    "lora+dora": Lora(rank=4, dora=True),
    "lora+dropout": Lora(rank=4, dropout=0.1),
    "lora+attention": Lora(rank=4, targets="attention"),
    "lora+pissa": Lora(rank=4, init="pissa"),
    "full+blocks": Full(blocks=1),
    "adapter+mlp": Adapter(size=4, after="mlp", activation="gelu"),
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


def same(given: Any, wanted: Any, *, method: Method) -> None:
    """Equal to the bit; PiSSA takes numbers out of the weights, and putting them back rounds."""
    bound = 2e-6 if "pissa" in method.model_dump().values() else 0.0
    torch.testing.assert_close(given, wanted, rtol=bound, atol=bound)


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
        same(before.logps(rows), plain, method=moving)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_answers_like_the_adapter(method: Method, kind: str, tiny: Tiny) -> None:
    rows = batch((9, 4), 300)
    policy = shaken(method, loaded(tiny(kind)))
    if not method.mergeable:
        with pytest.raises(SettingsError, match=r"no weights of the base.*exports: \[adapter\]"):
            merge(policy.model)
        return
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
    same(again.logps(rows), wanted, method=method)


def test_it_says_whether_an_adapter_is_what_it_leaves(
    method: Method, tiny: Tiny, tmp_path: Path
) -> None:
    method.save(shaken(method, loaded(tiny("llama"))).model, tmp_path)
    assert method.leaves_adapter == has_adapter(tmp_path)


SCORING = ("bert", "distilbert", "modernbert", "llama-untied", "gpt2")


def scoring(method: Method, folder: Path, *, shake: bool = True) -> Policy:
    """A policy with a head of three labels; the head and what may move moved at random."""
    from tests.trained import base_of
    from tunesmith.model.load import load_model

    model = load_model(base_of(folder)).requires_grad_(False)
    frozen = copy.deepcopy(model) if method.needs_copy else None
    tuned = method.apply(model, 0)
    head = heads.fresh(heads.Meaning(("a", "b", "c"), "mean", False), layout.width(model), seed=0)
    policy = Policy(tuned.eval(), None, method=method, frozen=frozen, head=head)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable() if shake else []:
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy


def refuse_encoders(method: Method, folder: Path) -> None:
    """Virtual tokens stand before what is read in order: no encoder has such a place."""
    from tests.trained import base_of
    from tunesmith.model.load import load_model

    model = load_model(base_of(folder))
    if "length" in type(method).model_fields and not layout.writes(model):
        with pytest.raises(SettingsError, match="encoder"):
            method.apply(model, 0)
        pytest.skip("refused, as it should be")


@pytest.mark.parametrize("kind", SCORING)
def test_under_a_head_what_may_move_moves_and_nothing_else(
    method: Method, kind: str, tiny: Tiny
) -> None:
    refuse_encoders(method, tiny(kind))
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
    refuse_encoders(method, folder)
    policy = scoring(method, folder)
    wanted, head = policy.scores(rows).detach(), policy.head
    plain = Policy(load_model(base_of(folder)), None, head=head)
    if method.moves:
        assert not torch.allclose(plain.scores(rows), wanted, atol=1e-3)
    with policy.reference() as before:
        same(before.scores(rows), plain.scores(rows), method=method)
    method.save(policy.model, tmp_path)
    model = method.load(load_model(base_of(folder)).requires_grad_(False), tmp_path)
    same(Policy(model.eval(), None, head=head).scores(rows), wanted, method=method)
    if not method.mergeable:
        return
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


def moved_share(method: Method, model: Any) -> float:
    """The share of what may move that did, in twenty small steps."""
    tuned = method.apply(model, 0).train()
    policy, rows = Policy(tuned, None, method=method), batch((9, 12, 7), 300)
    assert {p.dtype for p in policy.trainable()} == {torch.float32}
    before = [p.detach().clone() for p in policy.trainable()]
    optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999))
    for group in optimizer.param_groups:
        group["lr"] = 1e-5
    for _ in range(20):
        optimizer.zero_grad()
        policy.nll(rows).backward()
        optimizer.step()
    floats = [t for s in optimizer.state.values() for t in s.values() if t.dim()]
    assert {t.dtype for t in floats} == {torch.float32}
    moved = [(p != was).sum() for p, was in zip(policy.trainable(), before, strict=True)]
    return float(sum(moved)) / sum(p.numel() for p in before)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_small_updates_are_not_lost_on_a_base_in_16_bits(
    moving: Method, kind: str, tiny: Tiny
) -> None:
    """T-BF16: what trains, and the optimiser's state, is fp32 whatever the base is held in."""
    narrow = loaded(tiny(kind)).bfloat16()
    if isinstance(moving, Full):
        with pytest.raises(SettingsError, match=r"model\.dtype: .*small updates would be lost"):
            moving.apply(narrow, 0)
        return
    wide = moved_share(moving, loaded(tiny(kind)))
    assert moved_share(moving, narrow) >= 0.9 * wide > 0


@pytest.mark.parametrize("kind", KINDS)
def test_pissa_goes_on_where_other_numbers_would_be_drawn(kind: str, tiny: Tiny) -> None:
    """Another device draws others, and the saved adapter must stand on what it was taken from."""
    method, rows = Lora(rank=4, init="pissa"), batch((9, 4), 300)
    policy = shaken(method, loaded(tiny(kind)))
    state = {n: t.clone() for n, t in method.state(policy.model).items()}
    other = method.apply(loaded(tiny(kind)), 5).eval()
    method.restore(other, state)
    again = Policy(other, None, method=method)
    torch.testing.assert_close(again.logps(rows), policy.logps(rows), rtol=1e-5, atol=1e-5)
    with again.reference() as before:
        plain = Policy(loaded(tiny(kind)).eval(), None).logps(rows)
        torch.testing.assert_close(before.logps(rows), plain, rtol=1e-5, atol=1e-5)


def test_a_changed_ratio_holds_after_a_resume(tiny: Tiny) -> None:
    from tunesmith.train.optimiser import settle
    from tunesmith.train.state import flatten_optimizer, restore_optimizer

    def made(ratio: float) -> tuple[Any, dict[str, Any], dict[Any, float]]:
        method = Lora(rank=4, ratio=ratio)
        policy = Policy(method.apply(loaded(tiny("llama")), 0), None)
        paces = {p: method.pace(n) for n, p in policy.named()}
        optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999), paces=paces)
        return optimizer, {n: p for n, p in policy.named() if p.requires_grad}, paces

    for before, after in ((4.0, 16.0), (1.0, 16.0), (16.0, 1.0)):
        saved, names, _ = made(before)
        for parameter in names.values():
            parameter.grad = torch.ones_like(parameter)
        saved.step()
        tensors, described = flatten_optimizer(saved, names)
        optimizer, names, paces = made(after)
        restore_optimizer(optimizer, names, tensors, described)
        settle(optimizer, decay=0.0, betas=(0.9, 0.999), paces=paces)
        scale = {id(p): g["scale"] for g in optimizer.param_groups for p in g["params"]}
        for name, parameter in names.items():
            assert scale[id(parameter)] == (after if "lora_B" in name else 1.0)
            assert optimizer.state[parameter]["exp_avg"].abs().max() > 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"layers": ["a", "a"], "size": 4, "activation": "relu"}', "does not describe"),
        ('{"layers": "abc", "size": 4, "activation": "relu"}', "does not describe"),
        ('{"layers": [], "size": 1e9, "activation": "relu"}', "does not describe"),
        ("[" * 100_000, "is not JSON"),
        ('{"size": 4}', "cannot be read"),
    ],
)
def test_a_damaged_description_of_an_adapter_is_one_sentence(
    content: str, said: str, tiny: Tiny, tmp_path: Path
) -> None:
    bottleneck.save(shaken(Adapter(), loaded(tiny("llama"))).model, tmp_path)
    (tmp_path / bottleneck.SETTINGS).write_text(content)
    with pytest.raises(IntegrityError, match=said):
        bottleneck.load(loaded(tiny("llama")), tmp_path)


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


BLOCKS, WIDTH, KEYS, INNER = 2, 32, 16, 64
"""Of the tiny llama: its blocks, and the widths of states, of keys and of the feed-forward part."""
SIDES = 4 * WIDTH + 2 * (WIDTH + KEYS) + 3 * (WIDTH + INNER)
"""Inputs and outputs of all seven layers of a block."""
BY_HAND: dict[str, tuple[Method, int]] = {
    "full": (
        Full(blocks=1),
        WIDTH * (2 * WIDTH + 2 * KEYS) + 3 * WIDTH * INNER + 2 * WIDTH + WIDTH,
    ),
    "dora": (Lora(rank=4, dora=True), BLOCKS * (4 * SIDES + 3 * WIDTH + 2 * KEYS + 2 * INNER)),
    "ia3": (Ia3(), BLOCKS * (2 * KEYS + INNER)),
    "prefix": (Prefix(length=5), 5 * 2 * BLOCKS * KEYS),
    "prompt": (Prompt(length=5), 5 * WIDTH),
    "adapter": (Adapter(size=8), 2 * BLOCKS * (2 * WIDTH * 8 + 8 + WIDTH)),
    "adapter after mlp": (Adapter(size=8, after="mlp"), BLOCKS * (2 * WIDTH * 8 + 8 + WIDTH)),
    "frozen": (Frozen(), 0),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_as_many_numbers_move_as_the_formula_says(case: str, tiny: Tiny) -> None:
    method, count = BY_HAND[case]
    tuned = method.apply(loaded(tiny("llama")), 0)
    assert sum(p.numel() for p in layout.trainable(tuned.parameters())) == count


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "gpt2", "phi", "falcon"])
@pytest.mark.parametrize("method", [Ia3(), Adapter(), Prefix(), Prompt()], ids=lambda m: m.kind)
def test_it_finds_its_place_in_every_kind_of_model(method: Method, kind: str, tiny: Tiny) -> None:
    rows = batch((9, 4), 300)
    plain = Policy(loaded(tiny(kind)).eval(), None).logps(rows)
    policy = shaken(method, loaded(tiny(kind)))
    assert not torch.allclose(policy.logps(rows), plain, atol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh"])
def test_a_bottleneck_adapter_is_its_formula_in_double_precision(
    activation: str, tiny: Tiny
) -> None:
    """y = W x + U f(D W x), outputs and gradients against numpy's arithmetic and differences."""
    model = loaded(tiny("llama")).double()
    tuned = Adapter(size=6, activation=activation).apply(model, 0)
    name, found = next(iter(bottleneck.inside(tuned).items()))
    assert name == "model.layers.0.self_attn.o_proj"
    found.double()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in (*found.down.parameters(), *found.up.parameters()):
            weight.normal_(std=0.5)
    x = torch.randn(7, WIDTH, dtype=torch.float64)
    weight, (d, d0), (u, u0) = (
        found.base_layer.weight.numpy(),
        [p.detach().numpy() for p in found.down.parameters()],
        [p.detach().numpy() for p in found.up.parameters()],
    )

    def formula(d: Any) -> Any:
        inner = x.numpy() @ weight.T
        narrow = inner @ d.T + d0
        bent = {
            "relu": np.maximum(narrow, 0),
            "tanh": np.tanh(narrow),
            "silu": narrow / (1 + np.exp(-narrow)),
            "gelu": narrow * 0.5 * (1 + erf(narrow / np.sqrt(2))),
        }[activation]
        return inner + bent @ u.T + u0

    given = found(x)
    np.testing.assert_allclose(given.detach().numpy(), formula(d), rtol=1e-12, atol=1e-12)
    given.square().sum().backward()
    step = np.zeros_like(d)
    step[2, 3] = 1e-6
    slope = ((formula(d + step) ** 2).sum() - (formula(d - step) ** 2).sum()) / 2e-6
    np.testing.assert_allclose(float(found.down.weight.grad[2, 3]), slope, rtol=1e-5)


def test_virtual_tokens_start_from_the_words_that_are_named(tiny: Tiny) -> None:
    from tunesmith.model import lead
    from tunesmith.model.tokenizer import Tokenizer

    tokenizer, model = Tokenizer.load(tiny("llama")), loaded(tiny("llama"))
    method = Prompt(length=5, text="the red colour")
    tuned = method.apply(model, 0)
    method.begin(tuned, tokenizer)
    ids = tokenizer.encode("the red colour")
    wanted = model.get_input_embeddings().weight[(ids * 5)[:5]]
    assert torch.equal(lead.weights(tuned), wanted)
    prefix = Prefix(length=5, text="the red colour")
    tuned = prefix.apply(loaded(tiny("llama")), 0)
    prefix.begin(tuned, tokenizer)
    before = lead.of(tuned)
    assert before is not None
    plain = model(input_ids=torch.tensor([(ids * 5)[:5]]), use_cache=True).past_key_values
    assert torch.equal(before.layers[1][0], plain.layers[1].keys)
    assert torch.equal(before.layers[1][1], plain.layers[1].values)


@pytest.mark.parametrize("part", ["length", "text"])
def test_virtual_tokens_that_cannot_be_are_refused(part: str, tiny: Tiny) -> None:
    from tunesmith.model.tokenizer import Tokenizer

    if part == "length":
        with pytest.raises(SettingsError, match="leave no room for rows"):
            Prefix(length=512).apply(loaded(tiny("llama")), 0)
        return
    method = Prompt(length=4, text="")
    tuned = method.apply(loaded(tiny("llama")), 0)
    with pytest.raises(SettingsError, match="text"):
        method.begin(tuned, Tokenizer.load(tiny("llama")))


def test_full_refuses_more_blocks_than_there_are(tiny: Tiny) -> None:
    with pytest.raises(SettingsError, match="more than the 2 blocks"):
        Full(blocks=3).apply(loaded(tiny("llama")), 0)


def test_the_last_blocks_train_without_gradients_below(tiny: Tiny) -> None:
    tuned = Full(blocks=1).apply(loaded(tiny("llama")), 0)
    names = {n for n, p in tuned.named_parameters() if p.requires_grad}
    assert names and all(n.startswith(("model.layers.1.", "model.norm.")) for n in names)
    assert "model.norm.weight" in names


@pytest.mark.parametrize(
    "method", [Full(blocks=1), Ia3(), Adapter(), Prefix(), Prompt()], ids=lambda m: m.kind
)
def test_words_that_nothing_would_train_are_refused(method: Method, tiny: Tiny) -> None:
    model = loaded(tiny("llama"))
    model.added_rows = [479]
    with pytest.raises(SettingsError, match=r"model\.tokens would never be learned"):
        method.apply(model, 0)


def test_lora_plus_moves_b_as_much_faster_as_it_says(tiny: Tiny) -> None:
    """LoRA+ (arXiv 2402.12354): one learning rate for A, a multiple of it for B."""
    method = Lora(rank=4, ratio=8)
    model = method.apply(loaded(tiny("llama")), 0)
    policy = Policy(model, None, method=method)
    paces = {p: method.pace(n) for n, p in policy.named()}
    optimizer = adamw(policy.trainable(), decay=0.0, betas=(0.9, 0.999), paces=paces)
    scale = {id(p): g["scale"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert scale[id(parameter)] == (8 if "lora_B" in name else 1), name


def test_pissa_starts_as_the_base_and_from_its_largest_singular_values(tiny: Tiny) -> None:
    rows, model = batch((9, 4), 300), loaded(tiny("llama"))
    name = "model.layers.0.mlp.up_proj"
    before = model.get_submodule(name).weight.clone()
    plain = Policy(loaded(tiny("llama")).eval(), None).logps(rows)
    tuned = Lora(rank=16, init="pissa").apply(model, 0).eval()
    torch.testing.assert_close(Policy(tuned, None).logps(rows), plain, rtol=2e-6, atol=2e-6)
    layer = tuned.get_submodule(f"base_model.model.{name}")
    taken = before - layer.base_layer.weight
    left = torch.linalg.svdvals(layer.base_layer.weight)
    all_of_them = torch.linalg.svdvals(before)
    assert torch.linalg.matrix_rank(taken) == 16
    # The quick way of the paper finds them nearly, not to the last bits.
    assert left[0] <= 1.1 * all_of_them[16]


def test_lora_refuses_targets_that_are_not_there(tiny: Tiny) -> None:
    with pytest.raises(SettingsError, match="q_proj"):
        Lora(targets=["query_key"]).apply(loaded(tiny("llama")), 0)


def test_endings_tell_layers_of_one_name_apart() -> None:
    everything = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.1.attn.c_proj", "h.1.mlp.c_proj"]
    assert layout.endings(everything, everything) == ["c_proj"]
    assert layout.endings(everything[::2], everything) == ["attn.c_proj"]


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
