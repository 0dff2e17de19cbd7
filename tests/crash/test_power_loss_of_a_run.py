"""A power loss in a training, or at the end of a stage: what is left goes on or is whole."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.powerloss import Operation, Recorder, Stage, Tree, crashes, identity, read_tree
from tests.trained import base_of, prepared, settings
from tunesmith.core import disk
from tunesmith.core.disk import write_json
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.model.bases import Base
from tunesmith.train import checkpoint, record
from tunesmith.train.session import Session
from tunesmith.train.stage import train

QUIET = Log(quiet=True)
SPEC = settings(epochs=1, save_every=1, keep=3, evaluate_every=2)
RESUMED = 6
"""States from which training really goes on: each takes a second."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of states are written."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def base(tiny: Callable[[str], Path]) -> Base:
    return base_of(tiny("llama"))


def recorded(root: Path, base: Base) -> tuple[Tree, list[Operation]]:
    """The disk before, and all operations of, a training up to its last checkpoint."""
    prepared(root)
    before, recording = read_tree(root), Recorder(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "DISK", recording)
        # What follows the last checkpoint is the end of a stage, see below.
        patch.setattr(Session, "_finish", lambda self: None)
        train(RunFolder(root), SPEC, base, seed=0, log=QUIET)
    return before, joined(recording.operations)


def joined(operations: list[Operation]) -> list[Operation]:
    """Writes in a row as one: where inside a file it broke off, other tests try."""
    found: list[Operation] = []
    for verb, path, value in operations:
        if verb == "write" and found and found[-1][:2] == (verb, path):
            value = found.pop()[2] + value
        found.append((verb, path, value))
    return found


def lost(folder: Path, wanted: bytes) -> str:
    """What is wrong with the curves that the newest checkpoint counts on; empty where nothing."""
    saved = checkpoint.newest(folder / "train" / "checkpoints", QUIET)
    size = saved.progress["written"]["curves"] if saved else 0
    curves = folder / "train" / "curves.jsonl"
    found = curves.read_bytes()[:size] if curves.exists() else b""
    return "" if found == wanted[:size] else f"{len(found)} of {size} bytes are there"


def verdicts(memory: Path, base: Base) -> Iterator[tuple[Tree, str]]:
    """Every state a power loss may leave, with what is wrong in it."""
    before, operations = recorded(memory / "recorded", base)
    wanted = (memory / "recorded/train/curves.jsonl").read_bytes()
    (memory / "state").mkdir()
    stage, known = Stage(memory / "state"), set[int]()
    for _, tree in crashes(before, operations):
        if (key := identity(tree)) not in known:
            known.add(key)
            yield tree, lost(stage.show(tree), wanted)


def test_in_every_state_a_checkpoint_finds_the_curves_it_counts_on(
    memory: Path, base: Base
) -> None:
    found = list(verdicts(memory, base))
    assert [wrong for _, wrong in found if wrong] == []
    print(f"{len(found)} distinct states")
    assert len(found) >= 300
    whole = (memory / "recorded/train/curves.jsonl").read_text()
    for number, (tree, _) in enumerate(found[:: len(found) // RESUMED]):
        (root := memory / str(number)).mkdir()
        Stage(root).show(tree)
        train(RunFolder(root), SPEC, base, seed=0, log=QUIET)
        assert (root / "train/curves.jsonl").read_text() == whole


def test_curves_that_are_not_settled_are_noticed(
    memory: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof above can fail."""
    monkeypatch.setattr(record, "sync_file", lambda path: None)
    assert any(wrong for _, wrong in verdicts(memory, base))


def test_a_stage_is_finished_whole_or_not_at_all(memory: Path) -> None:
    """Also with files that a library wrote, which makes nothing durable."""
    (root := memory / "recorded").mkdir()
    recording, stage = Recorder(root), RunFolder(root).stage("deploy")
    before = read_tree(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "DISK", recording)
        stage.begin({"seed": 0})
        recording.mkdir(stage.path / "merged")
        file = recording.create(stage.path / "merged" / "model.safetensors")
        recording.write(file, memoryview(b"weights" * 10))
        recording.close(file)
        write_json(stage.path / "verified.json", {"merged": True})
        stage.finish()
    (memory / "state").mkdir()
    shown, ends = Stage(memory / "state"), set[bool]()
    for done, tree in crashes(before, recording.operations):
        found = RunFolder(shown.show(tree)).stage("deploy")
        if found.finished:
            assert set(found.manifest()["files"]) >= {"verified.json", "merged/model.safetensors"}
        if done == len(recording.operations):
            ends.add(found.finished)
    assert ends == {True}
