"""Choose labels for a text, or for two, with a head over the model's states."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.quote import quoted
from tunesmith.core.records import Batch, Example, Loss, Tally
from tunesmith.core.rows import Labelled, Row
from tunesmith.model import heads, layout, plain
from tunesmith.train import contrast
from tunesmith.train.contrast import Contrast
from tunesmith.train.objectives.base import Objective
from tunesmith.train.streams import Group, Stream

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional

    from tunesmith.model.policy import Policy
    from tunesmith.model.render import Tokenizer
else:
    torch = late("torch")
    functional = late("torch.nn.functional")


class Classify(Objective):
    """Classification with a trained head: one label a row, or any number of them.

    Good from ten examples a label on. One label: cross-entropy over all of them. Many: each label
    for itself, binary cross-entropy, its mean over the labels, so that a row weighs the same
    however many labels there are.
    """

    kind: Literal["classify"] = "classify"
    labels: Annotated[list[str], Field(min_length=1)] | None = None
    """The labels in their order; by default those of the training rows, sorted."""
    many: bool | None = None
    """Whether a row may have any number of labels; by default as the rows say."""
    pooling: Literal["auto", "mean", "last"] = "auto"
    """Which states are read: the mean of all, or the last; auto: mean in an encoder, else last."""
    contrast: Contrast | None = None
    """Draw rows of a label together, and fit the head to the result at every look (SetFit, arXiv
    2209.11055): for few rows a label. By default the head is trained with whatever moves."""

    @field_validator("labels")
    @classmethod
    def _each_once(cls, labels: list[str] | None) -> list[str] | None:
        twice = [name for name, times in Counter(labels or ()).items() if times > 1]
        if twice:
            raise ValueError(f"{quoted(twice[0])} is named twice; name each label once")
        return labels

    row: ClassVar[type[Row]] = Labelled
    chats: ClassVar[bool] = False
    scores: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    def fitted(self, rows: Sequence[Row]) -> Self:
        """With the labels found in the rows, and with whether a row may have many of them."""
        labelled = [row for row in rows if isinstance(row, Labelled)]
        many = self.many if self.many is not None else any(row.many for row in labelled)
        found = self.labels or sorted({name for row in labelled for name in row.labels})
        if len(found) < (1 if many else 2):
            raise DataError(
                f"train.objective: classify needs two labels to choose between, and the training "
                f"rows have {len(found)}. Look at data.format, or state train.objective.labels"
            )
        return self.model_copy(update={"labels": found, "many": many})

    def accept(self, rows: Iterable[Row]) -> None:
        """Refuse other kinds of row, and once fitted, a label that was never trained."""
        rows = list(rows)
        super().accept(rows)
        if self.labels is not None:
            for row in rows:
                self.label(row)

    def label(self, row: Any) -> int | tuple[int, ...]:
        """The label's place among all labels; with many, 1 for each that holds and 0 elsewhere."""
        known = {name: place for place, name in enumerate(self.labels or ())}
        for name in row.labels:
            if name not in known:
                raise DataError(
                    f"{row.origin}: the label {quoted(name)} is on no training row, so it cannot "
                    "be learned. Correct it, or put rows with it into the training part"
                )
        if self.many:
            held = set(row.labels)
            return tuple(int(name in held) for name in known)
        if row.many:
            raise DataError(
                f"{row.origin}: this row has a set of labels where others have one. State "
                "train.objective.many=true to choose any number of labels"
            )
        return known[row.labels[0]]

    def encode(self, row: Labelled, tokenizer: "Tokenizer") -> Example:
        return plain.encode(row, tokenizer, self.label(row))

    def meaning(self) -> heads.Meaning:
        pooling: heads.Pooling = "last" if self.pooling == "last" else "mean"
        return heads.Meaning(tuple(self.labels or ()), pooling, bool(self.many))

    def head(self, model: Any, seed: int) -> heads.Head:
        by_default: heads.Pooling = "last" if layout.writes(model) else "mean"
        pooling = by_default if self.pooling == "auto" else self.pooling
        labels, width = tuple(self.labels or ()), layout.width(model)
        head = heads.fresh(labels, width, pooling=pooling, many=bool(self.many), seed=seed)
        head.linear.requires_grad_(not self.fits_head)
        return head

    def weight(self, batch: Batch) -> "torch.Tensor":
        return batch.weights.sum()

    def guessing(self, policy: "Policy") -> float:
        return math.log(2 if self.many else len(policy.labels))

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
        scores = policy.scores(batch)  # [sequence, label]
        if self.many:
            wanted = batch.labels.to(scores.dtype)
            each = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
            terms, right = each.mean(dim=1), ((scores > 0) == (wanted > 0)).all(dim=1)
        else:
            terms = functional.cross_entropy(scores, batch.labels, reduction="none")
            right = scores.argmax(dim=1) == batch.labels
        total = (terms * batch.weights).sum()
        loss = (float(total.detach()), float(self.weight(batch)))
        accuracy = (float(right.sum()), float(len(batch.rows)))
        return Loss(total, Tally({"loss": loss, "accuracy": accuracy}))
