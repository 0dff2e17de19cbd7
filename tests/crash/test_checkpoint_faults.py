"""A disk that refuses, rots or is shared: the last good checkpoint stays, and one line says why."""

import errno
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.states import QUIET, same, snapshot, two_checkpoints
from tunesmith.core import disk, manifests
from tunesmith.core.disk import Disk
from tunesmith.core.errors import (
    IntegrityError,
    Preempted,
    ResourceError,
    SettingsError,
    TrainError,
)
from tunesmith.core.log import Log
from tunesmith.core.signals import handlers
from tunesmith.train import checkpoint

CODES = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EMFILE", "EINTR")
CHANGING = ("mkdir", "create", "write", "sync", "close", "sync_folder", "rename", "unlink", "rmdir")


class Said(Log):
    """Keeps the lines instead of printing them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Failing(Disk):
    """Fails at one call, or from one call on."""

    def __init__(self, code: int, at: int, *, lasting: bool) -> None:
        self.code, self.at, self.lasting = code, at, lasting
        self.calls = 0

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        return self.wrapped(method) if name in CHANGING else method

    def wrapped(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted, done only while the disk is well."""

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.lasting and self.calls > self.at):
                if method.__name__ == "close":  # a close that fails still closes
                    method(*arguments)
                raise OSError(self.code, os.strerror(self.code))
            return method(*arguments)

        return call


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of a checkpoint."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("name", CODES)
def test_a_disk_that_fails_at_any_call_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lasting: bool
) -> None:
    code, at, failed = getattr(errno, name), 0, 0
    two_checkpoints(tmp_path / "first")
    before = content(tmp_path / "first" / "step-00000002")
    while True:
        at += 1
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "first", folder)
        failing, log = Failing(code, at, lasting=lasting), Said()
        with monkeypatch.context() as patch:
            patch.setattr(disk, "DISK", failing)
            try:
                checkpoint.save(folder, snapshot(3), log=log)
            except ResourceError as error:
                failed += 1
                assert "\n" not in str(error)
                assert str(folder / "step-00000003") in str(error)
                assert "bytes are needed" in str(error) and "bytes are free" in str(error)
            else:
                # What fails after the commit is deleting, and that is a warning.
                assert failing.calls < at or log.lines[0].startswith("warning: ")
        found = checkpoint.newest(folder, QUIET)
        assert same(found, snapshot(3)) or same(found, snapshot(2))
        assert content(folder / "step-00000002") == before
        if failing.calls < at:
            break
    assert failed >= 25


def test_what_cannot_be_deleted_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    log = Said()

    def refuse(_: Disk, path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Disk, "unlink", refuse)
    saved = checkpoint.save(tmp_path, snapshot(3), log=log)
    assert same(checkpoint.load(saved), snapshot(3))
    assert len(log.lines) == 1 and log.lines[0].startswith("warning: ")
    monkeypatch.undo()
    checkpoint.save(tmp_path, snapshot(4), log=log)  # and catches up
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000003", "step-00000004"}


def test_a_save_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    state, tensors = checkpoint.parts(snapshot(3))
    needed = int(1.2 * checkpoint.size(state, tensors))
    monkeypatch.setattr(Disk, "free", lambda *_: needed - 1)
    with pytest.raises(ResourceError, match=f"{needed} bytes are needed, {needed - 1} bytes are"):
        checkpoint.save(tmp_path, snapshot(3))
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr(Disk, "free", lambda *_: needed)
    checkpoint.save(tmp_path, snapshot(3))


def test_the_estimate_of_a_save_is_never_too_small(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, snapshot(1))
    written = sum(path.stat().st_size for path in saved.iterdir())
    assert written <= checkpoint.size(*checkpoint.parts(snapshot(1)))


def test_a_thousand_flipped_bits_are_all_noticed(tmp_path: Path) -> None:
    seed = 20260712
    chance = random.Random(seed)
    two_checkpoints(tmp_path)
    files = sorted((tmp_path / "step-00000002").iterdir())
    sizes = [path.stat().st_size for path in files]
    for trial in range(1000):
        path = chance.choices(files, weights=sizes)[0] if trial % 2 else chance.choice(files)
        whole = path.read_bytes()
        broken, bit = bytearray(whole), chance.randrange(8 * len(whole))
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        log = Said()
        found = checkpoint.newest(tmp_path, log)
        assert same(found, snapshot(1)), f"seed {seed}, trial {trial}: {path.name} bit {bit}"
        assert len(log.lines) == 1 and "step-00000002" in log.lines[0]
        path.write_bytes(whole)
    assert same(checkpoint.newest(tmp_path), snapshot(2))


def test_a_damaged_step_can_be_saved_again_and_is_kept_aside(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / "step-00000002" / "state.json").write_bytes(b"{}")
    checkpoint.save(tmp_path, snapshot(2), log=QUIET)
    assert same(checkpoint.newest(tmp_path), snapshot(2))
    aside = [path for path in tmp_path.iterdir() if path.name.startswith(".damaged-2-")]
    assert len(aside) == 1 and (aside[0] / "state.json").read_bytes() == b"{}"
    for step in (3, 4):
        checkpoint.save(tmp_path, snapshot(step), log=QUIET)
    assert not aside[0].exists()  # older than all that is kept


def test_a_step_that_is_there_and_whole_is_not_overwritten(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, snapshot(1))
    before = {path: path.stat().st_ino for path in saved.iterdir()}
    assert checkpoint.save(tmp_path, snapshot(1)) == saved
    assert {path: path.stat().st_ino for path in saved.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_newest_verified_ones_and_the_pinned_stay(tmp_path: Path) -> None:
    for step in range(1, 8):
        checkpoint.save(tmp_path, snapshot(step), keep=2, pinned=[3], log=QUIET)
        if step == 5:
            (tmp_path / "step-00000005" / "state.json").write_bytes(b"{}")
        if step == 6:  # the damaged one does not count as one of the two
            names = [path.name for path in checkpoint.steps(tmp_path)]
            assert names == [f"step-0000000{n}" for n in (6, 5, 4, 3)]
    names = [path.name for path in checkpoint.steps(tmp_path)]
    assert names == ["step-00000007", "step-00000006", "step-00000003"]


def test_a_disk_that_gives_back_other_bytes_is_noticed_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    rename = Disk.rename

    def lying(self: Disk, source: Path, target: Path) -> None:
        rename(self, source, target)
        if target.name == "step-00000003":
            with (target / "model.safetensors").open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x55")

    monkeypatch.setattr(Disk, "rename", lying)
    with pytest.raises(IntegrityError, match="written just now: check the disk"):
        checkpoint.save(tmp_path, snapshot(3))
    assert same(checkpoint.newest(tmp_path, QUIET), snapshot(2))
    assert (tmp_path / "step-00000001").exists()


@pytest.mark.parametrize("part", ["model", "optimizer", "stream"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path: Path, part: str, value: float) -> None:
    two_checkpoints(tmp_path)
    broken = snapshot(3)
    tensor = {"model": broken.model["a"], "optimizer": broken.optimizer["optimizer/state/a/step"]}
    broken.stream["moment"] = broken.model["a"].clone()
    tensor.get(part, broken.stream["moment"]).view(-1)[0] = value
    with pytest.raises(TrainError, match=f"step 3: {part}"):
        checkpoint.save(tmp_path, broken)
    assert same(checkpoint.newest(tmp_path), snapshot(2))


def test_a_signal_in_the_middle_of_a_save_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    mkdir = Disk.mkdir

    def interrupted(self: Disk, path: Path) -> None:
        mkdir(self, path)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Disk, "mkdir", interrupted)
    with pytest.raises(Preempted), handlers():
        checkpoint.save(tmp_path, snapshot(3), log=QUIET)
    assert same(checkpoint.newest(tmp_path), snapshot(3))
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000002", "step-00000003"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(IntegrityError, match="symbolic link"):
        checkpoint.save(tmp_path / "link", snapshot(1))
    two_checkpoints(tmp_path / "real")
    newest = tmp_path / "real" / "step-00000002"
    (newest / "state.json").rename(tmp_path / "elsewhere.json")
    (newest / "state.json").symlink_to(tmp_path / "elsewhere.json")
    assert same(checkpoint.newest(tmp_path / "real", QUIET), snapshot(1))


def test_a_checkpoint_of_another_schema_is_refused_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "SCHEMA", 2)
        checkpoint.save(tmp_path, snapshot(3))
    with pytest.raises(SettingsError, match="written with schema 2"):
        checkpoint.newest(tmp_path)


def test_trouble_that_is_not_damage_stops_instead_of_going_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file handles left says nothing about the newest checkpoint."""
    two_checkpoints(tmp_path)

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ResourceError, match="too many"):
        checkpoint.newest(tmp_path)


def write_two_hundred(folder: Path, number: int) -> None:
    """One of two processes that both believe the folder is theirs."""
    for step in range(1, 201):
        checkpoint.save(folder, snapshot(step), log=QUIET)
        if step % 20 == number:
            found = checkpoint.newest(folder, QUIET)
            # None: the other one, two saves ahead, deleted both while they were read.
            assert found is None or same(found, snapshot(found.step))


def test_two_writers_never_spoil_a_checkpoint(tmp_path: Path) -> None:
    """The run's lock forbids it; unique temporary names make it harmless all the same."""
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_two_hundred, args=(tmp_path, n)) for n in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    log = Said()
    assert same(checkpoint.newest(tmp_path, log), snapshot(200))
    assert log.lines == []
    for path in checkpoint.steps(tmp_path):
        assert same(checkpoint.load(path), snapshot(checkpoint.step_of(path)))
