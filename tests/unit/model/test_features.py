"""Kept states: what was computed once is used again, and only for what it was computed of."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trained import base_of, labelled, prepared, settings, trained
from tunesmith.core import disk
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.records import Batch, Example, collate
from tunesmith.core.rows import Labelled
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.model import features, heads, layout, plain
from tunesmith.model.bases import Base
from tunesmith.model.features import Features
from tunesmith.model.load import load_model
from tunesmith.model.policy import Policy
from tunesmith.model.template import Template
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train.methods.frozen import Frozen
from tunesmith.train.objectives.classify import Classify

Tiny = Callable[[str], Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def policy_of(base: Base, pooling: heads.Pooling = "mean") -> Policy:
    model = load_model(base).requires_grad_(False).eval()
    head = heads.fresh(heads.Meaning(("a", "b"), pooling, False), layout.width(model), seed=0)
    return Policy(model, Tokenizer.load(base.folder), head=head)


def rows_of(base: Base, count: int = 5) -> list[Example]:
    tokenizer = Tokenizer.load(base.folder)
    pair = Labelled(given=("red cat", "blue dog"), labels=("red",))
    return [plain.encode(row, tokenizer) for row in (*map(labelled, range(count)), pair)]


def never(batch: Batch) -> torch.Tensor:
    raise AssertionError("a row was read again")


def kept_of(base: Base, rows: list[Example]) -> tuple[Policy, torch.Tensor]:
    """A policy, and the states of `rows` after they were kept."""
    policy = policy_of(base)
    found = features.opened(policy, base, never)
    states = found.of(collate(rows, "cpu"), policy.pooled)
    found.settle()
    return policy, states


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_what_was_kept_is_what_was_computed(kind: str, tiny: Tiny) -> None:
    base = base_of(tiny(kind))
    rows = rows_of(base)
    policy, states = kept_of(base, rows)
    assert torch.equal(states, policy.pooled(collate(rows, "cpu")))
    again = features.opened(policy, base, never)
    assert all(map(again.knows, rows))
    alone = [again.of(collate([row], "cpu"), never) for row in reversed(rows)]
    assert torch.equal(torch.cat(alone).flip(0), states), "padding and company do not matter"


def test_another_row_label_apart_is_a_miss(tiny: Tiny) -> None:
    base = base_of(tiny("bert"))
    policy, _ = kept_of(base, rows_of(base))
    found, tokenizer = features.opened(policy, base, never), Tokenizer.load(base.folder)
    same = Labelled(given=labelled(0).given, labels=("other",))
    assert found.knows(plain.encode(same, tokenizer))
    for given in (("red cat blue",), ("red cat", "blue dogs"), ("red cat\nblue dog",)):
        assert not found.knows(plain.encode(Labelled(given=given, labels=("red",)), tokenizer))


def test_which_text_a_token_belongs_to_is_read_too() -> None:
    assert features.key([5, 6, 7], [0, 0, 1]) != features.key([5, 6, 7]) != features.key([5, 6])
    assert features.key([5, 6, 7], [0, 0, 0]) == features.key([5, 6, 7])


def changed(policy: Policy, base: Base) -> dict[str, tuple[Policy, Base]]:
    """The same with one thing changed, by its name."""
    tokenizer = policy.tokenizer
    pooled = policy_of(base, pooling="last")
    templated, typed, configured = policy_of(base), policy_of(base), policy_of(base)
    templated.tokenizer = replace(tokenizer, _chat=Template("{{ messages }}", {}, name="other"))
    typed.model = typed.model.to(torch.bfloat16)
    layout.causal(configured.model).config.layer_norm_eps = 1e-3
    return {
        "base": (policy, replace(base, digest="0" * 64)),
        "words": (policy, replace(base, tokens=("parcel",))),
        "pooling": (pooled, base),
        "template": (templated, base),
        "type": (typed, base),
        "settings": (configured, base),
    }


def test_whatever_a_state_depends_on_is_a_miss(tiny: Tiny) -> None:
    base = base_of(tiny("bert"))
    rows = rows_of(base)
    policy, _ = kept_of(base, rows)
    for name, (other, under) in changed(policy, base).items():
        found = features.opened(other, under, never)
        assert not any(map(found.knows, rows)), name
    assert features.opened(policy_of(base), replace(base, source="elsewhere"), never).knows(rows[0])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": lambda p: p.write_bytes(p.read_bytes()[:-9] + b"\x01" + p.read_bytes()[-8:]),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-7]),
    "empty": lambda p: p.write_bytes(b""),
    "no header": lambda p: p.write_bytes(b"\xff" * 400),
    "gone": lambda p: p.unlink(),
    "a link": lambda p: (p.rename(p.parent / "real"), p.symlink_to(p.parent / "real")),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_noticed_and_made_again(case: str, tiny: Tiny, home: Path) -> None:
    base = base_of(tiny("bert"))
    rows = rows_of(base)
    policy, states = kept_of(base, rows)
    (path,) = home.glob("*/*.safetensors")
    DAMAGE[case](path)
    said: list[str] = []
    found = features.opened(policy, base, said.append)
    assert not any(map(found.knows, rows))
    assert len(said) == (case == "a bit"), said
    assert torch.equal(found.of(collate(rows, "cpu"), policy.pooled), states)
    found.settle()
    if case != "a link":
        assert all(map(features.opened(policy, base, never).knows, rows))


def test_a_full_disk_is_told_once_and_ends_nothing(tiny: Tiny, monkeypatch: Any) -> None:
    base = base_of(tiny("bert"))
    rows, policy, said = rows_of(base), policy_of(base), list[str]()

    class Full(disk.Disk):
        def write(self, file: int, content: memoryview) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "DISK", Full())
    found = features.opened(policy, base, said.append)
    for row in rows:
        found.of(collate([row], "cpu"), policy.pooled)
        found.settle()
    assert len(said) == 1 and "no space left" in said[0] and "\n" not in said[0]
    first = collate(rows[:1], "cpu")
    assert torch.equal(found.of(first, never), policy.pooled(first))


def test_two_processes_at_once_lose_nothing(tiny: Tiny, home: Path) -> None:
    base = base_of(tiny("bert"))
    rows, policy = rows_of(base), policy_of(base)
    one, two = (features.opened(policy, base, never) for _ in range(2))
    first = one.of(collate(rows, "cpu"), policy.pooled)
    two.of(collate(rows, "cpu"), policy.pooled)
    one.settle()
    two.settle()
    assert len([*home.glob("*/*")]) == 1
    assert torch.equal(features.opened(policy, base, never).of(collate(rows, "cpu"), never), first)


def test_it_takes_no_more_than_its_limit_and_what_is_in_use_stays_readable(
    tiny: Tiny, home: Path
) -> None:
    base = base_of(tiny("bert"))
    rows, policy = rows_of(base, count=40), policy_of(base)
    place = features.opened(policy, base, never).folder
    found = Features(place, never, limit=3000)
    for row in rows:
        found.of(collate([row], "cpu"), policy.pooled)
        found.settle()
        assert sum(path.stat().st_size for path in home.glob("*/*")) <= 3000
    assert all(map(found.knows, rows[-3:]))
    again = Features(place, never)
    assert again.knows(rows[-1]) and not again.knows(rows[0])


def run_of(path: Path, base: Base, **changes: object) -> RunFolder:
    given = {"method": Frozen(), "objective": Classify(), "epochs": 4, "save_every": 100, **changes}
    return trained(prepared(path, rows=18, held=6, row=labelled), base, settings(**given))


def test_a_second_run_reads_no_row_and_learns_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(tiny("bert"))
    first = run_of(tmp_path / "one", base)
    looked: list[int] = []
    pooled = Policy.pooled

    def counted(self: Policy, batch: Batch) -> torch.Tensor:
        looked.append(len(batch.rows))
        return pooled(self, batch)

    monkeypatch.setattr(Policy, "pooled", counted)
    second = run_of(tmp_path / "two", base)
    assert looked == [1], "the look at one row by the model's own forward pass, and no other"
    one, two = (run.stage("train").path / heads.NAME for run in (first, second))
    assert one.read_bytes() == two.read_bytes()
    run_of(tmp_path / "three", base, lr=3e-2)
    assert looked == [1, 1], "another rate is no other state"


def test_rows_of_an_evaluation_are_read_once(tiny: Tiny, tmp_path: Path, monkeypatch: Any) -> None:
    base = base_of(tiny("bert"))
    folder = run_of(tmp_path / "run", base)
    log = Log(folder, quiet=True)
    evaluate(folder, Evaluate(), base, seed=0, log=log)
    path = folder.path / "evaluate" / "report.json"
    before = json.loads(path.read_text())
    monkeypatch.setattr(Policy, "pooled", never)
    evaluate(folder, Evaluate(), base, seed=0, log=log, restart=True)
    assert json.loads(path.read_text())["arms"] == before["arms"]
