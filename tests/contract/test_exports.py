"""What every export promises: the reload is the trained model, or there is no export."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.saved import saved
from tests.trained import base_of
from tunesmith.core.disk import DISK
from tunesmith.core.errors import IntegrityError, ResourceError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.deploy import probe, stage
from tunesmith.deploy.exports.base import Export, Verified
from tunesmith.model.bases import Base
from tunesmith.model.trained import load_trained
from tunesmith.train.methods.lora import Lora

MEMBERS: dict[str, Any] = {kind: part() for kind, part in Export.members().items()}


@pytest.fixture(scope="module")
def base(tiny: Callable[[str], Path]) -> Base:
    return base_of(tiny("llama"))


@pytest.fixture(scope="module")
def run(base: Base, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return saved(tmp_path_factory.mktemp("runs") / "bot", base, Lora(rank=4))


@pytest.fixture(scope="module", params=MEMBERS)
def written(
    request: pytest.FixtureRequest,
    run: RunFolder,
    base: Base,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Any, Path, Path]]:
    """An export, its folder and the probe it must answer like."""
    export, home = MEMBERS[request.param], tmp_path_factory.mktemp("export")
    policy = load_trained(run.path / "train", base)
    probe.record(policy, base, home / "probe.safetensors")
    (home / "folder").mkdir()
    stage.write(export, policy, base, home / "folder", {"method": {"kind": "lora", "rank": 4}})
    yield export, home / "folder", home / "probe.safetensors"


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_a_reload_in_a_fresh_process_is_the_trained_model(
    written: tuple[Export, Path, Path],
) -> None:
    export, folder, recorded = written
    found = export.verify(folder, recorded)
    assert found.passed and not found.findings
    assert found.numbers["texts_equal"] == found.numbers["texts"] == 3
    assert found.numbers["answers_equal"] == 3
    assert 0 <= found.numbers["relative"] <= found.numbers["bound"]


def test_one_flipped_bit_in_one_tensor_is_found(written: tuple[Export, Path, Path]) -> None:
    export, folder, recorded = written
    path = shards(folder)[-1]
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = export.verify(folder, recorded)
    finally:
        path.write_bytes(content)
    assert not found.passed
    assert "not the one that was exported" in found.findings[0].evidence


def test_other_weights_are_found_by_their_answers_alone(
    written: tuple[Export, Path, Path],
) -> None:
    export, folder, recorded = written
    path, binding = shards(folder)[-1], folder / "tunesmith.json"
    content, record = path.read_bytes(), binding.read_text()
    tensors = load_file(path)
    name = next(n for n in sorted(tensors) if "q_proj" in n)
    try:
        changed = tensors | {name: tensors[name] * 1.5}
        save_file(changed, path, metadata={"format": "pt"})
        forged = json.loads(record)
        from tunesmith.model.tensors import tensor_digest

        forged["tensors"][name] = tensor_digest(changed[name])
        binding.write_text(json.dumps(forged))
        found = export.verify(folder, recorded)
    finally:
        path.write_bytes(content)
        binding.write_text(record)
    assert [f.what for f in found.findings][0] == "the export answers unlike the trained model"
    assert not found.passed


def test_a_folder_that_does_not_load_is_refused_with_the_reason(
    written: tuple[Export, Path, Path],
) -> None:
    export, folder, recorded = written
    path = folder / "generation_config.json"
    content = path.read_text()
    try:
        path.write_text("{")
        found = export.verify(folder, recorded)
    finally:
        path.write_text(content)
    assert not found.passed and "generation_config.json" in found.findings[0].evidence


def exported(run: RunFolder, base: Base, export: Export) -> None:
    spec = stage.Deploy(exports=[export])
    stage.deploy(run, spec, base, seed=0, log=Log(run, quiet=True))


@pytest.fixture(params=MEMBERS)
def fresh(
    request: pytest.FixtureRequest, run: RunFolder, base: Base, tmp_path: Path
) -> tuple[Any, RunFolder]:
    return MEMBERS[request.param], saved(tmp_path / "bot", base, Lora(rank=4))


def left(run: RunFolder) -> list[str]:
    folder = run.path / "deploy"
    if not folder.exists():
        return []
    return sorted(p.name for p in folder.iterdir() if p.name != "inputs.json")


def test_an_export_that_fails_its_check_leaves_nothing(
    fresh: tuple[Export, RunFolder], base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, run = fresh
    plain = type(export).write

    def damaged(self: Export, policy: Any, base: Base, folder: Path) -> dict[str, str]:
        digests = plain(self, policy, base, folder)
        path = shards(folder)[-1]
        tensors = load_file(path)
        name = sorted(tensors)[0]
        save_file(tensors | {name: torch.zeros_like(tensors[name])}, path, {"format": "pt"})
        return digests

    monkeypatch.setattr(type(export), "write", damaged)
    with pytest.raises(IntegrityError, match="refused, nothing was exported"):
        exported(run, base, export)
    assert left(run) == []


@pytest.mark.parametrize("when", ["probe", "write", "verify", "rename"])
def test_a_disk_that_cannot_be_written_leaves_nothing(
    when: str,
    fresh: tuple[Export, RunFolder],
    base: Base,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export, run = fresh

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    owner: Any = {"probe": probe, "rename": DISK}.get(when, type(export))
    monkeypatch.setattr(owner, {"probe": "record"}.get(when, when), full)
    with pytest.raises(ResourceError, match="no space left on device .*bytes are free"):
        exported(run, base, export)
    assert left(run) == []


def test_a_kill_signal_in_the_middle_leaves_nothing(
    fresh: tuple[Export, RunFolder], base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.core.errors import Preempted

    def stopped(*_: Any, **__: Any) -> Verified:
        raise Preempted("stopped")

    export, run = fresh
    monkeypatch.setattr(type(export), "verify", stopped)
    with pytest.raises(Preempted):
        exported(run, base, export)
    assert left(run) == []
