"""What sacrebleu's scores over a corpus share: a row's counts, the score of a sum, a signature."""

from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.evaluate.fields import part_of
from tunesmith.evaluate.metrics.base import Judged

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


def counts(scorer: Any, judged: Judged, field: str | None) -> "np.ndarray":
    """sacrebleu's own counts of a row, over all its references, then 1 for the row."""
    references = [[part_of(text, field)] for text in judged.references]
    (found,) = scorer._extract_corpus_statistics([part_of(judged.answer, field)], references)
    return np.array([*found, 1], dtype=float)


def score(scorer: Any, total: "np.ndarray") -> float:
    """The score of a sum of counts; not a number where there is no row."""
    *found, rows = total
    value: float = scorer._compute_score_from_stats([int(n) for n in found]).score
    return value if rows else float("nan")


def signature(scorer: Any) -> str:
    """sacrebleu's signature, without the number of references, which may differ from row to row."""
    scorer.num_refs = -1
    return "sacrebleu " + str(scorer.get_signature().format()).replace("nrefs:var|", "")
