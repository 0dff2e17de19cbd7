"""The evaluate stage on a tiny run: the same prompts, kept answers, an honest report."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trained import base_of, prepared, trained
from tunesmith.core.errors import DataError, IntegrityError, Preempted, SettingsError, TrainError
from tunesmith.core.folders import RunFolder
from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.log import Log
from tunesmith.evaluate import answer, arms
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.rouge import Rouge
from tunesmith.evaluate.stage import Evaluate, evaluate
from tunesmith.model.bases import Base
from tunesmith.model.generate import Sampling
from tunesmith.model.policy import Policy

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
SPEC = Evaluate(sampling=Sampling(max_tokens=12), batch=3)
Run = tuple[RunFolder, Base]


@pytest.fixture
def run(tiny: Callable[[str], Path], tmp_path: Path) -> Run:
    """A run trained on 12 rows, with 8 held out for the test."""
    base = base_of(tiny("llama"))
    return trained(prepared(tmp_path / "run", held=8), base), base


def asked(run: Run, spec: Evaluate = SPEC, **named: Any) -> dict[str, Any]:
    folder, base = run
    evaluate(folder, spec, base, seed=0, log=Log(folder, quiet=True), **named)
    return report(folder)


def report(folder: RunFolder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.path / "evaluate/report.json").read_text())
    return found


def without_time(found: dict[str, Any]) -> dict[str, Any]:
    for facts in found["answering"].values():
        facts.pop("seconds")
    return found


def kept(folder: RunFolder, arm: str) -> list[dict[str, Any]]:
    return list(whole_lines(folder.path / f"evaluate/answers-{arm}.jsonl"))


def test_the_report(run: Run) -> None:
    found = asked(run)
    assert found["rows"] == 8 and found["main"] == "exact"
    for arm in ("base", "tuned"):
        assert set(found["arms"][arm]) == {"exact", "rougeL", "perplexity"}
        for value in found["arms"][arm].values():
            assert value["low"] <= value["value"] <= value["high"]
    change = found["difference"]["perplexity"]
    before, after = (found["arms"][arm]["perplexity"]["value"] for arm in ("base", "tuned"))
    assert after < before and change["value"] == pytest.approx(after - before)
    assert "before" in found["verdict"]["headline"] and "rouge-score" in found["notes"]["rougeL"]
    assert len(found["samples"]) == 3
    assert {"prompt", "base", "tuned", "wanted"} <= found["samples"][0].keys()
    rows = {line["row"] for line in kept(run[0], "base")}
    assert rows == {line["row"] for line in kept(run[0], "tuned")} and len(rows) == 8
    assert run[0].stage("evaluate").manifest()["facts"]["rows"] == 8


def test_a_second_call_does_nothing_and_other_settings_do_it_anew(run: Run) -> None:
    asked(run)
    path = run[0].path / "evaluate/report.json"
    before = path.stat().st_mtime_ns
    asked(run, SPEC.model_copy(update={"batch": 5}))
    assert path.stat().st_mtime_ns == before
    assert asked(run, SPEC.model_copy(update={"limit": 6}))["rows"] == 6


@pytest.mark.parametrize("stop_after", [3, 11])
def test_a_stopped_evaluation_goes_on(
    run: Run,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    """Killed in the middle of a line, in either arm: no kept answer is asked for again."""
    calm = (trained(prepared(tmp_path / "calm", held=8), run[1]), run[1])
    whole = without_time(asked(calm))
    plain, seen = answer.answer_rows, list[str]()

    def counted(*args: Any, **named: Any) -> Iterator[Any]:
        for found in plain(*args, **named):
            if len(seen) == stop_after:
                raise Preempted("stopped here")
            seen.append(found.key)
            yield found

    monkeypatch.setattr(answer, "answer_rows", counted)
    with pytest.raises(Preempted):
        asked(run)
    arm = "base" if stop_after < 8 else "tuned"
    with (run[0].path / f"evaluate/answers-{arm}.jsonl").open("a") as file:
        file.write('{"row": "torn')
    monkeypatch.setattr(answer, "answer_rows", plain)
    loads = list[str]()
    load = arms.Loaded.__call__
    monkeypatch.setattr(
        arms.Loaded, "__call__", lambda self: (loads.append(self.arm), load(self))[1]
    )
    assert without_time(asked(run)) == whole
    lines = [line["row"] for a in ("base", "tuned") for line in kept(run[0], a)]
    assert len(lines) == 16 and lines[: min(stop_after, 8)] == seen[:8]
    assert ("base" in loads) == (stop_after < 8)


def test_the_order_of_the_rows_and_the_batch_change_no_answer(run: Run) -> None:
    spec = SPEC.model_copy(update={"sampling": Sampling(max_tokens=12, temperature=1.0)})
    first = without_time(asked(run, spec))
    again = without_time(asked(run, spec.model_copy(update={"batch": 8}), restart=True))
    assert first == again


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, gpu])])
def test_both_arms_answer_on_the_device_that_was_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, device: Any
) -> None:
    plain, seen = answer.answer_rows, set[str]()

    def watched(policy: Policy, *args: Any, **named: Any) -> Iterator[Any]:
        seen.add(policy.device.type)
        yield from plain(policy, *args, **named)

    monkeypatch.setattr(answer, "answer_rows", watched)
    asked(run, SPEC.model_copy(update={"device": device}))
    assert seen == {device}


def test_no_held_out_rows(run: Run) -> None:
    (run[0].path / "data/test.jsonl").write_text("")
    stage_of_data = run[0].stage("data")
    (stage_of_data.path / "MANIFEST.json").unlink()
    stage_of_data.finish()
    with pytest.raises(DataError, match="has no test rows"):
        asked(run)


def test_nothing_trained_yet(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tunesmith train"):
        asked((prepared(tmp_path / "run"), base_of(tiny("llama"))))


def test_another_base_is_refused(run: Run, tmp_path: Path) -> None:
    from tests.tiny import tiny_model

    other = base_of(tiny_model("llama", tmp_path / "other", seed=5))
    with pytest.raises(IntegrityError, match="was trained on"):
        asked((run[0], other))


def test_a_likelihood_that_is_no_number_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Policy.logps

    def broken(self: Policy, batch: Any) -> Any:
        found = plain(self, batch).clone()
        for index, origin in enumerate(batch.origins):
            if origin.line == 22:
                found[index] = float("nan")
        return found

    monkeypatch.setattr(Policy, "logps", broken)
    with pytest.raises(TrainError, match=r"rows\.jsonl:22: the likelihood of this row"):
        asked(run)
    found = report(run[0])
    assert found["arms"]["tuned"]["perplexity"]["value"] is None
    assert found["arms"]["tuned"]["rougeL"]["value"] is not None
    assert not run[0].stage("evaluate").finished
    assert {f["where"] for f in found["findings"] if f["severity"] == "error"} == {"rows.jsonl:22"}


def test_a_tuned_model_that_does_not_stop_is_a_finding(run: Run) -> None:
    found = asked(run, SPEC.model_copy(update={"sampling": Sampling(max_tokens=1)}))
    assert found["answering"]["tuned"]["stopped"] < 0.9
    assert any("end by themselves" in finding["what"] for finding in found["findings"])


def test_only_what_the_metrics_need_is_computed(run: Run) -> None:
    asked(run, SPEC.model_copy(update={"metrics": [Exact()]}))
    assert not (run[0].path / "evaluate/likelihoods-base.jsonl").exists()


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two metrics give 'rougeL'"):
        Evaluate(metrics=[Rouge(), Rouge(stem=True)])
    Evaluate(metrics=[Rouge(), Rouge(field="summary")])
