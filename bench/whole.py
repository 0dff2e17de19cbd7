"""A whole run for a benchmark: settings in, what was measured out. Resumes in the folder given."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.run import Loaded


def machine() -> dict[str, Any]:
    """What numbers were measured on."""
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    packages = ("torch", "transformers", "peft", "trl", "bitsandbytes")
    versions = {name: version(name) for name in packages}
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def carried_out(home: Path, settings: Mapping[str, Any], until: str = "evaluate") -> dict[str, Any]:
    """Report and training of `runs/<name>` in `home`, from a finished run or after doing it."""
    from tunesmith.run import from_mapping

    return measured(from_mapping(settings, {}), home, until)


def measured(loaded: "Loaded", home: Path, until: str = "evaluate") -> dict[str, Any]:
    """The same of a run that is loaded."""
    from tunesmith import pipeline

    job = pipeline.job(loaded, home=home)
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


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Put a result where results are."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")
