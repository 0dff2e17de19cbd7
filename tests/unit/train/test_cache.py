"""Kept tokens: used when they are whole, made again when they are not, and never an obstacle."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.documents import document
from tests.trained import chat
from tunesmith.core.records import Example
from tunesmith.core.rows import Chat
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train import cache
from tunesmith.train.objectives.lm import Lm
from tunesmith.train.objectives.sft import Sft

ROWS = [chat(number) for number in range(5)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer(tiny: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer.load(tiny("llama"))


def made(tokenizer: Tokenizer, rows: Sequence[Chat] = ROWS) -> list[Example]:
    """The examples of a few rows, through the cache."""
    return cache.encoded(rows, Sft(), tokenizer, smallest=1)


def test_what_was_kept_is_what_was_made(
    home: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tokenizer)
    monkeypatch.setattr(Sft, "encode", None)
    assert made(tokenizer) == first
    assert len(list((home / "tokens").iterdir())) == 2


def test_other_ends_are_other_tokens(home: Path, tiny: Callable[[str], Path]) -> None:
    """Where the tokenizer names none, the model's settings say what ends a document."""
    from dataclasses import replace

    own = Tokenizer.load(tiny("llama"))
    named = {role: text for role, text in own.named.items() if role != "eos_token"}
    first, second = (
        replace(own, named=named, generation={"eos_token_id": number}) for number in (0, 2)
    )
    rows = [document(n) for n in range(3)]
    kept = cache.encoded(rows, Lm(), first, smallest=1)
    assert cache.encoded(rows, Lm(), second, smallest=1) != kept


def rewritten(path: Path, **changes: object) -> None:
    """The kept file with other numbers, under a manifest that vouches for it."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from tunesmith.core.disk import file_digest

    flat = {**load_file(path), **{name: np.array(value) for name, value in changes.items()}}
    save_file(flat, path)
    path.with_suffix(".json").write_text(json.dumps({"sha256": file_digest(path)}))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "manifest empty": lambda p: p.with_suffix(".json").write_text(""),
    "manifest of another form": lambda p: p.with_suffix(".json").write_text("[1]"),
    "manifest without a hash": lambda p: p.with_suffix(".json").write_text("{}"),
    "manifest no text": lambda p: p.with_suffix(".json").write_bytes(b"\xff\xfe"),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "gone": lambda p: p.unlink(),
    "another name": lambda p: rewritten(p, more=[1]),
    "other types": lambda p: rewritten(p, counts=[1.0] * len(ROWS)),
    "other rows": lambda p: rewritten(p, counts=[1]),
    "more sequences than there are": lambda p: rewritten(p, counts=[2] * len(ROWS)),
    "lengths that do not add up": lambda p: rewritten(p, lengths=[1] * len(ROWS)),
    "negative lengths": lambda p: rewritten(p, lengths=[-1] * len(ROWS)),
    "two dimensions": lambda p: rewritten(p, counts=[[1] * len(ROWS)]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_a_miss(case: str, home: Path, tokenizer: Tokenizer) -> None:
    first = made(tokenizer)
    (path,) = (home / "tokens").glob("*.safetensors")
    DAMAGE[case](path)
    assert made(tokenizer) == first
    assert cache._read(path, ROWS, Sft()) == first, "made again, and kept"


def test_a_header_that_lies_is_never_opened(
    home: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    from tunesmith.core.disk import file_digest

    first = made(tokenizer)
    (path,) = (home / "tokens").glob("*.safetensors")
    path.write_bytes(b"\xff" * 7 + b"\x00" + b"{}")
    path.with_suffix(".json").write_text(json.dumps({"sha256": file_digest(path)}))
    monkeypatch.setattr(safetensors.torch, "load_file", None)
    assert made(tokenizer) == first


def test_a_link_is_not_followed(home: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = made(tokenizer)
    (path,) = (home / "tokens").glob("*.safetensors")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache._read(path, ROWS, Sft()) is None
    assert made(tokenizer) == first and not path.is_symlink()


def test_a_cache_that_cannot_be_written_ends_nothing(home: Path, tokenizer: Tokenizer) -> None:
    home.write_text("a file where the folder should be")
    first = made(tokenizer)
    assert [example.row for example in first] == [row.digest for row in ROWS]
    home.unlink()
    home.mkdir()
    (home / "tokens").write_text("here too")
    assert made(tokenizer) == first


def test_no_sequences_are_no_obstacle(home: Path) -> None:
    cache._write(home / "tokens" / "none.safetensors", [])
    assert not home.exists()
