"""Several adapters on one base: each answers as alone, none leaves a trace, none is another's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.saved import saved
from tests.tiny import tiny_model
from tests.trained import base_of
from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.records import Batch
from tunesmith.model import heads
from tunesmith.model.adapters import Adapters
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model, quiet
from tunesmith.model.policy import Policy
from tunesmith.model.trained import load_trained
from tunesmith.train.methods.base import Method
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora

Tiny = Callable[[str], Path]
IDS = torch.tensor([[5, 9, 12, 40, 7, 300], [8, 30, 6, 11, 2, 17]])
METHODS: dict[str, Method] = {
    "wide": Lora(rank=4, alpha=6),
    "attention": Lora(rank=2, targets="attention"),
    "rooted": Lora(rank=3, scaling="rslora", targets="mlp"),
    "dora": Lora(rank=2, dora=True),
}


@pytest.fixture(scope="module")
def folders(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained folder by each method, on one base."""
    home, base = tmp_path_factory.mktemp("adapters"), base_of(tiny("llama"))
    kinds = {**METHODS, "full": Full()}
    return {n: saved(home / n, base, m).stage("train").path for n, m in kinds.items()}


@pytest.fixture
def base(tiny: Tiny) -> Base:
    return base_of(tiny("llama"))


def carrying(base: Base, folders: dict[str, Path], *names: str) -> Adapters:
    found = Adapters(base)
    for name in names or METHODS:
        found.add(name, folders[name])
    return found


def said(policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits by the model's own forward pass, and log-probabilities by the fast path."""
    targets = IDS.roll(-1, dims=1)
    batch = Batch(IDS, torch.ones_like(IDS, dtype=torch.bool), targets, torch.ones(2), ("", ""), ())
    with torch.no_grad():
        return policy.model(input_ids=IDS).logits, policy.logps(batch)


def same(one: Any, two: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_each_answers_as_alone_and_the_base_as_ever_however_often_they_change(
    base: Base, folders: dict[str, Path]
) -> None:
    alone: dict[str | None, Any] = {
        name: said(load_trained(folders[name], base)) for name in METHODS
    }
    alone[None] = said(load_trained(folders["wide"], base, tuned=False))
    found = carrying(base, folders)
    assert found.used is None and found.names == tuple(METHODS)
    for name in (None, *METHODS, None, *reversed(METHODS), "wide", None):
        found.use(name)
        assert found.used == name and same(said(found.policy), alone[name]), name
    with found.using("rooted") as policy:
        assert same(said(policy), alone["rooted"])
    assert found.used is None and same(said(found.policy), alone[None])
    assert not any(p.requires_grad for p in found.model.parameters())


def test_what_is_in_use_stays_in_use_when_another_comes_or_goes(
    base: Base, folders: dict[str, Path]
) -> None:
    found = carrying(base, folders, "attention")
    found.use("attention")
    before = said(found.policy)
    found.add("wide", folders["wide"])
    assert found.used == "attention" and same(said(found.policy), before)
    found.remove("wide")
    assert found.names == ("attention",) and same(said(found.policy), before)


def size(model: Any) -> int:
    """Bytes of the model's tensors, shared ones once."""
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(model)}
    return sum(kept.values())


def tensors(model: Any) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def test_memory_grows_by_the_adapters_own_bytes_and_is_given_back(
    base: Base, folders: dict[str, Path]
) -> None:
    found = Adapters(base)
    plain = size(found.model)
    for name in METHODS:
        before = size(found.model)
        found.add(name, folders[name])
        own = load_file(folders[name] / "adapter_model.safetensors")
        assert size(found.model) - before == sum(t.nbytes for t in own.values())
    before = size(found.model)
    found.combine("both", {"wide": 0.5, "rooted": 0.5})
    found.use("both")
    assert size(found.model) == before
    for name in ("both", *METHODS):
        found.remove(name)
    assert size(found.model) == plain
    with torch.no_grad():
        wanted = load_model(base)(input_ids=IDS).logits
        assert torch.equal(found.model(input_ids=IDS).logits, wanted)


def summed(base: Base, folders: dict[str, Path], weights: dict[str, float]) -> torch.Tensor:
    """Logits of the base whose weights had each adapter's product added, in float64."""
    model = load_model(base).double()
    named = dict(model.named_parameters())
    for name, share in weights.items():
        config = json.loads((folders[name] / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / config["r"] ** (0.5 if config["use_rslora"] else 1)
        own = load_file(folders[name] / "adapter_model.safetensors")
        for key in [key for key in own if "lora_A" in key]:
            layer = key.removeprefix("base_model.model.").replace(".lora_A", "")
            second = own[key.replace("lora_A", "lora_B")].double()
            named[layer].data += share * scale * second @ own[key].double()
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


@pytest.mark.parametrize(
    "weights",
    [
        {"wide": 0.7, "attention": 0.3},
        {"wide": 0.7, "attention": 0.5, "rooted": -0.4},
        {"rooted": 2.0},
    ],
    ids=str,
)
def test_a_weighted_sum_is_that_of_the_weights(
    base: Base, folders: dict[str, Path], weights: dict[str, float]
) -> None:
    found = carrying(base, folders)
    found.use("wide")
    before = said(found.policy)
    found.combine("sum", weights)
    found.use("sum")
    logits, logps = said(found.policy)
    wanted = summed(base, folders, weights)
    assert (logits - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))
    told = wanted.log_softmax(-1).gather(-1, IDS.roll(-1, dims=1)[..., None]).squeeze(-1)
    assert torch.allclose(logps, told, atol=1e-4)
    found.use("wide")
    assert same(said(found.policy), before), "no weight of a sum stays behind"


def test_only_what_is_a_product_beside_a_weight_is_summed(
    base: Base, folders: dict[str, Path]
) -> None:
    found = carrying(base, folders)
    found.combine("sum", {"wide": 1.0, "attention": 1.0})
    for name, why in {"dora": "DoRA", "sum": "is a weighted sum itself"}.items():
        with pytest.raises(SettingsError, match=why):
            found.combine("more", {"wide": 1.0, name: 1.0})
    with pytest.raises(SettingsError, match="name the adapters"):
        found.combine("more", {})
    with pytest.raises(SettingsError, match="wide: sum is made of it"):
        found.remove("wide")
    with pytest.raises(SettingsError, match="no adapter of this name; here are: wide, attention"):
        found.combine("more", {"other": 1.0})
    assert found.names == (*METHODS, "sum")


def test_what_cannot_stand_here_is_refused_in_a_sentence(
    base: Base, folders: dict[str, Path], tmp_path: Path
) -> None:
    found = carrying(base, folders, "wide")
    found.use("wide")
    before = said(found.policy)
    other = base_of(tiny_model("llama", tmp_path / "other", seed=7))
    with pytest.raises(IntegrityError, match="was trained on .* but the base here is"):
        Adapters(other).add("wide", folders["wide"])
    with pytest.raises(SettingsError, match="there is one of this name"):
        found.add("wide", folders["attention"])
    with pytest.raises(SettingsError, match="a name is made of letters"):
        found.add("a.b", folders["attention"])
    with pytest.raises(SettingsError, match="holds no adapter, but a whole model"):
        found.add("full", folders["full"])
    with pytest.raises(SettingsError, match="no adapter of this name; here are: wide"):
        found.use("other")
    assert found.names == ("wide",) and same(said(found.policy), before)


@pytest.mark.parametrize("first", [True, False])
def test_a_damaged_adapter_leaves_all_as_it_was(
    first: bool, base: Base, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["wide"], tmp_path / "cut")
    path = tmp_path / "cut" / "adapter_model.safetensors"
    kept = load_file(path)
    name = min(kept)
    save_file({k: t[:1].contiguous() if k == name else t for k, t in kept.items()}, path)
    found = Adapters(base) if first else carrying(base, folders, "attention")
    before = said(found.policy)
    with pytest.raises(
        IntegrityError, match=r"adapter_model.safetensors: .* does not fit \(1 such"
    ):
        found.add("cut", tmp_path / "cut")
    assert "cut" not in found.names and same(said(found.policy), before)
    found.add("cut", folders["wide"])
    found.use("cut")
    assert same(said(found.policy), said(load_trained(folders["wide"], base)))


def by_peft(folder: Path, source: Path, base: Base, settings: Any) -> Path:
    """A trained folder with an adapter of another kind, as peft saves it, its numbers moved."""
    from peft import get_peft_model

    shutil.copytree(source, folder)
    (folder / "adapter_model.safetensors").unlink()
    with quiet():
        model = get_peft_model(load_model(base), settings)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    model.save_pretrained(folder)
    return folder


def test_other_kinds_of_peft_share_a_base_among_themselves(
    base: Base, folders: dict[str, Path], tmp_path: Path
) -> None:
    from peft import IA3Config, PromptTuningConfig

    names = ["k_proj", "down_proj"]
    settings = IA3Config(target_modules=names, feedforward_modules=names[1:], task_type="CAUSAL_LM")
    scales = by_peft(tmp_path / "ia3", folders["wide"], base, settings)
    found = Adapters(base)
    before = said(found.policy)
    found.add("scales", scales)
    found.add("again", scales)
    found.use("again")
    assert (said(found.policy)[0] - before[0]).abs().max() > 1e-3
    assert same(said(found.policy), said(load_trained(scales, base)))
    found.use(None)
    assert same(said(found.policy), before)
    with pytest.raises(SettingsError, match="scales: is a IA3 adapter"):
        found.combine("sum", {"scales": 1.0})
    with pytest.raises(SettingsError, match="is a LORA adapter, and this base carries IA3"):
        found.add("wide", folders["wide"])
    prompt = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    read = by_peft(tmp_path / "prompt", folders["wide"], base, prompt)
    with pytest.raises(SettingsError, match="PROMPT_TUNING .* load it alone"):
        Adapters(base).add("prompt", read)


def headed(path: Path, base: Base, method: Method, *labels: str) -> Path:
    """A trained folder with a head of these labels."""
    folder = saved(path, base, method).stage("train").path
    head = heads.fresh(heads.Meaning(labels, "mean", False), 32, seed=len(labels))
    heads.save(head, folder)
    return folder


def test_heads_change_with_what_is_under_them(tiny: Tiny, tmp_path: Path) -> None:
    base = base_of(tiny("bert"))
    made = {
        "two": headed(tmp_path / "two", base, Lora(rank=2), "a", "b"),
        "three": headed(tmp_path / "three", base, Frozen(), "x", "y", "z"),
    }
    found = Adapters(base)
    for name, folder in made.items():
        found.add(name, folder)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    batch = Batch(IDS, mask, IDS, torch.ones(2), ("", ""), ())
    for name in ("two", "three", "two"):
        found.use(name)
        wanted = load_trained(made[name], base)
        assert found.policy.labels == wanted.labels
        with torch.no_grad():
            assert torch.equal(found.policy.scores(batch), wanted.scores(batch))
    found.use(None)
    assert found.policy.head is None
    with pytest.raises(SettingsError, match="has a head of its own"):
        found.combine("sum", {"two": 1.0})
