"""Answers to the rows of a file, a JSON line each in the rows' order; a second call goes on.

However many rows there are, only a few are held at a time.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.answered import PREDICTED, Asked, compare, mend, opening, put
from tunesmith.answers import Arm, Tuned, load, run_folder
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.late import late
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, Labelled, Row, digest
from tunesmith.core.tables import Record, read
from tunesmith.data.asked import asker
from tunesmith.model import heads
from tunesmith.run import Run
from tunesmith.run import load as load_run

classify = late("tunesmith.model.classify")

WINDOW = 8
"""Batches of rows that are sorted by length together: less padding, and few lines held back."""
LIKELY = 0.5
"""From this probability on, a label of several that may hold does."""
SHORT = 12
"""Letters of a digest that tell answerers apart."""

Emit = Callable[[Record, Mapping[str, Any]], None]
Ask = Callable[[Record], Row]


def look(rows: Path, out: Path | None, by: Mapping[str, Any]) -> Asked:
    """What is to do. Reads both files to their ends, before any model is loaded; writes nothing."""
    if out is not None:
        refuse_place(rows, out)
    total = 0
    for record in read(rows):
        total += 1
        if PREDICTED in record.fields:
            raise DataError(
                f"{record.origin}: the row has a key {PREDICTED!r}, which is the one that answers "
                "are written under; rename it"
            )
    asked = Asked(rows, total)
    if out is not None and out.exists():
        compare(asked, out, by)
    return asked


def refuse_place(rows: Path, out: Path) -> None:
    """Refuse an `out` that no answers can be added to."""
    if out.resolve().is_relative_to(rows.resolve()):
        what = "lies in the folder of rows" if rows.is_dir() else "is the file of rows itself"
        raise SettingsError(f"{out}: {what}; name another --out, answers go into a file apart")
    if out.is_dir():
        raise SettingsError(f"{out}: is a folder; name a file in it: --out {out / 'answers.jsonl'}")
    if not out.parent.is_dir():
        raise SettingsError(f"{out}: there is no folder {out.parent}; make it, or correct --out")


def conversation(row: Row) -> Chat:
    """A row as the turns that a generating model is asked with."""
    if isinstance(row, Chat):
        return row.prompt()
    return Chat(messages=row.dialogue()[:-1], origin=row.origin)


def labelled(row: Row) -> Labelled:
    """A row as the texts that a head is asked about."""
    if isinstance(row, Labelled):
        return row
    given = tuple(turn.content or "" for turn in conversation(row).messages)
    return Labelled(given=given, labels=("",), origin=row.origin)


def answerer(run: str, overrides: Iterable[str], arm: Arm) -> tuple[Run, dict[str, str]]:
    """The settings in force, and all that an answer depends on beside its row, in short."""
    folder = run_folder(run)
    settings, train = load_run(folder.path, overrides), folder.stage("train")
    if not train.finished:
        train.manifest()  # Raises, with what to do.
    if arm == "base" and (train.path / heads.NAME).is_file():
        raise SettingsError(
            f"{folder.path}: this run chooses labels by a head, and its base has none; leave out "
            "--base"
        )
    sampling = settings.evaluate.sampling.model_dump(mode="json")
    return settings, {
        "training": train.digest[:SHORT],
        "arm": arm,
        "sampling": digest([sampling, settings.seed])[:SHORT],
    }


def planned(run: str, rows: Path, out: Path | None, overrides: Iterable[str], arm: Arm) -> Asked:
    """What `write` would have to do. Writes nothing."""
    _, by = answerer(run, overrides, arm)
    return look(rows, out, by)


def write(
    run: str, rows: Path, out: Path | None, overrides: Iterable[str], arm: Arm, log: Log
) -> Asked:
    """Answer to stdout, or append to `out` what it lacks.

    Rows without an answer are written with the reason, and named in a DataError at the end.
    """
    overrides = list(overrides)
    settings, by = answerer(run, overrides, arm)
    asked = look(rows, out, by)
    if asked.left:
        ask = asker(settings.data.format, next(read(rows)))
        if out is not None:
            mend(out, asked.size)
        with log.progress("answering", asked.total, done=asked.done) as advance:

            def emit(record: Record, found: Mapping[str, Any]) -> None:
                if "failed" in found:
                    asked.failed.note(found["failed"])
                put(out, opening(record) + json.dumps({**found, "by": by}).encode("ascii") + b"}\n")
                advance(1)

            left = islice(read(rows), asked.done, None)
            predicted(load(run, overrides, arm), left, ask, emit)
    asked.failed.told()
    return asked


def predicted(model: Tuned, records: Iterator[Record], ask: Ask, emit: Emit) -> None:
    """Every record and what the model makes of it, to `emit` in order."""
    # A run with a head chooses among its labels; all others write.
    answered = generated if model.policy.head is None else classified
    answered(model, records, ask, Line(emit))


@dataclass
class Line:
    """Rows in their order: each leaves as soon as it and all before it have an answer."""

    emit: Emit
    first: int = 0
    waiting: dict[int, Record] = field(default_factory=dict)
    ready: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def join(self, record: Record) -> int:
        """The row's number in the line."""
        number = self.first + len(self.waiting)
        self.waiting[number] = record
        return number

    def answer(self, number: int, found: Mapping[str, Any]) -> None:
        """What became of a row."""
        self.ready[number] = found
        while self.first in self.ready:
            self.emit(self.waiting.pop(self.first), self.ready.pop(self.first))
            self.first += 1


def generated(model: Tuned, records: Iterator[Record], ask: Ask, line: Line) -> None:
    """What the model writes."""
    from tunesmith.evaluate.answer import asking
    from tunesmith.model.generate import Request, answers

    decoder = model.decoder()

    def requests() -> Iterator[Request]:
        for window in windows(records, WINDOW * model.rows):
            found = []
            for number, row in joined(window, ask, line):
                try:
                    chat = conversation(row)
                    request = asking(chat, chat.digest, decoder, model.seed)
                    found.append(replace(request, key=str(number)))
                except DataError as error:
                    line.answer(number, {"failed": str(error)})
            yield from sorted(found, key=lambda r: len(r.ids), reverse=True)

    for answer in answers(decoder, requests()):
        said = {"answer": answer.text, "stopped": answer.stopped, "tokens": answer.tokens}
        line.answer(int(answer.key), said)


def classified(model: Tuned, records: Iterator[Record], ask: Ask, line: Line) -> None:
    """The likeliest label and how likely each is; where many may hold, those that likely do."""
    policy: Any = model.policy
    for window in windows(records, WINDOW * model.rows):
        rows = {number: labelled(row) for number, row in joined(window, ask, line)}
        for number, found in zip(rows, chances(policy, [*rows.values()], model.rows), strict=True):
            if isinstance(found, DataError):
                line.answer(number, {"failed": str(found)})
                continue
            named = dict(zip(policy.labels, found, strict=True))
            held = [name for name, chance in named.items() if chance >= LIKELY]
            best = max(named, key=lambda name: named[name])
            said = {"labels": held} if policy.head.many else {"label": best}
            line.answer(number, {**said, "probabilities": named})


def chances(policy: Any, rows: list[Labelled], batch: int) -> list[list[float] | DataError]:
    """The probability of every label for each row, or why the model cannot read it."""
    try:
        return [found for _, found in classify.probabilities(policy, rows, batch)]
    except DataError as error:
        if len(rows) == 1:
            return [error]
        return [found for row in rows for found in chances(policy, [row], batch)]


def joined(window: list[Record], ask: Ask, line: Line) -> Iterator[tuple[int, Row]]:
    """The rows of a window with their numbers; those that cannot be read have failed by then."""
    for record in window:
        number = line.join(record)
        try:
            yield number, ask(record)
        except DataError as error:
            line.answer(number, {"failed": str(error)})


def windows(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    """The records, so many at a time."""
    while window := list(islice(records, size)):
        yield window
