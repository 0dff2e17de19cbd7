"""Prepared rows on the screen, the trained tokens in colour."""

import sys
from collections.abc import Callable, Sequence

from tunesmith.core.records import Example
from tunesmith.core.rows import Labelled, Row
from tunesmith.core.tables import read_part
from tunesmith.data.show import show
from tunesmith.job import Job, known_base
from tunesmith.model import plain
from tunesmith.model.bases import resolve
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import tokenizer_of
from tunesmith.train.loop import Train


def rows(job: Job, count: int) -> None:
    """Print the first rows of `train`; where there are no colours, in [[brackets]]."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    marks = ("", "") if console.is_terminal and not console.no_color else ("[[", "]]")
    tokenizer = tokenizer_of(resolve(job.loaded.run.model, known_base(job, "data")))
    train = read_part(job.folder.stage("data").path, "train")
    encode = encoder(job.loaded.run.train, train)
    console.print(show(train, count, tokenizer, encode=encode, marks=marks), end="")
    sys.stdout.flush()


def encoder(spec: Train, rows: Sequence[Row]) -> Callable[[Row, Tokenizer], Example]:
    """How tokens are made of a row: by the objective where it trains on such rows; a look refuses
    no others, and shows what they say."""
    if not any(isinstance(row, spec.objective.row) for row in rows):
        return as_it_is
    goal = spec.objective.fitted(rows)

    def encode(row: Row, tokenizer: Tokenizer) -> Example:
        fits = isinstance(row, (goal.row, *goal.beside))
        return goal.encode(row, tokenizer) if fits else as_it_is(row, tokenizer)

    return encode


def as_it_is(row: Row, tokenizer: Tokenizer) -> Example:
    """The texts of a row of any kind, none of their tokens trained."""
    said = Labelled(row.texts(), (), origin=row.origin, source=row.source, weight=row.weight)
    return plain.encode(said, tokenizer)
