"""What a metric promises: a vector of counts for each answer, and a value of summed counts."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.parts import Part

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Judged:
    """One test row with what a model made of it.

    `answer` is the generated text; `references` the right ones (the row's own first). `nll` and
    `tokens` are the summed negative log-likelihood (nats) of the reference and its token count.

    Where labels are judged, `labels` names all that a model chooses among, `wanted` are the row's
    own, `given` the model's, and `chances` its probability of each of `labels`, in their order.
    `unknown` is the label that means none of them, `many` says that a row may have several.
    """

    row: str
    prompt: str
    answer: str
    references: tuple[str, ...]
    stopped: bool = True
    nll: float = 0.0
    tokens: int = 0
    wanted: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    chances: tuple[float, ...] = ()
    unknown: str | None = None
    many: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Every label that a row may want, the unknown one too."""
        if self.unknown is None or self.unknown in self.labels:
            return self.labels
        return (*self.labels, self.unknown)


Needs = Literal["answers", "likelihood", "labels", "chances"]


class Metric(Part):
    """A score that is a function of summed counts, so an interval resamples vectors, not texts."""

    needs: ClassVar[Needs] = "answers"
    """What it reads: generated answers, the likelihood of the references, the labels that were
    given, or the probability of each label."""
    needs_unknown: ClassVar[bool] = False
    """Whether it measures nothing where no label means none of the others."""
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True
    """Whether a value is shown as a percentage of 100."""

    mean_of_rows: ClassVar[bool] = False
    """Whether every value is a mean over all rows, of 0 to 100 each: how wide its interval is where
    all rows came out alike can be said then."""

    def names(self) -> Sequence[str]:
        """The values it gives, the main one first; by default one, called like the metric."""
        return (self.kind,)

    @abstractmethod
    def counts(self, judged: Judged) -> "np.ndarray":
        """The row's vector; every row's has the same length."""

    @abstractmethod
    def values(self, total: "np.ndarray") -> dict[str, float]:
        """The values, by name, of summed counts. No rows at all: nan."""

    def note(self) -> str:
        """How it was computed, for the report (sacrebleu's signature, say)."""
        return ""
