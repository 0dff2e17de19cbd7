"""The runs of a folder: how far each is, what was measured, the disk it takes and can give back."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any

from tunesmith.cards.verdict import Score, named, scores
from tunesmith.core import disk, screen
from tunesmith.core.errors import TunesmithError
from tunesmith.core.folders import RunFolder
from tunesmith.core.lock import in_use_by
from tunesmith.core.manifests import refuse_link
from tunesmith.job import STAGES

STATE = len("stopped in")
"""Columns for the state of a run: a stage's name goes on a second line."""
MARK = "*"
"""Beside a number of the base that something else answered for."""
DONE = {"data": "prepared", "train": "trained", "evaluate": "evaluated", "deploy": "finished"}
"""What a run is called after its last finished stage."""


def runs(home: Path) -> list[dict[str, Any]]:
    """One record for each run under `home`, by name."""
    return [record(folder) for folder in under(home)]


def under(home: Path) -> list[RunFolder]:
    """The runs of a folder, by name."""
    return [RunFolder(path.parent) for path in sorted(home.glob("*/run.yaml"))]


def record(folder: RunFolder) -> dict[str, Any]:
    """What can be told of a run without opening its model."""
    return {
        "name": folder.name,
        "state": state(folder),
        "stages": [name for name in STAGES if folder.stage(name).finished],
        "from": origin(folder),
        **measured(folder.path / "evaluate" / "report.json"),
        "bytes": size(folder.path),
        "spare": sum(size(path) for path in spare(folder)),
    }


def state(folder: RunFolder) -> str:
    """How far a run is, in a word or two."""
    if in_use_by(folder.path / "lock") is not None:
        return "running"
    found = "new"
    for name in STAGES:
        stage = folder.stage(name)
        if stage.finished:
            found = DONE[name]
        elif stage.begun:
            return f"stopped in {name}"
    return found


def origin(folder: RunFolder) -> dict[str, Any]:
    """The earlier run that this one started from; empty where there is none, or it is damaged."""
    with suppress(TunesmithError, AttributeError):
        found: dict[str, Any] = folder.manifest().get("from") or {}
        return {name: found[name] for name in ("run", "training", "start") if name in found}
    return {}


def measured(report: Path) -> dict[str, Any]:
    """What was measured; nothing before the evaluation, or where its report is damaged."""
    try:
        return values(scores(json.loads(report.read_bytes())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return values([])


def values(measures: list[Score]) -> dict[str, Any]:
    """Each metric's value by arm, the deciding metric first; which of them are percentages; what
    answered for the base."""
    return {
        "metrics": {
            score.name: {
                arm: found["value"]
                for arm, found in (("base", score.base), ("tuned", score.tuned))
                if found["value"] is not None
            }
            for score in measures
        },
        "in_percent": [score.name for score in measures if score.percent],
        "stand_ins": {score.name: score.stand_in for score in measures if score.stand_in},
    }


def spare(folder: RunFolder) -> list[Path]:
    """What a trained run no longer needs: its checkpoints, and results that were put away."""
    if not folder.stage("train").finished:
        return []
    places = (folder.stage("train").path / "checkpoints", folder.path / "earlier")
    return [path for path in places if path.exists()]


def prune(home: Path, *, remove: bool) -> list[dict[str, Any]]:
    """What could be removed under `home`, run by run; removed where `remove` says so.

    A run in use is left as it is, and so is one whose result is damaged: then a checkpoint may be
    what saves it. `kept` says why.
    """
    return [found for folder in under(home) for found in pruned(folder, remove)]


def pruned(folder: RunFolder, remove: bool) -> Iterator[dict[str, Any]]:
    """The same for one run."""
    for path in spare(folder):
        found = {"name": folder.name, "path": str(path), "bytes": size(path), "removed": False}
        try:
            refuse_link(path)
            with folder.lock():
                folder.stage("train").manifest()
                if remove:
                    disk.discard(path)
            yield found | {"removed": remove}
        except TunesmithError as error:
            yield found | {"kept": str(error)}


def size(place: Path) -> int:
    """Bytes of every file below a folder; one that vanishes meanwhile takes none."""
    total = 0
    for home, _, names in os.walk(place):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(home, name)).st_size
    return total


def table(found: list[dict[str, Any]]) -> str:
    """The runs for a reader, a line for each measure."""
    if not found:
        return "no runs here yet; `tunesmith demo` makes one"
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "measure"):
        shown.add_column(heading, overflow="fold")
    for heading in ("base", "tuned", "disk", "spare"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for run in found:
        for cells in lines(run):
            shown.add_row(*map(Text, cells))
    notes = {word: None for run in found for word in run["stand_ins"].values()}
    said = [f"{MARK} {word}, as the base has no head for these labels" for word in notes]
    return "\n".join([screen.drawn(shown), *said])


def lines(run: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A run's lines in the table: as many as it has measures, and at least one. What can be said
    on two lines is, so that the columns are narrow."""
    source = [f"from {run['from']['run']}", f"({run['from']['start']})"] if run["from"] else []
    measures = [
        (named(name), *(value(run, name, arm) for arm in ("base", "tuned")))
        for name, arms in run["metrics"].items()
        if arms.keys() >= {"base", "tuned"}
    ]
    sizes = [(megabytes(run["bytes"]), megabytes(run["spare"]))]
    states = wrap(run["state"], STATE)
    beside = ([run["name"], *source], states, measures or [("-", "", "")], sizes)
    for name, state, measure, size in zip_longest(*beside):
        yield (name or "", state or "", *(measure or [""] * 3), *(size or [""] * 2))


def value(run: dict[str, Any], name: str, arm: str) -> str:
    """A measure of one arm; marked where something else answered for the base."""
    said = screen.figure(run["metrics"][name][arm], percent=name in run["in_percent"])
    return f"{said} {MARK}" if arm == "base" and name in run["stand_ins"] else said


def megabytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e6:.1f} MB"


def removal(found: list[dict[str, Any]], *, removed: bool) -> str:
    """What was or would be removed, for a reader."""
    if not found:
        return "nothing to remove: no trained run has checkpoints or earlier results"
    lines = [f"{each['path']}: {megabytes(each['bytes'])}{reason(each)}" for each in found]
    total = megabytes(sum(each["bytes"] for each in found if "kept" not in each))
    if removed:
        return "\n".join([*lines, f"removed: {total}"])
    return "\n".join([*lines, f"would remove {total}; nothing was: add --yes to do it"])


def reason(each: dict[str, Any]) -> str:
    """Why something stays."""
    return f", kept: {each['kept']}" if "kept" in each else ""
