"""A run to carry out: its settings, its folder, and which model its stages mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.places import RUNS
from tunesmith.run import Loaded

STAGES = ("data", "train", "evaluate", "deploy")
WHOLE = "run"
"""The command that asks for every stage."""


@dataclass(frozen=True)
class Job:
    """A run to carry out, where its files go, and what a person decided about a changed one."""

    loaded: Loaded
    folder: RunFolder
    log: Log
    accept: tuple[str, ...] = ()
    restart: bool = False

    def restarts(self, stage: str, until: str) -> bool:
        """`--restart` is for what was asked for, and for a stage before it that is stuck."""
        return self.restart and (until in (stage, WHOLE) or stuck(self.folder.stage(stage)))

    @classmethod
    def of(cls, loaded: Loaded, log: Log | None = None, home: Path | None = None) -> "Job":
        """The job of a run whose folder is `runs/<name>/` beside where the command is given."""
        folder = RunFolder((home or Path.cwd()) / RUNS / loaded.run.name)
        return cls(loaded, folder, log or Log(folder))


def stuck(stage: Stage) -> bool:
    """Whether a stage cannot be built upon: not finished, or damaged since."""
    try:
        stage.manifest()
    except (IntegrityError, SettingsError):
        return True
    return False


def asks_model(job: Job, until: str) -> bool:
    """Whether the model is the one that its name means now, and not the one trained on."""
    return until in ("train", WHOLE) or not job.folder.stage("train").finished


def known_base(job: Job, until: str) -> Mapping[str, Any]:
    """What is recorded of the model trained on, where that one is meant; else nothing."""
    return {} if asks_model(job, until) else job.folder.manifest().get("base") or {}
