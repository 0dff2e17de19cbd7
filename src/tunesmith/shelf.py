"""The runs of a folder: which stages are done, what was measured, how much disk they take."""

import json
from pathlib import Path
from typing import Any

from tunesmith.core.folders import RunFolder
from tunesmith.pipeline import STAGES


def runs(home: Path) -> list[dict[str, Any]]:
    """One record for each run under `home`, by name."""
    return [record(RunFolder(path.parent)) for path in sorted(home.glob("*/run.yaml"))]


def record(folder: RunFolder) -> dict[str, Any]:
    """What can be told of a run without opening its model."""
    return {
        "name": folder.name,
        "stages": [name for name in STAGES if folder.stage(name).finished],
        "metrics": metrics(folder.path / "evaluate" / "report.json"),
        "bytes": sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file()),
    }


def metrics(report: Path) -> dict[str, dict[str, float]]:
    """Each metric's value by arm; empty before the evaluation, or where its report is damaged."""
    try:
        arms = json.loads(report.read_bytes())["arms"]
        return {
            name: {
                arm: values[name]["value"]
                for arm, values in arms.items()
                if name in values and values[name]["value"] is not None
            }
            for name in next(iter(arms.values()))
        }
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return {}


def table(found: list[dict[str, Any]]) -> str:
    """The runs for a reader, a line each."""
    if not found:
        return "no runs here yet; `tunesmith demo` makes one"
    lines = [("run", "done", "base -> tuned", "disk")]
    for run in found:
        scores = ", ".join(
            f"{name} {arms['base']:.1f} -> {arms['tuned']:.1f}"
            for name, arms in run["metrics"].items()
            if arms.keys() >= {"base", "tuned"}
        )
        stages = " ".join(run["stages"]) or "nothing"
        lines.append((run["name"], stages, scores or "-", f"{run['bytes'] / 1e6:.0f} MB"))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
