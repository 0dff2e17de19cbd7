"""Run and stage folders: atomic writes, the stages' state machine, manifests, refusals."""

import errno
import json
import os
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import manifests
from tunesmith.core.disk import Disk, read_json, write_bytes, write_json
from tunesmith.core.errors import IntegrityError, ResourceError, SettingsError
from tunesmith.core.folders import RunFolder, Stage


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "a name with spaces")
    folder.create()
    return folder


def begun(run: RunFolder, **inputs: Any) -> Stage:
    """A stage with one file in it, not finished."""
    stage = run.stage("train")
    assert stage.begin(inputs)
    (stage.path / "curves.jsonl").write_text("{}\n")
    return stage


def finished(run: RunFolder, **inputs: Any) -> Stage:
    """The same, finished."""
    stage = begun(run, **inputs)
    stage.finish(rows=3)
    return stage


def test_a_fresh_stage_has_work_and_nothing_to_resume(run: RunFolder) -> None:
    stage = run.stage("train")
    assert stage.begin({"train.lr": 1e-4}) is True
    assert stage.path.is_dir() and not stage.resumed and not stage.finished


def test_a_finished_stage_with_the_same_inputs_is_not_done_again(run: RunFolder) -> None:
    finished(run, lr=1, tuned=["q", "v"], none=None)
    again = run.stage("train")
    assert again.begin({"tuned": ("q", "v"), "lr": 1}) is False
    assert again.manifest()["facts"] == {"rows": 3}


def test_a_finished_stage_with_other_inputs_moves_to_earlier(run: RunFolder) -> None:
    old = finished(run, lr=1)
    digest = old.manifest()["inputs_digest"][:12]
    stage = run.stage("train")
    assert stage.begin({"lr": 2}) is True and not stage.resumed
    moved = run.path / "earlier" / digest / "train"
    assert (moved / "curves.jsonl").exists() and (moved / "MANIFEST.json").exists()
    stage.finish()
    assert run.stage("train").begin({"lr": 1}) is True  # to and fro: nothing is overwritten
    run.stage("train").finish()
    assert run.stage("train").begin({"lr": 3}) is True
    assert {p.name for p in (run.path / "earlier" / digest).iterdir()} == {"train", "train-2"}


def test_what_rests_on_a_result_moves_with_it_and_comes_back(run: RunFolder) -> None:
    def made(name: str, **inputs: Any) -> Stage:
        stage = run.stage(name)
        stage.begin(inputs)
        stage.finish()
        return stage

    old = made("data", seed=1)
    trained = made("train", data=old.digest)
    made("evaluate", training=trained.digest)
    made("other", data="of another run")
    (run.path / "cards").mkdir()
    (run.path / "cards" / "card.md").write_text("x")
    names = {p.name for p in run.path.iterdir()}
    heard: list[str] = []
    stage = run.stage("data")
    assert stage.begin({"seed": 2}, say=heard.append) is True
    (line,) = heard
    assert "seed 1 -> 2" in line and all(n in line for n in ("train", "evaluate", "cards"))
    assert {p.name for p in run.path.iterdir()} == {"data", "other", "earlier"}
    stage.give_up()
    assert {p.name for p in run.path.iterdir()} == names
    assert run.stage("data").begin({"seed": 1}) is False


def test_an_unfinished_stage_with_the_same_inputs_goes_on(run: RunFolder) -> None:
    begun(run, lr=1)
    stage = run.stage("train")
    assert stage.begin({"lr": 1}) is True
    assert stage.resumed and (stage.path / "curves.jsonl").exists()


def test_an_unfinished_stage_with_other_inputs_is_refused_field_by_field(run: RunFolder) -> None:
    begun(run, **{"train.lr": 1, "train.batch": 8, "seed": 0})
    with pytest.raises(SettingsError) as refused:
        run.stage("train").begin({"train.lr": 2, "train.batch": 8, "train.rank": 4, "seed": 0})
    assert [problem.partition(" was ")[0].rpartition(" ")[2] for problem in refused.value.problems]
    first, second = refused.value.problems
    assert "train.lr was 1 when this was begun and is now 2" in first
    assert "--accept-change train.lr" in first and "--restart" in first
    assert "train.rank was null when this was begun and is now 4" in second
    assert run.stage("train").begin({"train.lr": 1, "train.batch": 8, "seed": 0}) is True


def test_a_refusal_can_be_pasted(run: RunFolder) -> None:
    run.stage("train").begin({"digest of the data": 1})
    words = "the data changed since .* --accept-change 'digest of the data', or"
    with pytest.raises(SettingsError, match=words):
        run.stage("train").begin({"digest of the data": 2})


def test_an_accepted_change_passes_and_is_recorded(run: RunFolder) -> None:
    begun(run, lr=1, batch=8)
    with pytest.raises(SettingsError, match="batch was 8") as refused:
        run.stage("train").begin({"lr": 2, "batch": 4}, accept=["lr"])
    assert len(refused.value.problems) == 1
    stage = run.stage("train")
    assert stage.begin({"lr": 2, "batch": 8}, accept=["lr"]) is True and stage.resumed
    change = {"field": "lr", "was": 1, "now": 2}
    assert read_json(stage.path / "inputs.json")["accepted"] == [change]
    stage.finish()
    assert stage.manifest()["accepted"] == [change]
    assert run.stage("train").begin({"lr": 2, "batch": 8}) is False


@pytest.mark.parametrize("make", [begun, finished])
def test_restart_moves_any_stage_aside(run: RunFolder, make: Any) -> None:
    make(run, lr=1)
    stage = run.stage("train")
    assert stage.begin({"lr": 5}, restart=True) is True
    assert not stage.resumed
    assert len(list((run.path / "earlier").rglob("curves.jsonl"))) == 1


def test_a_changed_file_of_a_finished_stage_is_named(run: RunFolder) -> None:
    stage = finished(run, lr=1)
    (stage.path / "curves.jsonl").write_text("{ }")
    for act in (stage.manifest, lambda: run.stage("train").begin({"lr": 1})):
        with pytest.raises(IntegrityError, match=r"curves\.jsonl: differs.*--restart"):
            act()
    assert run.stage("train").begin({"lr": 1}, restart=True) is True


def test_a_missing_file_of_a_finished_stage_is_named(run: RunFolder) -> None:
    stage = finished(run, lr=1)
    (stage.path / "curves.jsonl").unlink()
    with pytest.raises(IntegrityError, match=r"curves\.jsonl: .*not there"):
        stage.manifest()


@pytest.mark.parametrize("name", ["MANIFEST.json", "inputs.json"])
def test_a_flipped_bit_in_our_own_records_is_noticed(run: RunFolder, name: str) -> None:
    stage = finished(run, lr=1)
    if name == "inputs.json":
        (stage.path / "MANIFEST.json").unlink()
    whole = (stage.path / name).read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 500):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        (stage.path / name).write_bytes(bytes(broken))
        with pytest.raises(IntegrityError, match=name):
            manifests.read_sealed(stage.path / name)
    with pytest.raises(IntegrityError, match="--restart"):
        run.stage("train").begin({"lr": 1})
    assert run.stage("train").begin({"lr": 1}, restart=True) is True


def test_what_was_never_finished_says_which_command_to_run(run: RunFolder) -> None:
    with pytest.raises(SettingsError, match="run `tunesmith data"):
        run.stage("data").manifest()


def test_the_manifest_leaves_out_checkpoints_and_temporary_files(run: RunFolder) -> None:
    stage = begun(run, lr=1)
    for name in ("checkpoints/step-00000001/state.json", "deep/er/file", ".1-ab.tmp"):
        (stage.path / name).parent.mkdir(parents=True, exist_ok=True)
        (stage.path / name).write_text("x")
    stage.finish()
    assert set(stage.manifest()["files"]) == {"curves.jsonl", "deep/er/file", "inputs.json"}


def test_temporary_files_of_a_killed_process_go_when_the_stage_goes_on(run: RunFolder) -> None:
    stage = begun(run, lr=1)
    (stage.path / ".1-ab.tmp").write_text("half")
    run.stage("train").begin({"lr": 1})
    assert not (stage.path / ".1-ab.tmp").exists()


def test_the_digest_changes_with_the_content(run: RunFolder) -> None:
    first = finished(run, lr=1).digest
    stage = run.stage("train")
    stage.begin({"lr": 2})
    stage.finish(rows=3)
    assert stage.digest != first


def test_links_inside_a_run_are_refused(run: RunFolder, tmp_path: Path) -> None:
    stage = begun(run, lr=1)
    (stage.path / "link").symlink_to("/etc/hostname")
    for act in (stage.finish, lambda: run.stage("train").begin({"lr": 1})):
        with pytest.raises(IntegrityError, match="link: is a symbolic link"):
            act()
    (tmp_path / "linked").symlink_to(run.path)
    with pytest.raises(IntegrityError, match="symbolic link"):
        RunFolder(tmp_path / "linked").create()
    run.stage("data").path.symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="symbolic link"):
        run.stage("data").begin({})


def test_a_file_in_the_place_of_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ResourceError, match="is a file"):
        RunFolder(tmp_path / "x").create()


def test_writing_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "out.json").symlink_to(tmp_path / "secret")
    write_json(tmp_path / "out.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "secret").read_text() == "mine"
    assert (tmp_path / "out.json").read_bytes() == b'{\n  "a": "\xc3\xbc",\n  "b": 1\n}\n'
    assert not (tmp_path / "out.json").is_symlink()


def test_what_we_write_is_for_its_owner_alone(run: RunFolder) -> None:
    write_bytes(run.path / "x", b"1")
    assert stat.S_IMODE((run.path / "x").stat().st_mode) == 0o600
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700


def test_a_new_file_never_opens_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileExistsError):
        Disk().create(tmp_path / "x")


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127 + "x")
    write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EDQUOT", "EROFS", "EACCES", "EMFILE"])
@pytest.mark.parametrize("verb", ["create", "write", "sync", "close", "rename"])
def test_a_write_that_fails_leaves_the_old_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, verb: str
) -> None:
    write_bytes(tmp_path / "x", b"old")

    def refuse(*_: Any) -> int:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(Disk, verb, refuse)
    told = "a security module" if name == "EACCES" else r"3 bytes are needed, \d+ bytes are free"
    with pytest.raises(ResourceError, match=f"x: cannot write: .*{told}"):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EIO"])
def test_a_stage_on_a_failing_disk_stops_in_one_line_and_can_go_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Also stands for a folder without the right to write, where tests run as root."""
    stage = begun(run, lr=1)

    def refuse(*_: Any) -> int:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "create", refuse)
        with pytest.raises(ResourceError) as failed:
            stage.finish()
        assert "\n" not in str(failed.value) and "bytes are free" in str(failed.value)
        with pytest.raises(ResourceError):
            run.record(seed=1)
        with pytest.raises(ResourceError):
            run.stage("data").begin({})
    assert not stage.finished and run.stage("train").begin({"lr": 1}) is True
    assert run.stage("data").begin({}) is True


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="no right"):
        RunFolder(tmp_path / "runs" / "x").create()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=20)
    except OSError as error:
        pytest.skip(f"no small disk can be made here: {error}")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=20)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    run = RunFolder(small_disk / "run")
    run.create()
    stage = begun(run, lr=1)
    write_json(stage.path / "train.json", {"step": 1})
    with pytest.raises(ResourceError, match=r"1000000 bytes are needed, \d{5,6} bytes are free"):
        write_bytes(stage.path / "train.json", bytes(1_000_000))
    assert read_json(stage.path / "train.json") == {"step": 1}
    assert not list(stage.path.glob("*.tmp")) + list(stage.path.glob(".*"))
    (stage.path / "ballast").write_bytes(bytes(Disk().free(small_disk)))
    with pytest.raises(ResourceError, match=r"free some space"):
        stage.finish()
    (stage.path / "ballast").unlink()
    stage.finish()
    assert stage.manifest()["facts"] == {}


def test_the_runs_manifest_grows(run: RunFolder) -> None:
    run.record(seed=1, digests={"data": "a"})
    run.record(seed=2)
    assert run.manifest() == {"schema": 1, "seed": 2, "digests": {"data": "a"}}
    assert json.loads((run.path / "manifest.json").read_text())["schema"] == 1


def test_secrets_reach_no_record(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-4711")
    run.record(command="load https://me:canary-4711@host/x")
    stage = begun(run, source="s3://canary-4711/rows")
    stage.finish(note="canary-4711")
    assert run.stage("train").begin({"source": "s3://canary-4711/rows"}) is False
    for path in run.path.rglob("*.json"):
        assert "canary" not in path.read_text(), path
