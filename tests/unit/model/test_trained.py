"""A trained folder comes back as what was trained, on its own base, by safe readers only."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trained import base_of, prepared, reloaded, settings, trained
from tunesmith.core.errors import IntegrityError
from tunesmith.core.folders import RunFolder
from tunesmith.model.bases import Base
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.trained import load_trained
from tunesmith.train.methods.full import Full
from tunesmith.train.methods.lora import Lora

IDS = torch.tensor([[5, 9, 12, 40, 7, 300]])


@pytest.fixture
def run(tiny: Callable[[str], Path], tmp_path: Path) -> tuple[RunFolder, Base]:
    base = base_of(tiny("llama"))
    return trained(prepared(tmp_path / "run"), base), base


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", [Lora(rank=4), Lora(rank=2, dora=True), Full()], ids=str)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "falcon"])
def test_it_is_what_was_trained(
    kind: str, method: Lora | Full, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base = base_of(tiny(kind))
    spec = settings(method=method, epochs=1)
    folder = trained(prepared(tmp_path / "run"), base, spec)
    path = folder.stage("train").path
    expected = logits(reloaded(folder, spec, base))
    found = load_trained(path, base)
    assert torch.equal(logits(found), expected)
    assert not found.trainable() and not any(m.training for m in found.model.modules())
    before = logits(load_trained(path, base, tuned=False))
    with torch.no_grad():
        assert torch.equal(before, load_model(base)(input_ids=IDS).logits)
    assert (before - expected).abs().max() > 1e-3


def test_the_random_stream_is_left_alone(run: tuple[RunFolder, Base]) -> None:
    torch.manual_seed(3)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    load_trained(run[0].stage("train").path, run[1])
    assert torch.equal(torch.rand(3), drawn)


def changed(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")


def test_an_adapter_that_does_not_fit_is_refused(
    run: tuple[RunFolder, Base], tmp_path: Path
) -> None:
    source = run[0].stage("train").path

    def copy(name: str) -> Path:
        return Path(shutil.copytree(source, tmp_path / name))

    lacking = copy("lacking")
    changed(lacking, lambda found: found.pop(sorted(found)[0]))
    with pytest.raises(IntegrityError, match="lacks base_model"):
        load_trained(lacking, run[1])

    extra = copy("extra")
    changed(extra, lambda found: found.update({"base_model.model.x.lora_A.weight": torch.ones(2)}))
    with pytest.raises(IntegrityError, match="has no place"):
        load_trained(extra, run[1])

    broken = copy("broken")
    changed(broken, lambda found: found[sorted(found)[0]].fill_(torch.nan))
    with pytest.raises(IntegrityError, match="NaN"):
        load_trained(broken, run[1])


def test_a_pickle_is_never_fallen_back_to(run: tuple[RunFolder, Base]) -> None:
    path = run[0].stage("train").path
    torch.save(load_file(path / "adapter_model.safetensors"), path / "adapter_model.bin")
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(IntegrityError, match="adapter_model.safetensors"):
        load_trained(path, run[1])


def test_settings_that_ask_for_code_are_refused(run: tuple[RunFolder, Base]) -> None:
    path = run[0].stage("train").path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"x": "evil.Model"}}))
    with pytest.raises(IntegrityError, match="asks for code"):
        load_trained(path.parent, run[1])


def test_a_folder_with_neither_is_refused(run: tuple[RunFolder, Base]) -> None:
    path = run[0].stage("train").path
    (path / "adapter_config.json").unlink()
    with pytest.raises(IntegrityError, match="neither an adapter"):
        load_trained(path, run[1])
