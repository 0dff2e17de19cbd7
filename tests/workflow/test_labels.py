"""Chat rows that end in a label: trained, asked among the labels, measured, and shown."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tests.tiny import tiny_model
from tests.trained import WORDS, base_of, settings, trained
from tunesmith import door
from tunesmith.cards import model_card, page
from tunesmith.cli import app
from tunesmith.core.errors import DataError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, Labelled, Message, Origin, Row
from tunesmith.core.tables import write_rows
from tunesmith.evaluate.metrics.accuracy import Accuracy
from tunesmith.evaluate.metrics.calibration import Calibration
from tunesmith.evaluate.metrics.f1 import F1
from tunesmith.evaluate.metrics.scope import Scope
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.model.bases import Base
from tunesmith.model.generate import Sampling
from tunesmith.train.methods.full import Full
from tunesmith.train.objectives.classify import Classify

LABELS = ("order late", "order lost", "refund")
METRICS = [Accuracy(), F1(), Calibration()]


def row(number: int, label: str | None = None) -> Chat:
    """A row whose label stands in its first word. Held-out rows ask what training rows ask: a tiny
    model is to know the labels here, not to generalise."""
    words = [WORDS[number % 3], WORDS[3 + number % 4]]
    label = label or LABELS[number % 3]
    turns = (Message("user", " ".join(words)), Message("assistant", label))
    return Chat(turns, origin=Origin("rows.jsonl", number + 1), source="rows.jsonl")


def prepared(path: Path, **parts: Sequence[Row]) -> RunFolder:
    folder = RunFolder(path)
    folder.create()
    stage = folder.stage("data")
    stage.begin({"rows": 1})
    for part, rows in parts.items():
        write_rows(stage.path / f"{part}.jsonl", [each.record() for each in rows])
    stage.finish()
    return folder


def whole(path: Path, base: Base, *, strange: bool = False) -> RunFolder:
    """Trained on a dozen rows; with `strange`, some held-out ones have a label none of them has."""
    other = [row(n, "none") for n in range(30, 34)] if strange else []
    folder = prepared(
        path,
        train=[row(n) for n in range(12)],
        valid=[row(n) for n in range(12, 20)] + other[:2],
        test=[row(n) for n in range(20, 29)] + other[2:],
    )
    return trained(folder, base, settings(method=Full(), epochs=12, lr=5e-3, evaluate_every=36))


@pytest.fixture
def run(tiny: Callable[[str], Path], tmp_path: Path) -> tuple[RunFolder, Base]:
    base = base_of(tiny("llama"))
    return whole(tmp_path / "run", base), base


def asked(run: tuple[RunFolder, Base], spec: Evaluate) -> dict[str, Any]:
    folder, base = run
    evaluate(folder, spec, base, seed=0, log=Log(folder, quiet=True))
    found: dict[str, Any] = json.loads((folder.path / "evaluate/report.json").read_text())
    return found


def lines(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    text = (folder.path / "evaluate" / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_labels_are_asked_judged_and_shown(run: tuple[RunFolder, Base]) -> None:
    folder, _ = run
    spec = Evaluate(metrics=METRICS, sampling=Sampling(choices="labels"), batch=4)
    found = asked(run, spec)
    arms = found["arms"]
    assert arms["tuned"]["accuracy"]["value"] > 80 > 60 > arms["base"]["accuracy"]["value"]
    assert {"f1_macro", "f1_micro", "calibration_error", "brier", "log_loss"} < set(arms["base"])
    assert arms["tuned"]["log_loss"]["value"] < arms["base"]["log_loss"]["value"]
    for arm in ("base", "tuned"):
        assert {line["answer"] for line in lines(folder, f"answers-{arm}.jsonl")} <= {*LABELS}
        for line in lines(folder, f"scores-{arm}.jsonl"):
            assert sum(line["chances"]) == pytest.approx(1)
        assert found["answering"][arm]["stopped"] == 1
    pairs = found["labels"]["arms"]["tuned"]["pairs"]
    assert found["labels"]["names"] == sorted(LABELS) and sum(n for *_, n in pairs) == 9
    text = page.write(folder).read_text()
    assert "What the tuned model took each label for" in text and "order lost" in text
    assert "What the tuned model took each label for" in model_card.write(folder).read_text()


def test_likelihood_ranks_the_labels_that_were_taught_first(run: tuple[RunFolder, Base]) -> None:
    likely = asked(run, Evaluate(metrics=METRICS, by="likelihood"))
    assert likely["arms"]["tuned"]["accuracy"]["value"] > 80
    assert not (run[0].path / "evaluate/answers-tuned.jsonl").exists()
    assert likely["by"] == "likelihood" and likely["samples"][0]["tuned"] in LABELS
    assert likely["answering"]["tuned"].keys() == {"seconds"}


def test_kept_probabilities_are_not_asked_for_again(
    run: tuple[RunFolder, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.model import tree

    spec = Evaluate(metrics=METRICS, by="likelihood")
    calls = list[int]()
    plain = tree.logps

    def torn(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(tree, "logps", torn)
    with pytest.raises(KeyboardInterrupt):
        asked(run, spec)
    assert len(lines(run[0], "scores-base.jsonl")) == 4
    asked(run, spec)
    assert len(calls) == 5 + 5 + 9, "the rest of the base's nine, then the tuned model's"
    rows = [line["row"] for line in lines(run[0], "scores-base.jsonl")]
    assert len(rows) == len(set(rows)) == 9


def test_what_no_training_row_has_is_told_by_a_threshold(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base = base_of(tiny("llama"))
    run = whole(tmp_path / "run", base, strange=True), base
    spec = Evaluate(metrics=[*METRICS, Scope()], by="likelihood", unknown="none")
    found = asked(run, spec)
    values = {name: found["arms"]["tuned"][name] for name in ("accuracy", *Scope().names())}
    right = 9 * values["in_scope_accuracy"]["value"] + 2 * values["out_of_scope_recall"]["value"]
    assert values["accuracy"]["value"] == pytest.approx(right / 11)
    assert "none where the largest probability is under" in found["notes"]["threshold, tuned"]
    assert "10 valid rows" in found["notes"]["threshold, base"]
    assert found["labels"]["names"] == [*sorted(LABELS), "none"]
    assert found["labels"]["arms"]["tuned"]["each"]["none"]["rows"] == 2


def headed(number: int, label: str | None = None) -> Labelled:
    """The same row with its label beside the text."""
    chat = row(number, label)
    text = (chat.messages[0].content or "",)
    return Labelled(given=text, labels=(chat.answer(),), origin=chat.origin, source=chat.source)


def test_a_head_is_measured_against_the_majority(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base = base_of(tiny("llama"))
    rows = [headed(n) for n in range(29)]
    folder = prepared(
        tmp_path / "run",
        train=rows[:11],
        valid=[*rows[12:15], headed(30, "none")],
        test=[*rows[20:], headed(32, "none")],
    )
    spec = settings(objective=Classify(), epochs=12, evaluate_every=36)
    with pytest.raises(DataError, match="the label 'none' is on no training row"):
        trained(folder, base, spec)
    trained(folder, base, spec, unknown="none", restart=True)
    found = asked((folder, base), Evaluate(unknown="none"))
    arms = found["arms"]
    assert found["by"] == "head" and found["main"] == "accuracy"
    assert arms["tuned"]["accuracy"]["value"] > 60
    assert arms["base"]["in_scope_accuracy"]["value"] in (0, pytest.approx(100 * 3 / 9))
    assert "the largest class is 'order" in found["notes"]["base"]
    assert " % (the largest class)" in found["verdict"]["headline"]
    assert {each["stand_in"] for each in arms["base"].values()} == {"the largest class"}
    assert not any("stand_in" in each for each in arms["tuned"].values())
    assert "accuracy, from the largest class" in page.write(folder).read_text()
    shares = [line["chances"] for line in lines(folder, "scores-base.jsonl")]
    assert all(each == pytest.approx([4 / 11, 4 / 11, 3 / 11]) for each in shares)
    assert "stand in for it" in page.write(folder).read_text()
    card, shown = model_card.write(folder).read_text(), page.write(folder).read_text()
    assert "stand in for it" in card and "labels that the rows of its run have" in card
    assert "Loss per row" in shown and "Held-out accuracy" in shown and "Side by side" in shown
    for absent in ("token accuracy", "tokens trained on", "Probe answers", "prompts"):
        assert absent not in card + shown, absent


def of_head(path: Path, tiny: Callable[[str], Path], objective: Classify) -> dict[str, Any]:
    """The report of a run whose training rows have two of the labels, one each."""
    base, rows = base_of(tiny("llama")), [headed(n, LABELS[n % 2]) for n in range(12)]
    folder = prepared(path, train=rows[:6], valid=rows[6:8], test=rows[8:])
    trained(folder, base, settings(objective=objective, epochs=2))
    return asked((folder, base), Evaluate())


def test_a_label_that_only_the_head_knows_counts(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    found = of_head(tmp_path / "run", tiny, Classify(labels=["refund", *LABELS[:2]]))
    assert found["labels"]["names"] == ["refund", *LABELS[:2]]
    kept = lines(RunFolder(tmp_path / "run"), "scores-tuned.jsonl")
    assert all(sum(line["chances"]) == pytest.approx(1) for line in kept)


def test_a_head_for_many_is_asked_for_many_where_rows_have_one(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    found = of_head(tmp_path / "run", tiny, Classify(many=True))
    assert "pairs" not in found["labels"]["arms"]["tuned"]
    assert {v["stand_in"] for v in found["arms"]["base"].values()} == {"the shares of labels"}
    for sample in found["samples"]:
        assert json.loads(sample["wanted"]) and isinstance(json.loads(sample["tuned"]), list)


def test_a_label_for_none_of_them_named_afterwards_keeps_the_training(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    base, rows = base_of(tiny("llama")), [headed(n) for n in range(20)]
    parts = {"train": rows[:12], "valid": rows[12:16]}
    folder = prepared(tmp_path / "run", **parts, test=[*rows[16:], headed(32, "none")])
    spec = settings(objective=Classify(), epochs=1, evaluate_every=3)
    digest = trained(folder, base, spec, unknown="none").stage("train").digest
    trained(folder, base, spec)
    trained(folder, base, spec, unknown="of no row")
    assert folder.stage("train").digest == digest and not (folder.path / "earlier").exists()
    parts |= {"valid": [*rows[12:16], headed(30, "no")], "test": rows[16:]}
    inputs = (
        trained(prepared(tmp_path / "no", **parts), base, spec, unknown="no").stage("train").inputs
    )
    assert inputs["valid rows left out"]["rows"] == 1


def test_a_run_file_asks_among_labels_and_so_does_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model("llama", tmp_path / "tiny")
    texts = [f"{a} {b} {c}" for a in WORDS[:3] for b in WORDS[3:6] for c in WORDS[6:9]]
    written = [{"prompt": t, "completion": LABELS[n % 3]} for n, t in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    (tmp_path / "bot.yaml").write_text(
        "model: tiny\ndata: {source: rows.jsonl, split: {valid: 3, test: 7}}\n"
        "train: {steps: 2, probes: 0}\n"
        "evaluate: {metrics: [accuracy, f1], sampling: {choices: labels}}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert door.enter(app, ["evaluate", "bot.yaml", "evaluate.metrics=[accuracy,f1]"]) == 0
    answers = {line["answer"] for line in lines(RunFolder(Path("runs/bot")), "answers-base.jsonl")}
    assert answers <= set(LABELS)
    assert tunesmith.load("bot").answer("red dog") in LABELS


def in_files(folder: Path, evaluate: str, objective: str) -> None:
    """A project on the rows above, where the label `none` is on held-out rows alone."""
    texts = [f"{a} {b} {c}" for b in WORDS[3:6] for c in WORDS[6:12] for a in WORDS[:3]]
    known = [(text, LABELS[n % 3]) for n, text in enumerate(texts)]
    strange = [(f"{a} {b}", "none") for a in WORDS[12:] for b in WORDS[12:]]
    parts = {
        "train": known[:24],
        "valid": known[24:36] + strange[:6],
        "test": known[36:48] + strange[6:12],
    }
    keys = ("text", "label") if objective == "classify" else ("prompt", "completion")
    for part, found in parts.items():
        text = "".join(json.dumps(dict(zip(keys, each, strict=True))) + "\n" for each in found)
        (folder / f"{part}.jsonl").write_text(text)
    (folder / "bot.yaml").write_text(
        "model: tiny\ndata: {source: train.jsonl, valid: valid.jsonl, test: test.jsonl}\n"
        f"train: {{epochs: 12, lr: 5e-3, batch: 4, probes: 0, objective: {objective}}}\n"
        f"evaluate: {evaluate}\n"
    )
    asked = (folder / "test.jsonl").read_text().splitlines()
    lines = [{keys[0]: json.loads(line)[keys[0]]} for line in asked]
    (folder / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("objective", "evaluate", "arm"),
    [
        ("classify", "{unknown: none}", "tuned"),
        ("sft", "{unknown: none, by: likelihood, metrics: [accuracy]}", "tuned"),
        ("sft", "{unknown: none, by: likelihood, metrics: [accuracy]}", "base"),
    ],
)
def test_predict_gives_the_labels_that_were_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    objective: str,
    evaluate: str,
    arm: str,
) -> None:
    tiny_model("llama", tmp_path / "tiny")
    in_files(tmp_path, evaluate, objective)
    monkeypatch.chdir(tmp_path)
    predict = ["predict", "bot", "asked.jsonl", *(["--base"] if arm == "base" else [])]
    assert door.enter(app, ["train", "bot.yaml"]) == 0
    assert door.enter(app, predict) == 2
    assert "run: tunesmith evaluate runs/bot" in capsys.readouterr().err
    assert door.enter(app, ["evaluate", "bot.yaml"]) == 0
    capsys.readouterr()
    assert door.enter(app, predict) == 0
    found = [json.loads(line)["predicted"] for line in capsys.readouterr().out.splitlines()]
    report = json.loads(Path("runs/bot/evaluate/report.json").read_text())
    measured = {(a, b): number for a, b, number in report["labels"]["arms"][arm]["pairs"]}
    truth = [json.loads(line) for line in Path("test.jsonl").read_text().splitlines()]
    wanted = [each.get("label", each.get("completion")) for each in truth]
    assert Counter(zip(wanted, (each["label"] for each in found), strict=True)) == measured
    assert {each["by"]["unknown"] for each in found} == {"none"}
    assert {each["by"]["threshold"] for each in found} == {report["thresholds"][arm]}
    scores = lines(RunFolder(Path("runs/bot")), f"scores-{arm}.jsonl")
    chances = [pytest.approx(line["chances"], rel=1e-4) for line in scores]
    assert all([*each["probabilities"].values()] in chances for each in found)
    assert any(each["label"] == "none" for each in found)
