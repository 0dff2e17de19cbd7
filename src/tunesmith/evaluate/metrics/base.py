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
    """

    row: str
    prompt: str
    answer: str
    references: tuple[str, ...]
    stopped: bool = True
    nll: float = 0.0
    tokens: int = 0


class Metric(Part):
    """A score that is a function of summed counts, so an interval resamples vectors, not texts."""

    needs: ClassVar[Literal["answers", "likelihood"]] = "answers"
    """What it reads: generated answers, or the likelihood of the references."""
    higher_is_better: ClassVar[bool] = True
    percent: ClassVar[bool] = True
    """Whether a value is shown as a percentage of 100."""

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
