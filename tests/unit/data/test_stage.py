"""The data stage: every row accounted for, redone only when it must be, nothing half-made."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat
from tunesmith.core.tables import read_part
from tunesmith.data import intake
from tunesmith.data import stage as stage_module
from tunesmith.data.stage import Data, prepare


class Heard(Log):
    """A log that remembers what it said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An empty run folder."""
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.create()
    return folder


def rows_file(path: Path, *rows: tuple[str, str], **more: Any) -> str:
    """A file of prompts and completions."""
    records = [{"prompt": p, "completion": c, **more} for p, c in rows]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def many(count: int, name: str = "q") -> list[tuple[str, str]]:
    """Rows that all ask something else."""
    return [(f"{name} {i}", f"answer {i}") for i in range(count)]


def done(run: RunFolder, log: Log | None = None, **settings: Any) -> dict[str, list[Chat]]:
    """Prepare, and give the parts as they stand on disk."""
    options = {key: settings.pop(key) for key in ("seed", "accept", "restart") if key in settings}
    prepare(run, Data(**settings), log=log or Log(quiet=True), **{"seed": 0, **options})
    folder = run.path / "data"
    return {p.stem: read_part(folder, p.stem) for p in folder.glob("*.jsonl")}


def account(run: RunFolder) -> dict[str, Any]:
    """What the stage wrote about its rows."""
    found: dict[str, Any] = json.loads((run.path / "data" / "account.json").read_text())
    return found


def test_every_row_is_kept_in_a_part_or_dropped_for_a_reason(
    tmp_path: Path, run: RunFolder
) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50), *many(10), id=1)
    parts = done(run, source=source, transforms=["deduplicate", {"kind": "sample", "rows": 40}])
    told = account(run)
    assert told["files"] == [
        {"file": "rows.jsonl", "as": "source", "format": "completion", "rows": 60, "unused": ["id"]}
    ]
    assert [(s["kind"], s["taken"], s["kept"]) for s in told["steps"]] == [
        ("deduplicate", 60, 50),
        ("sample", 50, 40),
    ]
    assert all(s["taken"] == s["kept"] + sum(s["dropped"].values()) for s in told["steps"])
    assert told["parts"] == {part: len(rows) for part, rows in parts.items()}
    assert told["parts"] == {"train": 32, "valid": 4, "test": 4}
    assert json.loads((run.path / "data" / "findings.json").read_text()) == []
    assert run.stage("data").manifest()["facts"]["parts"] == told["parts"]


def test_the_summary_says_all_of_it(tmp_path: Path, run: RunFolder) -> None:
    log = Heard()
    done(run, log, source=rows_file(tmp_path / "rows.jsonl", *many(50), ("q 1", " "), id=1))
    text = "\n".join(log.lines)
    for words in (
        "51 rows, format completion (found); keys not used: 'id'",
        "deduplicate: 51 rows in, 51 kept",
        "parts: train 41, valid 5, test 5",
        "words a row: median 4",
        "####",
        "train an empty answer: 1",
    ):
        assert words in text


def test_dropped_rows_are_said_with_their_reason(tmp_path: Path, run: RunFolder) -> None:
    log = Heard()
    done(run, log, source=rows_file(tmp_path / "rows.jsonl", *many(50), *many(3)))
    assert "deduplicate: 53 rows in, 50 kept, dropped 3 (3 the same as an earlier row)" in log.lines


def test_too_few_rows_to_divide_tell_what_was_dropped(tmp_path: Path, run: RunFolder) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(1) * 200, *many(2))
    with pytest.raises(DataError, match=r"left.*deduplicate: 202 rows in, 2 kept, dropped 200"):
        done(run, source=source)


def test_a_small_class_is_said(tmp_path: Path, run: RunFolder) -> None:
    log, path = Heard(), tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{'ab'[i > 8]}\n" for i in range(11)))
    done(run, log, source=str(path), transforms=[{"kind": "sample", "per_class": 4}], split="none")
    said = "classes with fewer than 4 rows, all kept: 1 of 2 ('b')"
    assert f"sample: 11 rows in, 6 kept, dropped 5 (5 not in the sample); {said}" in log.lines
    assert account(run)["steps"][0]["notes"] == [said]


EVERY_KIND = [
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "two words"}]},
    {"text": "three words here"},
    {"text": "three words here", "label": "never counted"},
    {"prompt": "q", "chosen": "one", "rejected": "two"},
    {"prompt": "q", "completion": "two words", "label": True},
]


@pytest.mark.parametrize("record", EVERY_KIND)
def test_rows_of_every_kind_go_through_the_whole_stage(
    tmp_path: Path, run: RunFolder, record: dict[str, Any]
) -> None:
    log, path = Heard(), tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(record)}\n" * 3)
    (row,) = done(run, log, source=str(path), split="none")["train"]
    assert row.record()["origin"] == {"file": "rows.jsonl", "line": 1}
    assert "words a row: median 3, 95 of 100 have at most 3, longest 3" in log.lines
    assert json.loads((run.path / "data" / "findings.json").read_text()) == []


def test_lengths_are_tokens_where_there_is_a_tokenizer(tmp_path: Path, run: RunFolder) -> None:
    class Letters:
        def encode(self, text: str) -> list[int]:
            return [ord(c) for c in text]

    log = Heard()
    data = Data(source=rows_file(tmp_path / "rows.jsonl", ("abc", "de")), split="none")
    prepare(run, data, seed=0, log=log, tokenizer=Letters())
    assert any(line.startswith("tokens a row: median 5") for line in log.lines)


def test_finished_work_is_not_done_again(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    first = done(run, source=source)
    before = run.stage("data").digest
    monkeypatch.setattr(stage_module, "divided", lambda *_: pytest.fail("done again"))
    assert done(run, source=source) == first
    assert run.stage("data").digest == before


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"split": {"test": 5}},
        {"transforms": []},
        {"audits": []},
        {"format": "completion"},
    ],
)
def test_other_settings_make_other_parts_and_keep_the_old(
    tmp_path: Path, run: RunFolder, change: dict[str, Any]
) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    done(run, source=source)
    done(run, source=source, **change)
    assert len(list((run.path / "earlier").glob("*/data/MANIFEST.json"))) == 1
    assert run.stage("data").manifest()["facts"]["parts"]


def test_another_content_of_the_file_is_noticed(tmp_path: Path, run: RunFolder) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    done(run, source=source)
    rows_file(tmp_path / "rows.jsonl", *many(60))
    assert sum(len(rows) for rows in done(run, source=source).values()) == 60


def test_a_changed_file_is_told_by_its_name_and_what_it_had(tmp_path: Path, run: RunFolder) -> None:
    source, log = rows_file(tmp_path / "rows.jsonl", *many(50)), Heard()
    done(run, source=source)
    rows_file(tmp_path / "rows.jsonl", *many(60))
    done(run, log, source=source, valid=rows_file(tmp_path / "valid.jsonl", ("held", "out")))
    (line,) = [line for line in log.lines if "done again" in line]
    assert re.search(r"rows\.jsonl \(50 rows when it was read on \d{4}-\S+ at \S+\) changed", line)
    assert "valid.jsonl is new" in line and "digest" not in line
    assert not re.search(r"[0-9a-f]{13}", line), "no reader compares digits"


def test_another_file_under_the_same_name_is_told_as_such(tmp_path: Path, run: RunFolder) -> None:
    log = Heard()
    done(run, source=rows_file(tmp_path / "rows.jsonl", *many(50)))
    done(run, log, source=rows_file(tmp_path / "all.jsonl", *many(60)))
    (line,) = [line for line in log.lines if "done again" in line]
    assert re.search(r"all\.jsonl, in place of \S*rows\.jsonl, changed", line)
    assert "50 rows" not in line


def test_another_model_of_an_audit_at_the_same_place_is_noticed(tmp_path: Path) -> None:
    """What a retrained classifier, or another names model, finds is not what the old one found."""
    manifest = tmp_path / "judge" / "train" / "MANIFEST.json"
    numbers = tmp_path / "tagger" / "model.safetensors"
    audits: Any = [
        {"kind": "sensitive", "classifier": str(tmp_path / "judge"), "labels": ["rude"]},
        {"kind": "pii", "names": str(tmp_path / "tagger")},
    ]
    spec = Data(source=rows_file(tmp_path / "rows.jsonl", *many(3)), audits=audits)
    found = [stage_module.inputs(spec, {}, 0)]  # Neither is there: they are told when read.
    for path in (manifest, numbers):
        path.parent.mkdir(parents=True)
        for content in ("old", "new"):
            path.write_text(content)
            (path.parent / "lock").write_text(content)
            found.append(stage_module.inputs(spec, {}, 0))
        (path.parent / "lock").write_text("of no weight")
        assert stage_module.inputs(spec, {}, 0) == found[-1]
    assert all(found.count(each) == 1 for each in found)


def test_a_mended_file_needs_no_flag(tmp_path: Path, run: RunFolder) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{broken')
    for _ in range(2):
        with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
            done(run, source=str(path))
        assert list(run.path.rglob("*")) == []
    assert len(done(run, source=rows_file(path, *many(50)))["train"]) == 40


def test_a_killed_attempt_leaves_no_part_of_it(tmp_path: Path, run: RunFolder) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    data = Data(source=source, split="none")
    stage = run.stage("data")
    stage.begin(stage_module.inputs(data, stage_module.locate(data, tmp_path, {}), 0))
    (stage.path / "test.jsonl").write_text("of a killed process")
    assert set(done(run, source=source, split="none")) == {"train"}


def test_an_unfinished_attempt_with_other_settings_is_refused_by_name(
    tmp_path: Path, run: RunFolder
) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    run.stage("data").begin({"data.split.test": 0.5, "seed": 0})
    with pytest.raises(SettingsError, match=r"data\.split\.test was 0\.5"):
        done(run, source=source)
    assert done(run, source=source, restart=True)["train"]


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    real = stage_module.divided

    def meanwhile(*arguments: Any) -> Any:
        result = real(*arguments)
        rows_file(tmp_path / "rows.jsonl", *many(51))
        return result

    monkeypatch.setattr(stage_module, "divided", meanwhile)
    with pytest.raises(DataError, match="changed while it was read"):
        done(run, source=source)


def test_held_out_files_are_used_as_they_are(tmp_path: Path, run: RunFolder) -> None:
    parts = done(
        run,
        source=rows_file(tmp_path / "rows.jsonl", *many(50)),
        valid=rows_file(tmp_path / "valid.jsonl", *many(4, "v"), *many(4, "v")),
        test=rows_file(tmp_path / "test.jsonl", *many(5, "t")),
        transforms=["deduplicate", {"kind": "sample", "rows": 30}],
    )
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 30, "valid": 8, "test": 5}


def test_a_part_without_a_file_is_split_off(tmp_path: Path, run: RunFolder) -> None:
    parts = done(
        run,
        source=rows_file(tmp_path / "rows.jsonl", *many(50)),
        test=rows_file(tmp_path / "test.jsonl", *many(5, "t")),
    )
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 45, "valid": 5, "test": 5}


def test_split_none_trains_on_everything(tmp_path: Path, run: RunFolder) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    assert {p: len(r) for p, r in done(run, source=source, split="none").items()} == {"train": 50}


@pytest.mark.parametrize(("valid", "test"), [("q 3", "t"), ("v", "q 3")])
def test_a_leak_between_files_is_refused_with_both_places(
    tmp_path: Path, run: RunFolder, valid: str, test: str
) -> None:
    files = {
        "source": rows_file(tmp_path / "rows.jsonl", *many(50)),
        "valid": rows_file(tmp_path / "valid.jsonl", (valid, "x")),
        "test": rows_file(tmp_path / "test.jsonl", (test, "x")),
    }
    with pytest.raises(DataError) as caught:
        done(run, **files)
    held_out = "valid.jsonl" if valid == "q 3" else "test.jsonl"
    for word in ("rows.jsonl:4: ", f"{held_out}:1", "data.leaks: drop"):
        assert word in str(caught.value)
    parts = done(run, leaks="drop", **files)
    assert len(parts["train"]) == 49
    step = account(run)["steps"][-1]
    assert step["kind"] == "leaks of train" and step["taken"] - step["kept"] == 1


def test_a_leak_from_choosing_to_judging_is_a_leak(tmp_path: Path, run: RunFolder) -> None:
    files = {
        "source": rows_file(tmp_path / "rows.jsonl", *many(50)),
        "valid": rows_file(tmp_path / "valid.jsonl", ("v", "x"), ("w", "x")),
        "test": rows_file(tmp_path / "test.jsonl", ("v", "y")),
    }
    with pytest.raises(DataError, match="rows of valid: 1"):
        done(run, **files)
    assert len(done(run, leaks="drop", **files)["valid"]) == 1


def test_only_leaked_rows_is_nothing_to_train_on(tmp_path: Path, run: RunFolder) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(5))
    test = rows_file(tmp_path / "test.jsonl", *many(5))
    reasons = r"no row of train is left .*dropped 5 \(5 answers a held-out prompt\)"
    with pytest.raises(DataError, match=reasons):
        done(run, source=source, test=test, leaks="drop", split={"valid": 0})
    by: Any = {"kind": "leakage", "by": "^[qa] "}
    other = rows_file(tmp_path / "test.jsonl", ("q of this group", "x"))
    reasons = r"dropped 5 \(5 is of a group that is held out\)"
    with pytest.raises(DataError, match=reasons):
        done(run, source=source, test=other, leaks="drop", split={"valid": 0}, audits=[by])


def test_what_any_leakage_audit_finds_is_dropped(tmp_path: Path, run: RunFolder) -> None:
    files = {
        "source": rows_file(tmp_path / "rows.jsonl", *many(50)),
        "test": rows_file(tmp_path / "test.jsonl", ("of 3 and 4", "x"), ("Q 7", "x")),
    }
    asked: Any = [{"kind": "leakage", "by": rf"\b{digit}\b"} for digit in (3, 4)]
    done(run, leaks="drop", audits=asked, split={"valid": 0}, **files)
    reasons = {"answers a held-out prompt but for case and spaces": 1}
    assert account(run)["steps"][-1]["dropped"] == reasons | {"is of a group that is held out": 2}


def test_dropping_leaks_is_for_files_and_our_own_split_has_a_rule_for_it(
    tmp_path: Path, run: RunFolder
) -> None:
    said = "The courier asks for the parcel that was left in the house of neighbour {}"
    settings: Any = {
        "source": rows_file(tmp_path / "rows.jsonl", *((said.format(i), "x") for i in range(50))),
        "test": rows_file(tmp_path / "test.jsonl", ("t", "x")),
        "audits": [{"kind": "leakage", "near": 0.8}],
        "leaks": "drop",
    }
    parts = done(run, **settings)
    assert len(parts["train"]) == 45 and len(parts["valid"]) == 5
    (finding,) = json.loads((run.path / "data/findings.json").read_text())
    assert "nearly ask" in finding["what"] and "data.split.near" in finding["advice"]


def test_groups_of_a_key_stay_in_one_part(tmp_path: Path, run: RunFolder) -> None:
    path = tmp_path / "rows.jsonl"
    records = [
        {"prompt": f"q {i}", "completion": f"customer {i // 5}", "metadata": {"who": i // 5}}
        for i in range(100)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    parts = done(run, source=str(path), split={"by": "metadata.who", "test": 0.2})
    seen = [{row.answer() for row in rows} for rows in parts.values()]
    assert sum(len(group) for group in seen) == len(set.union(*seen)) == 20
    with pytest.raises(DataError, match=r"rows\.jsonl:1: there is no value under 'customer'"):
        done(run, source=str(path), split={"by": "customer"})


def test_settings_in_short_and_in_full_are_equal_and_survive_json() -> None:
    class Section(BaseModel):
        data: Data

    short = Section.model_validate(
        {"data": {"source": "a.csv", "format": "alpaca", "transforms": ["deduplicate"]}}
    )
    full = Section.model_validate(json.loads(short.model_dump_json()))
    assert full == short and full.data.format is not None and full.data.format.kind == "alpaca"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"source": "a", "format": "sharegpt4"},
        {"source": "a", "format": "columns"},
        {"source": "a", "transforms": [{"kind": "sample"}]},
        {"source": "a", "transforms": [{"kind": "sample", "rows": 0}]},
        {"source": "a", "transforms": [{"kind": "sample", "rows": 1, "per_class": 1}]},
        {"source": "a", "split": "nothing"},
        {"source": "a", "leaks": "ignore"},
        {"source": "a", "sources": "b"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Data.model_validate(settings)


def test_rows_are_prepared_without_torch(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "for name in ('torch', 'transformers', 'peft', 'datasets'): sys.modules[name] = None\n"
        "from tunesmith.core.folders import RunFolder\n"
        "from tunesmith.core.log import Log\n"
        "from tunesmith.data.stage import Data, prepare\n"
        "run = RunFolder(Path(sys.argv[2]))\n"
        "run.create()\n"
        "prepare(run, Data(source=sys.argv[1]), seed=0, log=Log(run))\n"
    )
    command = [sys.executable, "-c", program, source, str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)


def test_where_the_files_lie_changes_nothing(tmp_path: Path, run: RunFolder) -> None:
    source = rows_file(tmp_path / "rows.jsonl", *many(50))
    done(run, source=source)
    before = run.stage("data").digest
    (tmp_path / "elsewhere").mkdir()
    done(run, source=str(Path(source).rename(tmp_path / "elsewhere" / "rows.jsonl")))
    assert run.stage("data").digest == before and not (run.path / "earlier").exists()


@pytest.mark.parametrize("large", [False, True])
def test_the_field_that_divides_is_in_no_part(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(intake, "LARGE", 0)
    records = [
        {"prompt": f"q {i}", "completion": f"a {i}", "customer": f"jane{i}@example.org"}
        for i in range(30)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(each) + "\n" for each in records))
    parts = done(run, source=str(source), transforms=["redact"], split={"by": "customer"})
    assert sum(map(len, parts.values())) == 30 and len(parts) == 3
    assert "jane" not in "".join(path.read_text() for path in run.path.rglob("*.json*"))
