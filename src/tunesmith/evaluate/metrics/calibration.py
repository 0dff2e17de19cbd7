"""Whether a model is right as often as it says it is."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric, Needs

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

LEAST = 2.0**-52
"""A probability is held this far from 0 and 1 in the log loss, as scikit-learn does."""


class Calibration(Metric):
    """Expected calibration error (arXiv 1706.04599), Brier score and log loss of probabilities.

    For a program that acts on confidence: sends the unsure to a person, say. The first is the mean
    distance, over bins of equal width, between how sure the model was of its likeliest label and
    how often that was right. It can be 0 for a model that knows nothing; the other two punish that
    too. Needs the probability of every label: of a model with a head, or the likelihood of each
    label as the answer. Where a row may have several labels, each label is a decision of its own.
    Rows of the unknown label, which has no probability, are left out.
    """

    needs: ClassVar[Needs] = "chances"
    higher_is_better: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    kind: Literal["calibration"] = "calibration"
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Bins of equal width between 0 and 1."""

    def names(self) -> tuple[str, ...]:
        return ("calibration_error", "brier", "log_loss")

    def counts(self, judged: Judged) -> "np.ndarray":
        """[decisions, sum of confidence, right] of every bin, then Brier, log loss and how many."""
        wanted = np.array([name in judged.wanted for name in judged.labels], dtype=float)
        found = np.zeros(3 * self.bins + 3)
        if not judged.many and not wanted.any():
            return found
        chances = np.array(judged.chances, dtype=float)
        self._decide(found[:-3].reshape(self.bins, 3), chances, wanted, judged.many)
        held = chances.clip(LEAST, 1 - LEAST)
        if judged.many:
            each = wanted * np.log(held) + (1 - wanted) * np.log(1 - held)
            found[-3:] = ((chances - wanted) ** 2).sum(), -each.sum(), len(chances)
        else:
            found[-3:] = ((chances - wanted) ** 2).sum(), -math.log(held @ wanted), 1
        return found

    def values(self, total: "np.ndarray") -> dict[str, float]:
        brier, loss, count = total[-3:]
        if not count:
            return dict.fromkeys(self.names(), np.nan)
        decisions, confidence, right = total[:-3].reshape(self.bins, 3).T
        error = abs(confidence - right).sum() / decisions.sum()
        found = (float(error), float(brier / count), float(loss / count))
        return dict(zip(self.names(), found, strict=True))

    def note(self) -> str:
        return (
            f"{self.bins} bins of equal width; brier sums over the labels of a row (0 best, 2 "
            "worst), log loss in nats"
        )

    def _decide(
        self, bins: "np.ndarray", chances: "np.ndarray", wanted: "np.ndarray", many: bool
    ) -> None:
        """Put each decision in the bin of its confidence: the likeliest label, or every one."""
        chosen = range(len(chances)) if many else [int(chances.argmax())]
        for label in chosen:
            place = min(int(chances[label] * self.bins), self.bins - 1)
            bins[place] += (1.0, chances[label], wanted[label])
