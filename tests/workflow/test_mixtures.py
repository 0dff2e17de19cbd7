"""Several sources from files to the report: what is seen, measured and answered of each."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_encoder
from tests.trained import WORDS, base_of, settings, trained
from tests.workflow.test_resume import result, stop_after
from tunesmith import door, load
from tunesmith.cards.model_card import write
from tunesmith.cli import app
from tunesmith.core.errors import DataError, Preempted
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.mixing import recipe_of
from tunesmith.core.tables import read_part
from tunesmith.data.stage import Data, prepare
from tunesmith.evaluate.questions import questions
from tunesmith.evaluate.stage import Evaluate

Tiny = Callable[[str], Path]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def chats(path: Path, name: str, count: int) -> str:
    return jsonl(
        path / f"{name}.jsonl",
        [
            {"prompt": f"{name} {n} {WORDS[n % 9]}", "completion": WORDS[n % 7]}
            for n in range(count)
        ],
    )


def texts(path: Path, count: int) -> str:
    return jsonl(
        path / "general.jsonl", [{"text": f"{' '.join(WORDS[n % 5 :])} {n}"} for n in range(count)]
    )


def labels(path: Path, name: str, names: list[str], count: int = 30) -> str:
    rows = [
        {"text": f"{name} {names[n % len(names)]} {n}", "label": names[n % len(names)]}
        for n in range(count)
    ]
    return jsonl(path / f"{name}.jsonl", rows)


def prepared(home: Path, name: str, **data: Any) -> RunFolder:
    """A run whose data stage was done for several sources."""
    folder = RunFolder(home / "runs" / name)
    folder.create()
    prepare(folder, Data(**data), seed=0, log=Log(folder, quiet=True))
    return folder


def mixed(home: Path, name: str) -> RunFolder:
    """Twenty rows of a task, as many of another seen twice as often, and documents beside."""
    return prepared(
        home,
        name,
        source=[
            chats(home, "one", 20),
            {"path": chats(home, "two", 20), "weight": 2},
            {"path": texts(home, 9), "replay": 0.25},
        ],
    )


def test_a_mixed_stream_resumes_to_the_bit(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, spec = base_of(tiny("llama")), settings(epochs=1, save_every=100, evaluate_every=100)
    whole = result(trained(mixed(tmp_path, "whole"), base, spec))
    for step in (3, 10):
        folder = mixed(tmp_path, f"stopped{step}")
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Preempted):
                trained(folder, base, spec)
        torch.manual_seed(step)
        assert result(trained(folder, base, spec)) == whole


def test_the_result_tells_what_was_seen_and_held_out_loss_by_source(
    tiny: Tiny, tmp_path: Path
) -> None:
    spec = settings(epochs=1, save_every=100, evaluate_every=4)
    folder = trained(mixed(tmp_path, "run"), base_of(tiny("llama")), spec)
    facts = json.loads((folder.path / "train/train.json").read_text())
    found = {name: (s["drawn"], s["least"], s["most"]) for name, s in facts["mixture"].items()}
    assert found == {"one": (16, 1, 1), "two": (32, 2, 2), "general": (16, 1, 2)}
    assert facts["mixture"]["general"]["share"] == 0.25
    lines = (folder.path / "train/curves.jsonl").read_text().splitlines()
    looks = [line for line in map(json.loads, lines) if "held_out" in line]
    held = Counter(row.source for row in read_part(folder.path / "data", "valid"))
    assert held == {"one": 2, "two": 2} and len(looks) >= 4
    for look in looks:
        assert look["sources"].keys() == held.keys()
        low, high = sorted(each["loss"] for each in look["sources"].values())
        assert low <= look["held_out"]["loss"] <= high
    rule = recipe_of(folder.path / "data")
    assert rule is not None and [each.replay for each in rule.sources] == [None, None, 0.25]


def test_rows_that_were_never_drawn_are_not_told_as_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    source = [chats(tmp_path, "one", 20), {"path": texts(tmp_path, 50), "replay": 0.2}]
    folder = prepared(tmp_path, "run", source=source)
    trained(folder, base_of(tiny("llama")), settings(epochs=1, evaluate_every=100))
    kept = json.loads((folder.path / "train/rows.json").read_text())["trained_on"]
    facts = json.loads((folder.path / "train/train.json").read_text())
    assert len(kept) == facts["rows"]["train"] - facts["mixture"]["general"]["left_out"] == 20


def test_documents_are_read_beside_a_task_and_never_instead_of_one(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = prepared(tmp_path, "run", source=texts(tmp_path, 20))
    with pytest.raises(DataError, match="row of kind text, and train.objective: sft"):
        trained(folder, base_of(tiny("llama")), settings())


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an evaluated run of two tasks, each with its head."""
    home = tmp_path_factory.mktemp("tasks")
    tiny_encoder("bert", home / "bert")
    labels(home, "tone", ["good", "bad"], 40)
    labels(home, "topic", ["good", "cat", "dog"], 24)
    (home / "run.yaml").write_text(
        "model: ./bert\n"
        "data:\n"
        "  source: [tone.jsonl, {path: topic.jsonl, name: the topic, weight: 1}]\n"
        "train:\n"
        "  objective: {kind: classify, heads: per_source}\n"
        "  method: full\n  lr: 1e-3\n  epochs: 6\n  batch: 4\n  device: cpu\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert door.enter(app, ["evaluate", "run.yaml", "--json"]) == 0
    return home


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = door.enter(app, list(words))
    told = capsys.readouterr()
    return code, told.out + told.err


def test_every_measure_is_given_of_each_source_and_in_total(
    tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tasks)
    code, out = said(capsys, "evaluate", "run.yaml", "--json")
    sources = json.loads(out.splitlines()[-1])["sources"]
    report = json.loads((tasks / "runs/run/evaluate/report.json").read_text())
    assert code == 0 and sources == report["sources"]
    assert {name: found["rows"] for name, found in sources.items()} == {"tone": 4, "the topic": 2}
    assert "fewer than 6 rows prove nothing" in sources["tone"]["note"]
    for arm in ("base", "tuned"):
        assert sources["tone"]["arms"][arm].keys() == report["arms"][arm].keys()
        right = sum(
            found["rows"] * found["arms"][arm]["accuracy"]["value"] for found in sources.values()
        )
        assert report["arms"][arm]["accuracy"]["value"] == pytest.approx(right / report["rows"])
    page = (tasks / "runs/run/evaluate/report.html").read_text()
    assert "Source by source" in page and "the topic" in page
    assert "Held-out loss by source" in page
    write(RunFolder(tasks / "runs/run"))
    card = (tasks / "runs/run/cards/model_card.md").read_text()
    assert "the topic: accuracy, tuned" in card and "tone: rows never seen" in card


def test_a_limit_asks_of_every_source_and_replay_brings_the_general_text(tmp_path: Path) -> None:
    source = [chats(tmp_path, "one", 60), chats(tmp_path, "two", 30)]
    beside = {"path": texts(tmp_path, 9), "replay": 0.2}
    folder = prepared(tmp_path, "run", source=[*source, beside])
    data = folder.stage("data").path
    asked = questions(data, Evaluate(limit=3), seed=0)
    assert Counter(row.source for row in asked.rows) == {"one": 2, "two": 1}
    assert asked.general == "bundled"
    plain = prepared(tmp_path, "plain", source=source).stage("data").path
    assert questions(plain, Evaluate(), seed=0).general == "none"


def test_a_task_is_asked_by_name_and_without_one_all_are_named(
    tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tasks)
    jsonl(tasks / "asked.jsonl", [{"text": "topic cat 1"}, {"text": "topic dog 2"}])
    code, out = said(capsys, "predict", "run", "asked.jsonl")
    assert code == 2 and "say --task with one of 'tone', 'the topic'" in out
    code, out = said(capsys, "predict", "run", "asked.jsonl", "--task", "topic")
    assert code == 2 and "has no task 'topic'" in out
    code, out = said(capsys, "predict", "run", "asked.jsonl", "--task", "the topic")
    found = [json.loads(line)["predicted"] for line in out.splitlines() if line.startswith("{")]
    assert code == 0 and len(found) == 2
    for each in found:
        assert list(each["probabilities"]) == ["cat", "dog", "good"]
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert each["label"] in each["probabilities"]
    model = load("run")
    assert model.tasks == ["tone", "the topic"]
    assert model.labels("topic cat 1", "the topic") == pytest.approx(found[0]["probabilities"])
