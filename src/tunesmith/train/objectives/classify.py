"""Choose labels for a text, or for two, with a head over the model's states."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.quote import listed, quoted
from tunesmith.core.records import Batch, Example, Loss, Tally
from tunesmith.core.rows import Labelled, Row
from tunesmith.model import layout, plain
from tunesmith.model.heads import Head, Meaning, Pooling, fresh, of_task
from tunesmith.train import contrast
from tunesmith.train.contrast import Contrast
from tunesmith.train.objectives.base import Objective
from tunesmith.train.streams import Group, Stream

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional

    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer
else:
    torch = late("torch")
    functional = late("torch.nn.functional")

Names = Annotated[list[str], Field(min_length=1)]


class Classify(Objective):
    """Classification with a trained head: one label a row, or any number of them.

    Good from ten examples a label on. One label: cross-entropy over all of them. Many: each label
    for itself, binary cross-entropy, its mean over the labels, so that a row weighs the same
    however many labels there are.
    """

    kind: Literal["classify"] = "classify"
    heads: Literal["shared", "per_source"] = "shared"
    """One head over the labels of all sources, or one for each source of a mixture, over one
    trunk: a row is given the labels of its own source only."""
    labels: Names | dict[str, Names] | None = None
    """The labels in their order, by source where each has its head; by default those of the
    training rows, sorted."""
    many: bool | None = None
    """Whether a row may have any number of labels; by default as the rows say."""
    pooling: Literal["auto", "mean", "last"] = "auto"
    """Which states are read: the mean of all, or the last; auto: mean in an encoder, else last."""
    contrast: Contrast | None = None
    """Draw rows of a label together, and fit the head to the result at every look (SetFit, arXiv
    2209.11055): for few rows a label. By default the head is trained with whatever moves."""

    @model_validator(mode="after")
    def _each_once_and_for_its_head(self) -> Self:
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise ValueError(f"{quoted(twice[0])} is named twice; name each label once")
        if self.labels is not None and isinstance(self.labels, dict) != self.apart:
            raise ValueError(
                "heads: per_source takes labels by source, {reviews: [good, bad]}, and heads: "
                "shared takes one list"
            )
        if self.contrast is not None and self.apart:
            raise ValueError(
                "contrast draws rows of a label together over all sources; take heads: shared"
            )
        return self

    @property
    def apart(self) -> bool:
        """Whether each source has its own head."""
        return self.heads == "per_source"

    @property
    def names(self) -> list[str]:
        """All outputs by name, once known."""
        if isinstance(self.labels, dict):
            return [of_task(task, name) for task, own in self.labels.items() for name in own]
        return list(self.labels or ())

    @property
    def tasks(self) -> list[str]:
        """The task of each output, where each source has its own head."""
        by_task = self.labels if isinstance(self.labels, dict) else {}
        return [task for task, own in by_task.items() for _ in own]

    row: ClassVar[type[Row]] = Labelled
    chats: ClassVar[bool] = False
    scores: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    def fitted(self, rows: Sequence[Row]) -> Self:
        """With the labels found in the rows, and with whether a row may have many of them."""
        labelled = [row for row in rows if isinstance(row, Labelled)]
        many = self.many if self.many is not None else any(row.many for row in labelled)
        by_task: dict[str, list[Labelled]] = {}
        for row in labelled:
            by_task.setdefault(row.source if self.apart else "", []).append(row)
        found = {
            task: sorted({n for r in rows for n in r.labels}) for task, rows in by_task.items()
        }
        if isinstance(self.labels, dict):
            absent = [task for task in self.labels if task not in found]
            if absent:
                raise DataError(
                    "train.objective.labels: no training row is of the source "
                    f"{quoted(absent[0])}; there are rows of {listed(found)}. Correct the name, or "
                    "leave it out"
                )
            found |= self.labels
        elif self.labels is not None:
            found = {"": self.labels}
        for task, names in found.items():
            if len(names) < (1 if many else 2):
                of = f" of {quoted(task)}" if task else ""
                raise DataError(
                    "train.objective: classify needs two labels to choose between, and the "
                    f"training rows{of} have {len(names)}. Look at data.format, or state "
                    "train.objective.labels"
                )
        labels = found if self.apart else found[""]
        return self.model_copy(update={"labels": labels, "many": many})

    def accept(self, rows: Iterable[Row]) -> None:
        """Refuse other kinds of row, and once fitted, a label that was never trained."""
        rows = list(rows)
        super().accept(rows)
        if self.labels is not None:
            for row in rows:
                self.label(row)

    def label(self, row: Any) -> int | tuple[int, ...]:
        """The label's place among all labels; with many, 1 for each that holds and 0 elsewhere."""
        known = {name: place for place, name in enumerate(self.names)}
        wanted = [of_task(row.source, n) if self.apart else n for n in row.labels]
        self._refuse_no_task(row)
        for name, called in zip(row.labels, wanted, strict=True):
            if called not in known:
                raise DataError(
                    f"{row.origin}: the label {quoted(name)} is on no training row, so it cannot "
                    "be learned. Correct it, or put rows with it into the training part"
                )
        if self.many:
            held = set(wanted)
            return tuple(int(name in held) for name in known)
        if row.many:
            raise DataError(
                f"{row.origin}: this row has a set of labels where others have one. State "
                "train.objective.many=true to choose any number of labels"
            )
        return known[wanted[0]]

    def _refuse_no_task(self, row: Labelled) -> None:
        """A row must be of a source that has a head, even one without labels."""
        if self.apart and row.source not in (self.labels or {}):
            raise DataError(
                f"{row.origin}: no training row is of the source {quoted(row.source)}, so there is "
                "no head for it. With heads: per_source, name held-out files as valid and test of "
                "their source"
            )

    def encode(self, row: Labelled, tokenizer: "Tokenizer") -> Example:
        return plain.encode(row, tokenizer, self.label(row))

    def meaning(self) -> Meaning:
        pooling: Pooling = "last" if self.pooling == "last" else "mean"
        return self._meaning(pooling)

    def _meaning(self, pooling: Pooling) -> Meaning:
        return Meaning(tuple(self.names), pooling, bool(self.many), tuple(self.tasks))

    def head(self, model: Any, seed: int) -> Head:
        by_default: Pooling = "last" if layout.writes(model) else "mean"
        pooling = by_default if self.pooling == "auto" else self.pooling
        head = fresh(self._meaning(pooling), layout.width(model), seed=seed)
        head.linear.requires_grad_(not self.fits_head)
        return head

    def weight(self, batch: Batch) -> "torch.Tensor":
        return batch.weights.sum()

    def guessing(self, policy: "Policy") -> float:
        if self.many:
            return math.log(2)
        sizes = [*Counter(self.tasks).values()] or [len(policy.labels)]
        return sum(math.log(size) for size in sizes) / len(sizes)

    @property
    def fits_head(self) -> bool:
        return self.contrast is not None

    def fit_head(self, policy: "Policy", batches: Iterable[Batch]) -> None:
        assert self.contrast is not None and policy.head is not None, "only what fits is asked to"
        contrast.fit(policy, policy.head, batches, self.contrast.penalty)

    def stream(self, policy: "Policy", groups: Iterator[Group]) -> Stream:
        if self.contrast is None:
            return super().stream(policy, groups)
        return contrast.Contrasted(policy, groups, self.contrast.temperature)

    def loss(self, policy: "Policy", batch: Batch) -> Loss:
        if contrast.PULL in batch.extra:
            return contrast.loss(policy, batch)
        assert batch.labels is not None, "classify gives every example a label"
        assert policy.head is not None, "classify has a head"
        scores = policy.scores(batch)  # [sequence, label]
        if self.many:
            wanted = batch.labels.to(scores.dtype)
            each = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
            terms, hits = each.mean(dim=1), (scores > 0) == (wanted > 0)
            if self.apart:
                own = policy.head.own(batch.sources)
                terms, hits = (each * own).sum(dim=1) / own.sum(dim=1), hits | ~own
            right = hits.all(dim=1)
        else:
            scores = policy.head.routed(scores, batch.sources)
            terms = functional.cross_entropy(scores, batch.labels, reduction="none")
            right = scores.argmax(dim=1) == batch.labels
        total = (terms * batch.weights).sum()
        loss = (float(total.detach()), float(self.weight(batch)))
        accuracy = (float(right.sum()), float(len(batch.rows)))
        return Loss(total, Tally({"loss": loss, "accuracy": accuracy}))
