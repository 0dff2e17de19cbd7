"""A missing right is told with what gives it: as another user would meet it, since root may do
anything here (the system's answer is put in its place)."""

import errno
import os
from pathlib import Path
from typing import Any, Literal

import pytest

from tunesmith import doctor
from tunesmith.core import rights
from tunesmith.core.disk import write_bytes
from tunesmith.core.errors import ResourceError
from tunesmith.core.folders import RunFolder


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take a right to a name away, as `os.access` tells it."""

    def take(path: Path, right: int) -> None:
        monkeypatch.setattr(os, "access", lambda name, asked: not (name == path and asked & right))

    return take


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk is one, as the system tells it."""
    facts = os.statvfs("/")
    told = os.statvfs_result([*facts[:8], facts.f_flag | os.ST_RDONLY, facts.f_namemax])
    monkeypatch.setattr(os, "statvfs", lambda path: told)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "my rows.jsonl"
    path.touch(0o200)
    for code in rights.DENIED:
        assert rights.missing(path, "r", code).endswith(f"run chmod u+r '{path}'")


def test_a_folder_above_it_is_named_where_that_is_the_closed_one(
    tmp_path: Path, denied: Any
) -> None:
    denied(tmp_path / "closed", os.X_OK)
    (tmp_path / "closed").mkdir(0o600)
    advice = rights.missing(tmp_path / "closed" / "rows.jsonl", "r", errno.EACCES)
    assert advice.endswith(f"run chmod u+rwx {tmp_path / 'closed'}")


def test_a_new_file_needs_the_right_to_its_folder(tmp_path: Path, denied: Any) -> None:
    denied(tmp_path, os.W_OK)
    tmp_path.chmod(0o500)
    advice = rights.missing(tmp_path / "runs" / "mine", "w", errno.EACCES)
    assert f"run chmod u+wx {tmp_path}, or choose another folder" in advice
    tmp_path.chmod(0o700)


def test_what_another_user_owns_cannot_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    monkeypatch.setattr(os, "getegid", lambda: os.stat(path).st_gid + 1)
    monkeypatch.setattr(os, "getgroups", list)
    advice = rights.missing(path, "r", errno.EACCES)
    assert "another user's" in advice and "chmod" not in advice


@pytest.mark.parametrize(
    ("right", "code", "said"),
    [
        ("r", errno.EACCES, "lets you read it, but an access list or a security module"),
        ("r", errno.EPERM, "lets you read it, but an access list or a security module"),
        ("w", errno.EACCES, "lets you write to it, but an access list or a security module"),
        ("w", errno.EPERM, "lets you write to it, but a flag of it may forbid that"),
    ],
)
def test_what_the_mode_gives_is_not_to_be_given_again(
    tmp_path: Path, denied: Any, right: Literal["r", "w"], code: int, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch(0o600)
    denied(path, os.W_OK)
    advice = rights.missing(path, right, code)
    assert f"the mode of {path} {said}" in advice and "chmod" not in advice
    assert ("choose another folder" in advice) == (right == "w") and "\n" not in advice


def test_on_a_read_only_disk_no_right_helps(
    tmp_path: Path, denied: Any, read_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(0o500)
    denied(tmp_path / "run", os.W_OK)
    assert rights.missing(tmp_path / "run" / "x", "w", errno.EACCES) == rights.READ_ONLY
    with pytest.raises(ResourceError, match="read-only file system .*; the disk is read-only"):
        RunFolder(tmp_path / "run").create()


def test_the_doctor_says_why_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(doctor, "TemporaryDirectory", refuse)
    found = doctor.writing(tmp_path / "cache")
    assert not found.passed and found.said.endswith(rights.READ_ONLY)
    assert "chmod" not in found.said + found.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_closed_for_its_owner(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o500)
    with pytest.raises(ResourceError, match=r"run chmod u\+wx"):
        write_bytes(tmp_path / "closed" / "x", b"1")
