"""A run with a head in use: it predicts labels, and another run goes on from it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_model
from tunesmith import chat
from tunesmith.answers import load
from tunesmith.cards import model_card
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.job import Job
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.pipeline import carry_out
from tunesmith.predict import write
from tunesmith.run import from_mapping

LABELS = ["late", "lost"]


def made(home: Path, name: str, source: Path, **changes: Any) -> RunFolder:
    """A trained run that chooses among LABELS, or among those in `changes`."""
    rows = home / "rows.jsonl"
    if not rows.exists():
        lines = [
            {"text": f"order {i} is {LABELS[i % 2]}", "label": LABELS[i % 2]} for i in range(32)
        ]
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    objective = {"kind": "classify", "labels": changes.pop("labels", LABELS)}
    settings = {
        "name": name,
        "model": {"source": str(source), "start": changes.pop("start", "merged")},
        "data": {"source": str(rows), "split": {"valid": 4, "test": 4}},
        "train": {"steps": 4, "batch": 4, "objective": objective, **changes},
    }
    folder = RunFolder(home / "runs" / name)
    carry_out(Job(from_mapping(settings, {}), folder, Log(quiet=True)), "train")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the runs `sorter` (frozen base) and `adapted` (LoRA), each with a head."""
    home = tmp_path_factory.mktemp("headed")
    tiny_model("llama", home / "tiny")
    made(home, "sorter", home / "tiny", method="frozen")
    made(home, "adapted", home / "tiny", method={"kind": "lora", "rank": 4})
    return home


def facts(folder: RunFolder) -> dict[str, Any]:
    """What a finished training says of itself."""
    found: dict[str, Any] = json.loads((folder.path / "train" / "train.json").read_text())
    return found


@pytest.mark.parametrize("name", ["sorter", "adapted"])
def test_it_predicts_a_label_and_how_likely_each_is(home: Path, tmp_path: Path, name: str) -> None:
    asked, out = tmp_path / "asked.csv", tmp_path / "labelled.jsonl"
    asked.write_text("text,id\norder 7 is late,007\norder 8 is lost,008\n")
    write(str(home / "runs" / name), asked, out, (), "tuned", Log(quiet=True))
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in found] == ["007", "008"]
    for row in found:
        said = row["predicted"]
        assert list(said["probabilities"]) == LABELS
        assert sum(said["probabilities"].values()) == pytest.approx(1)
        assert said["label"] == max(LABELS, key=lambda name: said["probabilities"][name])
    with pytest.raises(SettingsError, match="leave out --base"):
        write(str(home / "runs" / name), asked, None, (), "base", Log(quiet=True))


@pytest.mark.parametrize(
    "form",
    [
        {"kind": "labelled", "names": LABELS},
        {"kind": "columns", "text": "text", "label": "is", "names": LABELS},
        {"kind": "columns", "text": "text", "labels": "are"},
    ],
)
def test_rows_without_labels_are_asked_in_the_format_of_the_run(
    home: Path, tmp_path: Path, form: dict[str, Any]
) -> None:
    asked, out, run = tmp_path / "asked.csv", tmp_path / "out.jsonl", str(home / "runs" / "sorter")
    asked.write_text("text,id\norder 7 is late,007\n")
    write(run, asked, out, [f"data.format={json.dumps(form)}"], "tuned", Log(quiet=True))
    (line,) = out.read_text().splitlines()
    assert json.loads(line)["predicted"]["label"] in LABELS
    with pytest.raises(SettingsError, match="answers with another format"):
        write(run, asked, out, (), "tuned", Log(quiet=True))
    assert out.read_text() == line + "\n"


def test_a_conversation_is_no_text_to_label(home: Path, tmp_path: Path) -> None:
    asked, run = tmp_path / "asked.jsonl", str(home / "runs" / "sorter")
    turns = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "order 7 is late"}]
    asked.write_text(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(DataError, match=r"asked.jsonl:1: .* answers rows of kind labelled"):
        write(run, asked, None, (), "tuned", Log(quiet=True))


@pytest.mark.parametrize("arm", ["base", "tuned"])
def test_a_run_with_a_head_writes_nothing(home: Path, arm: Any) -> None:
    run = home / "runs" / "sorter"
    model = load(run, ["evaluate.sampling.choices=labels"], arm)
    with pytest.raises(SettingsError, match="writes nothing; use: tunesmith predict sorter"):
        model.answer("order 7 is late")
    with pytest.raises(SettingsError, match="writes nothing"):
        chat.hold(str(run), (), [arm], chat.as_text)


@pytest.mark.parametrize(
    ("name", "method"), [("sorter", "frozen"), ("adapted", {"kind": "lora", "rank": 4})]
)
def test_a_head_goes_on_where_it_was(home: Path, name: str, method: Any) -> None:
    source = home / "runs" / name
    onward = made(home, f"{name}-onward", source, start="continue", method=method)
    best = facts(RunFolder(source))["best_value"]
    assert facts(onward)["held_out_before"] == pytest.approx(best, rel=1e-5)
    with pytest.raises(SettingsError, match=r"train\.objective\.labels: .* say the same"):
        made(home, f"{name}-other", source, start="continue", method=method, labels=LABELS[::-1])


def test_a_new_head_stands_on_what_was_trained_before(home: Path) -> None:
    base = resolve(ModelSpec(source=str(home / "tiny")))
    sorter = resolve(ModelSpec(source=str(home / "runs" / "sorter")))
    assert (sorter.digest, sorter.folder) == (base.digest, base.folder), "nothing to copy"
    assert resolve(ModelSpec(source=str(home / "runs" / "adapted"))).digest != base.digest
    for name in ("adapted", "sorter"):
        above = made(home, f"above-{name}", home / "runs" / name, method="frozen")
        assert facts(above)["from"]["head"] == "stays behind"
        assert "| earlier run: head | stays behind |" in model_card.write(above).read_text()
