"""Whether a model knows what it was not taught to answer."""

from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric, Needs

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


class Scope(Metric):
    """Accuracy on rows of known labels, and share of the other rows that are recognised as such.

    The protocol of CLINC150 (arXiv 1909.02027); needs `evaluate.unknown`. A threshold moves one
    against the other, so read them together.
    """

    needs: ClassVar[Needs] = "labels"
    needs_unknown: ClassVar[bool] = True

    kind: Literal["scope"] = "scope"

    def names(self) -> tuple[str, ...]:
        return ("in_scope_accuracy", "out_of_scope_recall")

    def counts(self, judged: Judged) -> "np.ndarray":
        """[right in scope, rows in scope, right out of it, rows out of it]."""
        right, out = judged.given == judged.wanted, judged.unknown in judged.wanted
        return np.array([right and not out, not out, right and out, out], dtype=float)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        pairs = (total[:2], total[2:])
        shares = [100 * float(right / rows) if rows else np.nan for right, rows in pairs]
        return dict(zip(self.names(), shares, strict=True))
