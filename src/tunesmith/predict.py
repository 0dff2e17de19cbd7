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
from tunesmith.answers import Arm, Tuned, has_head, load, run_folder, tasks
from tunesmith.core.disk import read_json
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.late import late
from tunesmith.core.log import Log
from tunesmith.core.quote import listed, quoted
from tunesmith.core.rows import Chat, Labelled, Message, Row, digest
from tunesmith.core.tables import Record, read
from tunesmith.data.asked import Kinds, asker
from tunesmith.evaluate.labels import Labels
from tunesmith.run import Run
from tunesmith.run import load as load_run

classify = late("tunesmith.model.classify")

WINDOW = 8
"""Batches of rows that are sorted by length together: less padding, and few lines held back."""
SHORT = 12
"""Letters of a digest that tell answerers apart."""

Emit = Callable[[Record, Mapping[str, Any]], None]
Ask = Callable[[Record], Row]
Score = Callable[[list[Any]], Iterable[list[float] | DataError]]


@dataclass(frozen=True)
class Answering:
    """How a run answers.

    `labels` are chosen among by their likelihood; None where a head chooses, or the model writes.
    Under the `threshold` a row is given the `unknown`.
    """

    settings: Run
    labels: Labels | None
    unknown: str | None
    threshold: float | None
    task: str
    """Whose labels are given, where each task has its own head; else nothing."""
    by: Mapping[str, Any]
    """All that an answer depends on beside its row, in short."""

    @property
    def kinds(self) -> Kinds:
        """The kinds of question that the run answers."""
        objective = self.settings.train.objective
        return (objective.row,) if objective.scores else (Chat, objective.row)


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


def conversation(question: Row) -> Chat:
    """A question as the turns that a generating model is asked with; a document is one."""
    if isinstance(question, Chat):
        return question
    return Chat(tuple(Message("user", t) for t in question.texts()), origin=question.origin)


def answering(run: str, overrides: Iterable[str], arm: Arm, task: str | None = None) -> Answering:
    """How the run answers, without its model. Refused where the answers would not be those that
    were measured, and where it has several tasks and none is named."""
    folder = run_folder(run)
    settings, train = load_run(folder.path, overrides), folder.stage("train")
    if not train.finished:
        train.manifest()  # Raises, with what to do.
    if arm == "base" and has_head(folder):
        raise SettingsError(
            f"{folder.path}: this run chooses labels by a head, and its base has none; leave out "
            "--base"
        )
    asked, form = settings.evaluate, settings.data.format
    by: dict[str, Any] = {
        "training": train.digest[:SHORT],
        "arm": arm,
        "sampling": digest([asked.sampling.model_dump(mode="json"), settings.seed])[:SHORT],
        "format": digest(form and form.model_dump(mode="json"))[:SHORT],
    }
    means = "head" if has_head(folder) else asked.by
    labels = labels_of(settings, folder, means)
    task = task_of(folder, task)
    by |= {"task": task} if task else {}
    if labels is None or not labels.untaught:
        least = None
    else:
        least = threshold(folder, means, labels.unknown, arm)
        by |= {"unknown": labels.unknown, "threshold": least}
    if means == "likelihood":
        by |= {"choosing": means}
    else:
        labels = None
    return Answering(settings, labels, asked.unknown, least, task, by)


def task_of(folder: RunFolder, task: str | None) -> str:
    """The task that is asked for; nothing where the run has one only. Raises SettingsError, with
    the tasks that there are."""
    known = tasks(folder)
    if task in known or (task is None and not known):
        return task or ""
    if not known:
        raise SettingsError(
            f"{folder.path}: has no tasks to choose among, so there is no {quoted(task)}; leave "
            "out --task"
        )
    wrong = f"has no task {quoted(task)}" if task else f"has a head for each of {len(known)} tasks"
    raise SettingsError(f"{folder.path}: {wrong}; say --task with one of {listed(known)}")


def labels_of(settings: Run, folder: RunFolder, means: str) -> Labels | None:
    """The labels that the evaluation chose among; None where nothing hangs on them."""
    from tunesmith.evaluate.questions import answer_labels, head_labels
    from tunesmith.model.heads import meaning_of

    asked = settings.evaluate
    if means == "generation" or (means == "head" and asked.unknown is None):
        return None
    data = folder.stage("data").path
    if means == "head":
        return head_labels(data, meaning_of(folder.stage("train").path), asked.unknown)
    return answer_labels(data, asked.sampling, asked.unknown)[0]


def threshold(folder: RunFolder, means: str, unknown: str | None, arm: Arm) -> float:
    """The threshold for the unknown that the evaluation of this training chose."""
    stage, training = folder.stage("evaluate"), folder.stage("train").digest
    if stage.finished and stage.inputs.get("digest of the training") == training:
        stage.manifest()
        report = read_json(stage.path / "report.json")
        found: float | None = report.get("thresholds", {}).get(arm)
        if found is not None and (report["by"], report["unknown"]) == (means, unknown):
            return found
    raise SettingsError(
        f"{folder.path}: evaluate.unknown={unknown} is told by a threshold, and no evaluation of "
        f"this training has chosen one; run: tunesmith evaluate {folder.path / 'run.yaml'}, or "
        "set evaluate.unknown=null"
    )


def planned(
    run: str,
    rows: Path,
    out: Path | None,
    overrides: Iterable[str],
    arm: Arm,
    task: str | None = None,
) -> Asked:
    """What `write` would have to do. Writes nothing."""
    return look(rows, out, answering(run, overrides, arm, task).by)


def write(
    run: str,
    rows: Path,
    out: Path | None,
    overrides: Iterable[str],
    arm: Arm,
    log: Log,
    task: str | None = None,
) -> Asked:
    """Answer to stdout, or append to `out` what it lacks.

    Rows without an answer are written with the reason, and named in a DataError at the end.
    """
    overrides = list(overrides)
    how = answering(run, overrides, arm, task)
    asked = look(rows, out, how.by)
    if asked.left:
        ask = asker(how.settings.data.format, next(read(rows)), how.kinds)
        if out is not None:
            mend(out, asked.size)
        with log.progress("answering", asked.total, done=asked.done) as advance:

            def emit(record: Record, found: Mapping[str, Any]) -> None:
                if "failed" in found:
                    asked.failed.note(found["failed"])
                put(
                    out,
                    opening(record) + json.dumps({**found, "by": how.by}).encode("ascii") + b"}\n",
                )
                advance(1)

            left = islice(read(rows), asked.done, None)
            predicted(load(run, overrides, arm), left, ask, emit, how)
    asked.failed.told()
    return asked


def predicted(
    model: Tuned, records: Iterator[Record], ask: Ask, emit: Emit, how: Answering
) -> None:
    """Every record and what the model makes of it, to `emit` in order."""
    if model.policy.head is None and how.labels is None:
        generated(model, records, ask, Line(emit))
    else:
        classified(model, records, ask, Line(emit), how=how)


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


def classified(
    model: Tuned, records: Iterator[Record], ask: Ask, line: Line, *, how: Answering
) -> None:
    """The label that a row is given, or those, and how likely each is."""
    labels, score = scorer(model, how)
    for window in windows(records, WINDOW * model.rows):
        rows = dict(joined(window, ask, line))
        for number, found in zip(rows, score([*rows.values()]), strict=True):
            line.answer(number, told(labels, found, how.threshold))


def scorer(model: Tuned, how: Answering) -> tuple[Labels, Score]:
    """The labels, and what finds how likely each is: the run's head, or the model as it writes."""
    from tunesmith.evaluate.scores import likelihood_of

    policy: Any = model.policy
    if how.labels is None:
        own = policy.head.outputs(how.task)
        names = tuple(policy.head.label(place) for place in own)
        many = policy.head.many
        labels = Labels(names, texts=names, shares=(), unknown=how.unknown, many=many)

        def score(rows: list[Labelled]) -> Iterator[list[float] | DataError]:
            asked = [replace(row, source=how.task) for row in rows]
            for found in chances(policy, asked, model.rows):
                yield found if isinstance(found, DataError) else [found[place] for place in own]

        return labels, score
    likely = likelihood_of(policy, how.labels)
    return how.labels, lambda rows: (attempt(likely, row) for row in rows)


def attempt(likely: Callable[[Chat], list[float]], row: Row) -> list[float] | DataError:
    """How likely each label is, or why the model cannot read the row."""
    try:
        return likely(conversation(row))
    except DataError as error:
        return error


def told(labels: Labels, found: list[float] | DataError, threshold: float | None) -> dict[str, Any]:
    """The labels that probabilities mean, and how likely each is, as one answer."""
    if isinstance(found, DataError):
        return {"failed": str(found)}
    given = labels.likeliest(found, threshold)
    said = {"labels": given} if labels.many else {"label": given[0]}
    return {**said, "probabilities": dict(zip(labels.names, found, strict=True))}


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
