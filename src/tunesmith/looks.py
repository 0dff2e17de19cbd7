"""Prepared rows on the screen, the trained tokens in colour."""

import sys

from tunesmith.core.tables import read_part
from tunesmith.data.show import show
from tunesmith.model.bases import resolve
from tunesmith.model.words import tokenizer_of
from tunesmith.pipeline import Job


def rows(job: Job, count: int) -> None:
    """Print the first rows of `train`; where there are no colours, in [[brackets]]."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    marks = ("", "") if console.is_terminal and not console.no_color else ("[[", "]]")
    tokenizer = tokenizer_of(resolve(job.loaded.run.model))
    train = read_part(job.folder.stage("data").path, "train")
    objective = job.loaded.run.train.objective
    objective.accept(train)
    objective = objective.fitted(train)
    console.print(show(train, count, tokenizer, encode=objective.encode, marks=marks), end="")
    sys.stdout.flush()
