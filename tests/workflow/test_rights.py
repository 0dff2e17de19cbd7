"""A file that may not be read ends a command with 5, and the way to mend it.

Root may read anything, so that the system's refusal is put in the place of the answer.
"""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command, rows


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_rows_that_may_not_be_read(
    empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path, opened = rows(empty / "rows.jsonl"), os.open
    path.chmod(0o200)

    def shut(name: Any, *rest: Any, **more: Any) -> Any:
        if os.path.basename(str(name)) == path.name:
            raise OSError(code, os.strerror(code), str(name))
        return opened(name, *rest, **more)

    monkeypatch.setattr(os, "open", shut)
    for words in (["data", "rows.jsonl"], ["init", "rows.jsonl"], ["run", "rows.jsonl"]):
        said = say(*words)
        assert said.code == 5 and said.err.strip().endswith("rows.jsonl"), said.err
        assert "run chmod u+r " in said.err and len(said.err.splitlines()) == 1


def test_a_run_file_and_a_model_that_may_not_be_read(
    empty: Path, say: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny import tiny_model

    rows(empty / "rows.jsonl")
    tiny_model("llama", empty / "tiny")
    (empty / "bot.yaml").write_text("model: tiny\ndata: {source: rows.jsonl}\n")
    opened = Path.open
    for closed in ("bot.yaml", "config.json", "model.safetensors"):

        def shut(path: Path, *rest: Any, closed: str = closed, **more: Any) -> Any:
            if path.name == closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path, *rest, **more)

        (file,) = empty.rglob(closed)
        file.chmod(0o200)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", shut)
            said = say("train", "bot.yaml", "--dry-run")
        file.chmod(0o600)
        assert said.code == 5, said.err
        assert "run chmod u+r " in said.err and said.err.strip().endswith(closed)
