"""chrF, by sacrebleu."""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.fields import named, part_of
from tunesmith.evaluate.metrics.base import Judged, Metric
from tunesmith.evaluate.metrics.bleu import signature

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


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
        references = [[part_of(text, self.field)] for text in judged.references]
        answer = part_of(judged.answer, self.field)
        (found,) = self._scorer()._extract_corpus_statistics([answer], references)
        return np.array([*found, 1], dtype=float)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        *found, rows = total
        score = self._scorer()._compute_score_from_stats([int(n) for n in found])
        return {self.names()[0]: score.score if rows else np.nan}

    def note(self) -> str:
        return signature(self._scorer())

    def _scorer(self) -> Any:
        return scorer(self.words, self.lowercase)


@cache
def scorer(words: int, lowercase: bool) -> Any:
    """sacrebleu's chrF."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=words, lowercase=lowercase)
