"""BLEU, by sacrebleu."""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.evaluate import corpus
from tunesmith.evaluate.fields import named
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np


class Bleu(Metric):
    """Corpus BLEU with sacrebleu's `13a` tokens, over all references of a row.

    For translation and data-to-text, over many rows; it says little about one. Numbers compare
    only under the same signature: lower case alone is worth up to four points.
    """

    kind: Literal["bleu"] = "bleu"
    lowercase: bool = False
    """Compare in lower case."""
    field: str | None = None
    """Compare one field of answers that are JSON objects; without it, whole answers."""

    def names(self) -> tuple[str, ...]:
        return (named(self.kind, self.field),)

    def counts(self, judged: Judged) -> "np.ndarray":
        """sacrebleu's own [lengths, matches, totals] of the row, then 1 for the row."""
        return corpus.counts(scorer(self.lowercase), judged, self.field)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        return {self.names()[0]: corpus.score(scorer(self.lowercase), total)}

    def note(self) -> str:
        return corpus.signature(scorer(self.lowercase))


@cache
def scorer(lowercase: bool) -> Any:
    """sacrebleu's BLEU; `force` because an answer may well end in ' .'."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=lowercase, force=True)
