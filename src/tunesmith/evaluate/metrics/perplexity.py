"""How surprised the model is by the right answers."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of the reference's tokens, its stop token included;
    of a document's, its end included.

    One mean over all tokens of all rows, never a mean of means. Compare it only between models
    with the same tokenizer; where a run adds words, both arms are counted in the base's tokens.
    """

    needs: ClassVar[Literal["answers", "likelihood"]] = "likelihood"
    higher_is_better: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    kind: Literal["perplexity"] = "perplexity"

    def counts(self, judged: Judged) -> "np.ndarray":
        return np.array([judged.nll, judged.tokens], dtype=float)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        nll, tokens = (float(n) for n in total)
        if not tokens or math.isnan(nll):
            return {self.kind: math.nan}
        mean = nll / tokens
        return {self.kind: math.exp(mean) if mean < 700 else math.inf}
