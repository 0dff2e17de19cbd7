"""A whole run for a benchmark: settings in, what was measured out. Resumes in the folder given."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import machine

if TYPE_CHECKING:
    from tunesmith.run import Loaded


def carried_out(home: Path, settings: Mapping[str, Any], until: str = "evaluate") -> dict[str, Any]:
    """Report and training of `runs/<name>` in `home`, from a finished run or after doing it."""
    from tunesmith.run import from_mapping

    return measured(from_mapping(settings, {}), home, until)


def measured(loaded: "Loaded", home: Path, until: str = "evaluate") -> dict[str, Any]:
    """The same of a run that is loaded."""
    from tunesmith import pipeline
    from tunesmith.job import Job

    job = Job.of(loaded, home=home)
    pipeline.carry_out(job, until)
    report = json.loads((job.folder.path / "evaluate" / "report.json").read_text())
    trained = json.loads((job.folder.path / "train" / "train.json").read_text())
    kept = ("arms", "difference", "notes", "rows", "part", "samples")
    facts = ("seconds", "tokens", "steps", "best_step", "best_value", "rows", "rate")
    facts += ("first_loss", "last_loss")
    return {
        "report": {name: report.get(name) for name in kept},
        "train": {name: trained.get(name) for name in facts},
    }


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as JSONL; where they are."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    # Not splitlines(): a text may hold the line separators of Unicode.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def done(home: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` found and on which machine, from `home`/done where it was done before."""
    path = home / "done" / f"{name}.json"
    if not path.is_file():
        found = {"machine": machine(), **work()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps(found))
        os.replace(path.with_suffix(".tmp"), path)
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Put a result where results are."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")
