"""From dirty rows to a card: a policy stops the run, and who-saw names the runs of a row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith import door
from tunesmith.cards import data_card
from tunesmith.cli import app
from tunesmith.core.errors import SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.rows import Origin, Text
from tunesmith.data.audits.sensitive import Sensitive
from tunesmith.lineage import who_saw

QUICK = ["train.epochs=1", "train.batch=4", "train.probes=0", "data.split=none"]


def tell(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """What a command returns and says."""
    capsys.readouterr()
    code = door.enter(app, list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def rows(path: Path, *answers: str) -> Path:
    """A file of questions with these answers."""
    lines = [json.dumps({"prompt": f"q{i}", "completion": a}) for i, a in enumerate(answers)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_policy_lets_clean_rows_train_and_dirty_ones_not(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    common = [f"model.source={tiny('llama')}", *QUICK]
    rows(tmp_path / "dirty.jsonl", "Mail jane@example.org", "b", "c", "d")
    code, _, said = tell(capsys, "train", "dirty.jsonl", "policy.pii=refuse", *common)
    assert code == 3 and "policy.pii: refuse forbids to train" in said
    assert "jane@" not in said and not (tmp_path / "runs/dirty/train/train.json").exists()

    code, out, _ = tell(capsys, "train", "dirty.jsonl", "policy.pii=keep", *common)
    assert code == 0 and "data.html" in out
    page = (tmp_path / "runs/dirty/cards/data.html").read_text()
    card = (tmp_path / "runs/dirty/cards/data_card.md").read_text()
    for text in (page, card):
        assert "an e-mail address: 1" in text and "jane@" not in text and "not legal advice" in text
    code, _, said = tell(capsys, "deploy", "dirty.jsonl", "policy.pii=keep", *common)
    assert code == 3 and "policy.pii: keep forbids to export" in said

    rows(tmp_path / "other.jsonl", "Nothing", "b", "y", "z")
    assert tell(capsys, "train", "other.jsonl", *common)[0] == 0
    child = ["name=child", "model.source=runs/dirty", *QUICK]
    assert tell(capsys, "train", "other.jsonl", *child)[0] == 0
    seen_by_text(capsys)
    seen_by_row(tmp_path)


def seen_by_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Words of a row lead to the run, and to the one that started from it."""
    code, out, _ = tell(capsys, "who-saw", "JANE@example.org", "--json")
    found: list[dict[str, Any]] = json.loads(out)
    assert code == 0 and [each["run"] for each in found] == ["child", "dirty"]
    assert found[0]["through"] == "dirty" and not found[0]["rows"] and len(found[1]["rows"]) == 1
    assert found[1]["models"][0].endswith("runs/dirty/train")
    assert "no run here was trained on" in tell(capsys, "who-saw", "nobody@example.org")[1]


def seen_by_row(home: Path) -> None:
    """So do a digest and a file; exactly the right runs are named."""
    record = json.loads((home / "runs/dirty/data/train.jsonl").read_text().splitlines()[0])
    (child, dirty) = who_saw(record["digest"][:16], home / "runs")
    assert dirty.rows == (record["digest"],) and child.through == "dirty"
    found = who_saw(str(home / "other.jsonl"), home / "runs")
    assert {each.run: len(each.rows) for each in found} == {"child": 4, "dirty": 1, "other": 4}


def test_a_classifier_of_ones_own_judges_rows(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a head is named by its folder; an unknown label is refused with those it has."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": f"the cat {i}", "label": "ab"[i % 2]}) for i in range(8)]
    (tmp_path / "moods.jsonl").write_text("\n".join(lines) + "\n")
    asked = ["train.objective=classify", "train.method=frozen", f"model.source={tiny('bert')}"]
    assert door.enter(app, ["train", "moods.jsonl", *asked, *QUICK]) == 0
    rows = [Text("the dog", origin=Origin("x", 1)), Text(" ", origin=Origin("x", 2))]
    audit = Sensitive(classifier="runs/moods", labels=("a", "b"), above=0.0)
    told = [finding.what for finding in audit.inspect({"train": rows})]
    assert told == [f"rows of train that the classifier calls {label!r}: 1" for label in "ab"]
    with pytest.raises(SettingsError, match="has no label 'c'; it has 'a', 'b'"):
        list(Sensitive(classifier="runs/moods", labels=("c",)).inspect({"train": rows}))


def test_a_card_of_nothing_says_so(tmp_path: Path) -> None:
    made = data_card.card(RunFolder(tmp_path / "bot").path)
    assert made.summary == "Rows: . Findings: none."
