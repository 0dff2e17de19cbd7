"""A missing right is told with the command that gives it: as another user would meet it, since root
may do anything here (the system's answer is put in its place)."""

import os
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import rights


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take a right to a name away, as `os.access` tells it."""

    def take(path: Path, right: int) -> None:
        monkeypatch.setattr(os, "access", lambda name, asked: (name, asked) != (path, right))

    return take


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "my rows.jsonl"
    path.touch()
    assert rights.missing(path, "r").endswith(f"run chmod u+r '{path}'")


def test_a_folder_above_it_is_named_where_that_is_the_closed_one(
    tmp_path: Path, denied: Any
) -> None:
    denied(tmp_path / "closed", os.X_OK)
    (tmp_path / "closed").mkdir()
    advice = rights.missing(tmp_path / "closed" / "rows.jsonl", "r")
    assert advice.endswith(f"run chmod u+rwx {tmp_path / 'closed'}")


def test_a_new_file_needs_the_right_to_its_folder(tmp_path: Path, denied: Any) -> None:
    denied(tmp_path, os.W_OK)
    advice = rights.missing(tmp_path / "runs" / "mine", "w")
    assert f"run chmod u+wx {tmp_path}, or choose another folder" in advice


def test_what_another_user_owns_cannot_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    advice = rights.missing(path, "r")
    assert "another user's" in advice and "chmod" not in advice
