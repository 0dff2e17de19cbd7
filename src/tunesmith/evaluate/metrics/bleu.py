"""BLEU, by sacrebleu."""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.fields import named, part_of
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


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
        references = [[part_of(text, self.field)] for text in judged.references]
        answer = part_of(judged.answer, self.field)
        (found,) = scorer(self.lowercase)._extract_corpus_statistics([answer], references)
        return np.array([*found, 1], dtype=float)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        *found, rows = total
        score = scorer(self.lowercase)._compute_score_from_stats([int(n) for n in found])
        return {self.names()[0]: score.score if rows else np.nan}

    def note(self) -> str:
        return signature(scorer(self.lowercase))


@cache
def scorer(lowercase: bool) -> Any:
    """sacrebleu's BLEU; `force` because an answer may well end in ' .'."""
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=lowercase, force=True)


def signature(made: Any) -> str:
    """sacrebleu's signature, without the number of references, which may differ from row to row."""
    made.num_refs = -1
    return "sacrebleu " + str(made.get_signature().format()).replace("nrefs:var|", "")
