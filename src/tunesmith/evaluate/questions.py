"""What both arms are asked, alike: the held-out rows, by which metrics, among which labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tunesmith.core.errors import DataError, IntegrityError, SettingsError
from tunesmith.core.mixing import divided, replays
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Labelled, Row, Text
from tunesmith.core.tables import read_part
from tunesmith.evaluate import documents, general
from tunesmith.evaluate.compare import too_few
from tunesmith.evaluate.labels import LabelRow, Labels, headed, labels_of, learned, listed
from tunesmith.evaluate.metrics.accuracy import Accuracy
from tunesmith.evaluate.metrics.base import Metric, Needs
from tunesmith.evaluate.metrics.calibration import Calibration
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.f1 import F1
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.metrics.rouge import Rouge
from tunesmith.evaluate.metrics.scope import Scope
from tunesmith.model.devices import Device
from tunesmith.model.generate import Sampling
from tunesmith.model.heads import Meaning, of_task

if TYPE_CHECKING:
    from tunesmith.evaluate.stage import Evaluate

Kind = TypeVar("Kind", Chat, Labelled)

HeldOut = Chat | Labelled | Text
"""The kinds of row that can be measured by."""

METRICS: dict[type[Row], tuple[Metric, ...]] = {
    Chat: (Exact(), Rouge(), Perplexity()),
    Labelled: (Accuracy(), F1(), Calibration()),
    Text: (Perplexity(),),
}
"""What a kind of row is measured by where the run file names nothing."""


@dataclass(frozen=True)
class Questions:
    """The rows, and how they are asked and judged.

    `labels` is None where answers are free and no metric asks for labels; `valid` holds the rows
    that a threshold for the unknown is chosen on, none where there is no need of one. `general` is
    the text read beside the rows.
    """

    rows: Sequence[HeldOut]
    metrics: Sequence[Metric]
    sampling: Sampling
    by: Literal["generation", "likelihood"]
    labels: Labels | None
    valid: Sequence[LabelRow]
    batch: int
    seed: int
    device: Device
    general: str

    @property
    def labelled(self) -> list[LabelRow]:
        """The rows that have labels."""
        return [row for row in self.rows if not isinstance(row, Text)]

    @property
    def headed(self) -> bool:
        """Whether a model with a head is asked, which writes no answers."""
        return isinstance(self.rows[0], Labelled)

    def need(self, *needs: Needs) -> bool:
        """Whether a metric reads one of these."""
        return any(metric.needs in needs for metric in self.metrics)

    @property
    def writes(self) -> bool:
        """Whether answers are generated."""
        return self.by == "generation" and not self.headed and self.need("answers", "labels")

    @property
    def scores(self) -> bool:
        """Whether the probability of every label is asked for."""
        return self.need("chances") or (not self.writes and self.need("answers", "labels"))


def questions(data: Path, spec: "Evaluate", *, seed: int, head: Meaning | None = None) -> Questions:
    """What to ask of the prepared rows in `data`; `head` is what the trained head says, if there is
    one. Raises DataError and SettingsError for rows and settings that measure nothing together."""
    rows = in_tasks(held_out(data, spec.part, spec.limit), head)
    metrics = metrics_for(spec, rows)
    found = Questions(
        rows=rows,
        metrics=metrics,
        sampling=spec.sampling,
        by=spec.by,
        labels=None,
        valid=(),
        batch=spec.batch,
        seed=seed,
        device=spec.device,
        general=general.chosen(spec.general, rows, replayed=replays(data)),
    )
    if isinstance(rows[0], Text):
        return found
    free = spec.sampling.choices == "free" and spec.unknown is None
    if free and not found.headed and not found.scores and not found.need("labels"):
        return found
    if found.headed:
        labels, source = head_labels(data, head, spec.unknown), "train.objective.labels"
    else:
        labels, source = answer_labels(data, spec.sampling, spec.unknown)
    valid = threshold_rows(data, labels, spec) if labels.untaught else ()
    labels.check([*found.labelled, *valid], source)
    sampling = spec.sampling
    if sampling.choices != "free":
        sampling = sampling.model_copy(update={"choices": list(labels.texts)})
    return replace(found, sampling=sampling, labels=labels, valid=valid)


def held_out(data: Path, part: str, limit: int | None) -> list[HeldOut]:
    """The first rows of a part, all of one kind that can be asked."""
    found = first_of(read_part(data, part), limit)
    if not found:
        raise nothing_to_ask(part)
    kind = type(found[0])
    if kind not in METRICS:
        known = ", ".join(each.kind for each in METRICS)
        raise DataError(
            f"{found[0].origin}: a row of kind {kind.kind} cannot be asked; evaluate takes rows of "
            f"kind {known}"
        )
    rows = [row for row in found if isinstance(row, kind) and isinstance(row, HeldOut)]
    if len(rows) < len(found):
        odd = next(row for row in found if not isinstance(row, kind))
        raise DataError(
            f"{odd.origin}: a row of kind {odd.kind}, where the rows before it are of kind "
            f"{kind.kind}; keep one kind in the {part} rows, or give the source of the others a "
            "replay share, which is for training only"
        )
    return rows


def first_of(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """The first rows, of each source its portion: those of one come behind those of another."""
    if limit is None or limit >= len(rows):
        return list(rows)
    counts = Counter(row.source for row in rows)
    left = dict(zip(counts, divided(limit, list(counts.values())), strict=True))
    found = []
    for row in rows:
        left[row.source] -= 1
        if left[row.source] >= 0:
            found.append(row)
    return found


def enough(spec: "Evaluate", rows: int, *, wanted: bool) -> str:
    """What to know of so many rows to measure by, before any work; nothing where they may prove
    something. Refuses none at all where it is `wanted` that they measure."""
    if wanted and not rows:
        raise nothing_to_ask(spec.part)
    return too_few(spec.part, rows, spec.limit)


def nothing_to_ask(part: str) -> DataError:
    """The refusal of a run without held-out rows; known before training, so said there too."""
    return DataError(
        f"evaluate.part={part}: the run has no {part} rows, and rows it learned from measure "
        f"nothing. Set data.split.{part}, or give a file as data.{part}"
    )


def metrics_for(spec: "Evaluate", rows: Sequence[Row]) -> list[Metric]:
    """The metrics that the run file names, or those of this kind of row. SettingsError for one
    that could measure nothing here."""
    lost = [metric.kind for metric in spec.metrics if metric.needs_unknown]
    if lost and spec.unknown is None:
        raise SettingsError(
            f"evaluate.metrics: {lost[0]} measures whether rows of an unknown label are told; name "
            "that label as evaluate.unknown, or leave the metric out"
        )
    if spec.metrics:
        refuse_unfit(spec.metrics, rows)
        return list(spec.metrics)
    scope = [Scope()] if spec.unknown is not None and not isinstance(rows[0], Text) else []
    return [*METRICS[type(rows[0])], *scope]


def refuse_unfit(metrics: Sequence[Metric], rows: Sequence[Row]) -> None:
    """Refuse metrics that read what this kind of row does not have."""
    documents.refuse_unfit(metrics, rows)
    if not any(isinstance(row, Labelled) for row in rows):
        return
    unfit = [metric.kind for metric in metrics if metric.needs == "likelihood"]
    if unfit:
        raise SettingsError(
            f"evaluate.metrics: {', '.join(unfit)} reads how likely an answer is, and rows with "
            "labels have none to read; leave it out"
        )


def head_labels(data: Path, head: Meaning | None, unknown: str | None) -> Labels:
    """The labels that the trained head chooses among."""
    if head is None:
        raise IntegrityError(
            "the rows have labels and the trained model has no head to choose one. Train the run "
            "again: tunesmith train RUN.yaml --restart"
        )
    if head.many and unknown is not None:
        raise SettingsError(
            "evaluate.unknown: rows that may have several labels say `none of them` by an empty "
            "set; leave it out"
        )
    if head.tasks and unknown is not None:
        raise SettingsError(
            "evaluate.unknown: a row that is none of the labels belongs to no task, and each task "
            "has its own head; leave it out, or set train.objective.heads=shared"
        )
    return headed(head, in_tasks(training(data, Labelled), head), unknown)


def in_tasks(rows: Sequence[Any], head: Meaning | None) -> list[Any]:
    """The rows with their labels called as a head of several tasks calls them.

    That makes other rows of them, on purpose: one text with one label in two tasks is two rows.
    """
    if head is None or not head.tasks:
        return list(rows)
    blank: dict[str, str] = {}  # the task of each text that has no label
    for row in rows:
        if not row.labels and blank.setdefault(row.digest, row.source) != row.source:
            raise DataError(
                f"{row.origin}: this text has no label in two tasks, {quoted(row.source)} and "
                f"{quoted(blank[row.digest])}, which makes one row of two. Leave one of them out"
            )
    return [
        replace(row, labels=tuple(of_task(row.source, name) for name in row.labels)) for row in rows
    ]


def answer_labels(data: Path, sampling: Sampling, unknown: str | None) -> tuple[Labels, str]:
    """The labels that the run file lists, or that training rows answer; and which of the two."""
    if isinstance(sampling.choices, list):
        return listed(sampling.choices, unknown), "evaluate.sampling.choices"
    labels = learned(training(data, Chat), unknown)
    if len(labels.names) < 2:
        raise DataError(
            f"all training rows have the label {quoted(labels.names[0])}: there is nothing to "
            "choose. Add rows with another label"
        )
    return labels, "the training rows"


def training(data: Path, kind: type[Kind]) -> list[Kind]:
    """The training rows of a kind, at least one."""
    rows = [row for row in read_part(data, "train") if isinstance(row, kind)]
    if not rows:
        raise DataError(f"no training row is of kind {kind.kind}, so there is no label to choose")
    return rows


def threshold_rows(data: Path, labels: Labels, spec: "Evaluate") -> list[LabelRow]:
    """The valid rows, by which the threshold for a label that no training row has is chosen."""
    rows = [row for row in read_part(data, "valid") if isinstance(row, Chat | Labelled)]
    if spec.by == "generation" and rows and isinstance(rows[0], Chat):
        raise SettingsError(
            f"evaluate.unknown={labels.unknown}: no training row has this label, so only a "
            "threshold on probabilities can tell it; set evaluate.by=likelihood"
        )
    unknown = sum(labels.unknown in labels_of(row) for row in rows)
    if not 0 < unknown < len(rows):
        raise DataError(
            f"evaluate.unknown={labels.unknown}: no training row has this label, and {unknown} of "
            f"the {len(rows)} valid rows do, so no threshold can be chosen. Give a file with both "
            "kinds as data.valid"
        )
    return rows


def settled(sampling: Sampling, data: Path) -> Sampling:
    """The sampling with `choices: labels` made the list of what training rows answer."""
    if sampling.choices != "labels":
        return sampling
    texts = answer_labels(data, sampling, None)[0].texts
    return sampling.model_copy(update={"choices": list(texts)})
