"""Fine-tune a language model from a file of rows, and measure, verify and keep the result."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tunesmith import train as _train_stage

if TYPE_CHECKING:
    from tunesmith.answers import Tuned
    from tunesmith.shared import SharedBase

__all__ = ["base", "load", "train"]
__version__ = "0.1.0"


def load(run: str | Path) -> "Tuned":
    """The tuned model of a finished run (`"runs/x"` or its name): `.answer("...")` asks it."""
    from tunesmith import answers, environment

    environment.enter()
    return answers.load(run)


def base(source: str) -> "SharedBase":
    """A base that several runs share in memory: `.add("x", "runs/x")`, `.use("x")`, `.answer`."""
    from tunesmith import environment, shared

    environment.enter()
    return shared.base(source)


class _Train(ModuleType):
    """`tunesmith.train` is the stage's package and, called, the verb."""

    def __call__(self, run: str | Path | Mapping[str, Any], **overrides: Any) -> "Tuned":
        """Prepare the rows and train; the tuned model. `run` is a run file, a data file or the
        run's settings; `overrides` are its sections: `train={"lr": 1e-4}, seed=1`."""
        from tunesmith import answers, environment, pipeline
        from tunesmith import run as runs
        from tunesmith.job import Job

        environment.enter()
        if isinstance(run, Mapping):
            job = Job.of(runs.from_mapping(run, overrides))
        else:
            job = Job.of(runs.from_file(run, overrides))
            pipeline.refuse_other_folder(run, job.loaded, job.folder.path)
        pipeline.carry_out(job, until="train")
        return answers.load(job.folder.path)


# The import system puts the subpackage under this name whenever a part of it is imported, so a
# function could not keep it.
_train_stage.__class__ = _Train
train: _Train = _train_stage  # type: ignore[assignment]
