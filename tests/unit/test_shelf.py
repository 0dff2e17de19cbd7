"""The list of runs: every measure on a line of its own, within a terminal's width."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tunesmith import shelf


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda _: os.terminal_size((80, 24)))


def value(number: float | None, *, percent: bool = True, **more: Any) -> dict[str, Any]:
    return {"value": number, "percent": percent, **more}


def kept(home: Path, name: str, base: dict[str, Any], tuned: dict[str, Any], main: str) -> None:
    """A run with nothing but what it was measured at."""
    folder = home / name
    (folder / "evaluate").mkdir(parents=True)
    (folder / "run.yaml").touch()
    report = {"arms": {"base": base, "tuned": tuned}, "main": main}
    (folder / "evaluate" / "report.json").write_text(json.dumps(report))


def test_a_table_of_many_measures_fits_eighty_columns(tmp_path: Path) -> None:
    names = ("accuracy", "brier", "calibration_error", "f1_macro", "f1_micro", "log_loss")
    measures = {name: value(0.512, percent=name[0] in "af") for name in names}
    better = {**measures, "log_loss": value(0.534, percent=False)}
    kept(tmp_path, "support-bot", measures, better, "log_loss")
    (found,) = shelf.runs(tmp_path)
    found |= {"state": "stopped in evaluate", "from": {"run": "support-base", "start": "merged"}}
    lines = shelf.table([found]).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 1 + len(names)
    assert lines[1].split()[0] == "support-bot" and "0.512" in lines[1] and "0.534" in lines[1]
    assert "log loss" in lines[1], "the deciding measure comes first"
    assert "calibration error" in "\n".join(lines) and "0.5 %" in "\n".join(lines)
    assert lines[1].split()[1:3] == ["stopped", "in"] and "evaluate" in lines[2]
    assert lines[2].startswith("from support-base") and lines[3].startswith("(merged)")


def test_a_long_name_is_broken_and_no_number_is_cut(tmp_path: Path) -> None:
    name = "n" * 64
    kept(tmp_path, name, {"exact": value(12.34)}, {"exact": value(98.76)}, "exact")
    text = shelf.table(shelf.runs(tmp_path))
    assert max(map(len, text.splitlines())) <= 80
    assert "".join(line.split(" ")[0] for line in text.splitlines()[1:]) == name
    assert "12.3 %" in text and "98.8 %" in text


def test_what_stood_in_for_the_base_is_said_under_its_number(tmp_path: Path) -> None:
    base = {
        "accuracy": value(36.4, stand_in="the largest class"),
        "general": value(7, percent=False),
    }
    tuned = {"accuracy": value(80.0), "general": value(8, percent=False)}
    kept(tmp_path, "sorter", base, tuned, "accuracy")
    kept(tmp_path, "writer", {"exact": value(1.0)}, {"exact": value(2.0)}, "exact")
    sorter, writer = shelf.runs(tmp_path)
    assert sorter["stand_ins"] == {"accuracy": "the largest class"} and not writer["stand_ins"]
    lines = shelf.table([sorter, writer]).splitlines()
    assert "36.4 % *" in lines[1] and [line for line in lines if "*" in line] == [
        lines[1],
        lines[-1],
    ]
    assert lines[-1] == "* the largest class, as the base has no head for these labels"
    assert "*" not in shelf.table([writer])


@pytest.mark.parametrize(
    "report", ["", "[]", '{"arms": 1}', '{"arms": {"base": {"a": 1}, "tuned": {"a": {}}}}']
)
def test_a_damaged_report_measures_nothing(tmp_path: Path, report: str) -> None:
    kept(tmp_path, "bot", {}, {}, "exact")
    (tmp_path / "bot" / "evaluate" / "report.json").write_text(report)
    (found,) = shelf.runs(tmp_path)
    assert found["metrics"] == {} and "bot" in shelf.table([found])
