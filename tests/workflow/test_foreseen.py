"""What would stop the evaluation is refused before training, which may have taken hours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import DataError, SettingsError, TunesmithError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.job import Job
from tunesmith.pipeline import carry_out
from tunesmith.run import from_mapping

LABELS = ("late", "lost")


@pytest.mark.parametrize(
    ("asked", "objective", "kind", "said"),
    [
        ({"general": "nowhere.jsonl"}, "sft", DataError, "evaluate.general: .* is no file"),
        ({"unknown": "other"}, "sft", SettingsError, "set evaluate.by=likelihood"),
        ({"unknown": "other", "by": "likelihood"}, "sft", DataError, "no threshold can be chosen"),
        ({"unknown": "other"}, "classify", DataError, "no threshold can be chosen"),
        ({"metrics": ["perplexity"]}, "classify", SettingsError, "leave it out"),
        (
            {"metrics": ["accuracy"], "sampling": {"choices": ["late", "early"]}},
            "sft",
            DataError,
            "'lost' is not among the 2 of evaluate.sampling.choices",
        ),
    ],
)
def test_what_stops_the_evaluation_stops_the_run_before_training(
    asked: dict[str, Any],
    objective: str,
    kind: type[TunesmithError],
    said: str,
    tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    text, label = ("text", "label") if objective == "classify" else ("prompt", "completion")
    lines = [{text: f"order {i} is {LABELS[i % 2]}", label: LABELS[i % 2]} for i in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "name": "bot",
        "model": {"source": str(tiny("llama"))},
        "data": {"source": str(tmp_path / "rows.jsonl"), "split": {"valid": 6, "test": 6}},
        "train": {"objective": objective},
        "evaluate": {"metrics": ["accuracy"], **asked},
    }
    folder = RunFolder(tmp_path / "runs" / "bot")
    for until in ("evaluate", "run"):
        with pytest.raises(kind, match=said):
            carry_out(Job(from_mapping(settings, {}), folder, Log(quiet=True)), until)
    assert not (folder.path / "train").exists()
