"""chrF, by sacrebleu."""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.evaluate import corpus
from tunesmith.evaluate.fields import named
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np


class Chrf(Metric):
    """Corpus F-score of character n-grams; `words: 2` makes it chrF++.

    Kinder than BLEU to other forms of a word, and to languages without spaces.
    """

    kind: Literal["chrf"] = "chrf"
    words: int = 0
    """Longest n-gram of words counted beside those of characters."""
    lowercase: bool = False
    """Compare in lower case."""
    field: str | None = None
    """Compare one field of answers that are JSON objects; without it, whole answers."""

    def names(self) -> tuple[str, ...]:
        return (named(self.kind, self.field),)

    def counts(self, judged: Judged) -> "np.ndarray":
        """sacrebleu's own n-gram counts of the row, then 1 for the row."""
        return corpus.counts(self._scorer(), judged, self.field)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        return {self.names()[0]: corpus.score(self._scorer(), total)}

    def note(self) -> str:
        return corpus.signature(self._scorer())

    def _scorer(self) -> Any:
        return scorer(self.words, self.lowercase)


@cache
def scorer(words: int, lowercase: bool) -> Any:
    """sacrebleu's chrF."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=words, lowercase=lowercase)
