"""Who saw a row: by digits that are no digest, in models put away, in files of any form."""

import json
from pathlib import Path
from typing import Any

from tunesmith.core.disk import write_json
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.data.stage import Data, inputs, prepare
from tunesmith.data.stated import forms_of
from tunesmith.lineage import who_saw

CARD = "4111111111111111"


def trained(home: Path, name: str, source: Path, came: str = "", **settings: Any) -> Stage:
    """A finished training on a file of rows, without the numbers."""
    folder = RunFolder(home / "runs" / name)
    folder.create()
    prepare(folder, Data(source=str(source), split="none", **settings), seed=0, log=Log(quiet=True))
    lines = (folder.path / "data" / "train.jsonl").read_text().splitlines()
    stage = folder.stage("train")
    stage.begin({"digest of the data": folder.stage("data").digest, "from": came})
    rows = [json.loads(line)["digest"] for line in lines]
    write_json(stage.path / "rows.json", {"trained_on": rows})
    write_json(stage.path / "train.json", {"from": {"training": came} if came else None})
    stage.finish()
    return stage


def rows(path: Path, *answers: str, keys: tuple[str, str] = ("prompt", "completion")) -> Path:
    """A file of questions with these answers."""
    records = [{keys[0]: f"q {i}", keys[1]: a} for i, a in enumerate(answers)]
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def seen(asked: str | Path, home: Path) -> dict[str, str]:
    """The runs found, each with the one it saw the rows through."""
    return {each.run: each.through for each in who_saw(str(asked), home / "runs")}


def test_a_number_that_begins_no_digest_is_words(tmp_path: Path) -> None:
    trained(tmp_path, "shop", rows(tmp_path / "a.jsonl", f"Pay with {CARD}", "b"))
    assert seen(CARD, tmp_path) == {"shop": ""}
    assert seen("4000000000000002", tmp_path) == {}


def test_a_model_put_away_still_saw_the_row(tmp_path: Path) -> None:
    source = rows(tmp_path / "a.jsonl", "Mail jane@example.org", "b")
    first = trained(tmp_path, "dirty", source)
    digests = json.loads((first.path / "rows.json").read_text())["trained_on"]
    trained(tmp_path, "child", rows(tmp_path / "c.jsonl", "c"), came=first.digest)
    deployed = first.run.stage("deploy")
    deployed.begin({"digest of the trained folder": first.digest})
    (deployed.path / "merged").mkdir()
    deployed.finish()
    trained(tmp_path, "dirty", rows(source, "nothing", "b"))
    (put_away,) = (tmp_path / "runs/dirty/earlier").iterdir()
    old = f"dirty/earlier/{put_away.name}"
    for asked in ("jane@example.org", digests[0], digests[0][:12]):
        assert seen(asked, tmp_path) == {"child": old, old: ""}
    (_, away) = who_saw("jane@", tmp_path / "runs")
    assert away.models == (str(put_away / "train"), str(put_away / "deploy/merged"))
    assert seen(digests[1], tmp_path) == {"child": old, old: "", "dirty": ""}


def test_words_are_found_where_only_the_training_was_put_away(tmp_path: Path) -> None:
    source = rows(tmp_path / "a.jsonl", "Mail jane@example.org")
    first = trained(tmp_path, "bot", source)
    first.set_aside()
    trained(tmp_path, "bot", source)
    assert len(seen("jane@example.org", tmp_path)) == 2


def test_a_file_is_read_in_the_form_that_a_run_states(tmp_path: Path) -> None:
    form = {"kind": "columns", "user": "ask", "assistant": "say"}
    keys = ("ask", "say")
    trained(tmp_path, "plain", rows(tmp_path / "p.jsonl", "other"))
    trained(tmp_path, "asks", rows(tmp_path / "a.jsonl", "x", "y", keys=keys), format=form)
    assert seen(rows(tmp_path / "requests.jsonl", "x", keys=keys), tmp_path) == {"asks": ""}
    assert seen(tmp_path / "p.jsonl", tmp_path) == {"plain": ""}


def test_forms_are_read_back_as_they_were_stated() -> None:
    form = {"kind": "columns", "user": "ask", "assistant": "say"}
    sources = [{"path": "a.csv", "name": "format.x", "format": form}, "b.jsonl"]
    spec = Data.model_validate({"source": sources, "format": "chat", "split": "none"})
    kinds = [each.kind for each in forms_of([inputs(spec, {}, 0), inputs(spec, {}, 1)])]
    assert sorted(kinds) == ["chat", "columns"]
    assert forms_of([{"data.format.kind": "of a package that is gone"}]) == []


def test_words_may_be_long_and_named_like_a_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("garden").mkdir()
    trained(tmp_path, "bot", rows(tmp_path / "a.jsonl", "The garden " + "so green " * 60))
    assert seen("garden", tmp_path) == seen("so green " * 60, tmp_path) == {"bot": ""}
    assert seen("nul\0", tmp_path) == {}
