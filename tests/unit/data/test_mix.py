"""Several sources: named, divided one by one, without leaks over all of them, every row told."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.data.test_split import row
from tests.unit.data.test_stage import Heard, account, done, many, rows_file, run
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.data.leaks import answered
from tunesmith.data.split import Split, split
from tunesmith.data.stage import Data
from tunesmith.resolved import text
from tunesmith.run import load_with_origins

__all__ = ["run"]


def two(path: Path, first: int = 40, second: int = 20, **more: Any) -> list[Any]:
    """A list of two sources."""
    a = rows_file(path / "a.jsonl", *many(first, "a"))
    b = rows_file(path / "b.jsonl", *many(second, "b"))
    return [a, {"path": b, **more}]


def test_each_source_is_divided_by_itself_and_its_rows_say_its_name(
    tmp_path: Path, run: RunFolder
) -> None:
    parts = done(run, source=two(tmp_path, name="second"))
    found = {part: Counter(r.source for r in rows) for part, rows in parts.items()}
    assert found["test"] == found["valid"] == {"a": 4, "second": 2}
    assert found["train"] == {"a": 32, "second": 16}
    told = account(run)["mixture"]["sources"]
    assert [(s["name"], s["rows"]["train"], s["epoch"], s["left_out"]) for s in told] == [
        ("a", 32, 32, 0),
        ("second", 16, 16, 0),
    ]


def test_an_epoch_beyond_all_bounds_is_refused(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(DataError, match=r"an epoch would be [\d,]+ rows.*data\.mix\.until=first"):
        done(run, source=two(tmp_path, weight=1_000_000))


def test_the_account_tells_weights_replay_and_rows_that_are_left_out(
    tmp_path: Path, run: RunFolder
) -> None:
    log = Heard()
    parts = done(run, log, source=two(tmp_path, replay=0.2))
    assert Counter(r.source for r in parts["train"]) == {"a": 32, "b": 20}
    assert {r.source for part in ("valid", "test") for r in parts[part]} == {"a"}
    b = account(run)["mixture"]["sources"][1]
    assert (b["rows"], b["epoch"], b["left_out"]) == ({"train": 20, "valid": 0, "test": 0}, 8, 12)
    assert (
        "source b: train 20, valid 0, test 0; in an epoch 8 of them once, 12 left out" in log.lines
    )


def test_a_changed_weight_is_another_data_stage(tmp_path: Path, run: RunFolder) -> None:
    done(run, source=two(tmp_path, weight=1.0))
    before = run.stage("data").digest
    done(run, source=two(tmp_path, weight=3.0))
    assert run.stage("data").digest != before
    assert [s["epoch"] for s in account(run)["mixture"]["sources"]] == [32, 96]


def test_a_source_brings_its_own_held_out_rows(tmp_path: Path, run: RunFolder) -> None:
    test = rows_file(tmp_path / "own.jsonl", *many(3, "t"))
    parts = done(run, source=two(tmp_path, test=test))
    assert Counter(r.source for r in parts["test"]) == {"a": 4, "b": 3}
    assert Counter(r.source for r in parts["train"]) == {"a": 32, "b": 18}


def test_a_row_of_one_source_that_answers_a_held_out_row_of_another_is_refused(
    tmp_path: Path, run: RunFolder
) -> None:
    test = rows_file(tmp_path / "own.jsonl", ("a 1", "other"), ("a 2", "other"), ("a 3", "x"))
    with pytest.raises(DataError, match="answers the prompt of .*own.jsonl"):
        done(run, source=two(tmp_path, test=test))


def test_labels_of_two_sources_are_two_labels(tmp_path: Path, run: RunFolder) -> None:
    both = []
    for name in ("tone", "topic"):
        path = tmp_path / f"{name}.jsonl"
        records = [{"text": f"text {n}", "label": f"{n % 2}"} for n in range(20)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        both.append(str(path))
    transforms = ["deduplicate", {"kind": "sample", "per_class": 5}]
    parts = done(run, source=both, transforms=transforms, split="none")
    found = Counter((r.source, r.answer()) for r in parts["train"])
    assert found == {(s, label): 5 for s in ("tone", "topic") for label in "01"}
    assert not json.loads((run.path / "data" / "findings.json").read_text())


def test_a_number_of_rows_is_divided_over_the_sources(tmp_path: Path, run: RunFolder) -> None:
    parts = done(run, source=two(tmp_path), split={"valid": 6, "test": 0})
    assert Counter(r.source for r in parts["valid"]) == {"a": 4, "b": 2}


def test_a_source_too_small_to_hold_rows_out_is_a_finding(tmp_path: Path, run: RunFolder) -> None:
    source = two(tmp_path)
    rows_file(tmp_path / "b.jsonl", *[("b", str(n)) for n in range(3)])  # They stay together.
    done(run, source=source, transforms=[])
    found = json.loads((run.path / "data" / "findings.json").read_text())
    assert [f["what"] for f in found if "not measured by itself" in f["what"]]


texts = st.sampled_from("abcdefgh")
talks = st.lists(st.tuples(texts, texts, st.sampled_from("xyz")), min_size=6, max_size=40)


@settings(max_examples=200, deadline=None)
@given(talks, st.integers(0, 5))
def test_no_prompt_is_answered_in_another_part_whatever_the_source(
    talks: list[tuple[str, str, str]], seed: int
) -> None:
    from dataclasses import replace

    rows = [replace(row(i, q, a), source=s) for i, (q, a, s) in enumerate(talks)]
    sizes = {"test": 0.3, "valid": 0.2}
    try:
        parts = split(rows, sizes, Split(), seed, kept={"z": {"test", "valid"}})
    except DataError:
        return
    for first, second in (("train", "test"), ("train", "valid"), ("valid", "test")):
        one, other = parts[first], parts[second]
        assert answered(one, other) == answered(other, one) == ([], [])
    for part, size in sizes.items():
        for name, count in Counter(r.source for r in parts[part]).items():
            whole = sum(r.source == name for r in rows)
            assert name != "z" and count <= max(1, round(size * whole))
    assert sum(map(len, parts.values())) == len(rows)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": ["x/a.jsonl", "y/a.jsonl"]}, "two sources are called 'a'"),
        ({"source": [{"path": "a", "replay": 0.2}]}, "every source is replayed"),
        (
            {"source": ["a", {"path": "b", "replay": 0.6}, {"path": "c", "replay": 0.5}]},
            "leave some for the task",
        ),
        ({"source": ["a", {"path": "b", "replay": 0.2, "weight": 2}]}, "leave weight"),
        (
            {"source": ["a", {"path": "b", "weight": 2}], "mix": {"temperature": 2}},
            "state weights or mix.temperature",
        ),
        ({"source": "a.jsonl", "mix": {"temperature": 2}}, "make data.source a list"),
        ({"source": [{"path": "a", "weight": 0}]}, "greater than 0"),
        ({"source": [{"path": "a", "name": "x/y"}]}, "match pattern"),
        ({"source": []}, "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Data(**settings)


def test_one_source_of_a_list_is_overridden_by_its_place(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data:\n  source: [a.jsonl, {path: b.jsonl, weight: 2}]\n")
    said = ["data.source.0.weight=3", "data.source.1.path=c.jsonl"]
    a, c = load_with_origins(file, said).run.data.several
    assert (a.path, a.weight) == (str(tmp_path / "a.jsonl"), 3.0)
    assert (c.path, c.weight) == (str(Path.cwd() / "c.jsonl"), 2.0)
    with pytest.raises(SettingsError, match=r"run.yaml:2:\d+: data.source.*wieght.*weight"):
        file.write_text("data:\n  source: [a.jsonl, {path: b.jsonl, wieght: 2}]\n")
        load_with_origins(file)


def test_paths_in_a_list_are_relative_to_the_run_file_and_a_project_may_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "run.yaml"
    file.write_text(
        "data:\n  source:\n    - a.jsonl\n    - {path: b.jsonl, test: t.jsonl, weight: 2}\n"
    )
    loaded = load_with_origins(file)
    a, b = loaded.run.data.several
    home = str(tmp_path / "sub")
    assert (a.path, b.path, b.test) == (f"{home}/a.jsonl", f"{home}/b.jsonl", f"{home}/t.jsonl")
    kept = tmp_path / "runs" / "x"
    kept.mkdir(parents=True)
    (kept / "run.yaml").write_text(text(loaded, kept, tmp_path))
    assert "../../sub/a.jsonl" in (kept / "run.yaml").read_text()
    assert load_with_origins(kept).run.data == loaded.run.data
