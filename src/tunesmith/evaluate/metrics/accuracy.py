"""How many rows are given the right label."""

from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric, Needs

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


class Accuracy(Metric):
    """Share of rows whose label is right; where a row may have several, all of them and no other.

    The plainest measure, and a blind one where most rows have the same label: look at f1 too.
    """

    needs: ClassVar[Needs] = "labels"
    mean_of_rows: ClassVar[bool] = True

    kind: Literal["accuracy"] = "accuracy"

    def counts(self, judged: Judged) -> "np.ndarray":
        return np.array([set(judged.given) == set(judged.wanted), 1], dtype=float)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        right, rows = total
        return {self.kind: 100 * right / rows if rows else np.nan}
