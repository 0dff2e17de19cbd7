"""How well each label is found, rare ones as much as common ones."""

from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.metrics.base import Judged, Metric, Needs

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


class F1(Metric):
    """F1 of labels: `f1_macro` is the mean over labels, `f1_micro` that of all decisions at once.

    For rows of uneven labels, and for rows with several. A label that no row wants and no answer
    gives is left out of the mean. The report lists the F1 of each label beside what it was taken
    for.
    """

    needs: ClassVar[Needs] = "labels"

    kind: Literal["f1"] = "f1"

    def names(self) -> tuple[str, ...]:
        return ("f1_macro", "f1_micro")

    def counts(self, judged: Judged) -> "np.ndarray":
        """[given and wanted, given, wanted] of every label, label by label within each."""
        given, wanted = marks(judged, judged.given), marks(judged, judged.wanted)
        return np.concatenate([given * wanted, given, wanted])

    def values(self, total: "np.ndarray") -> dict[str, float]:
        both, given, wanted = total.reshape(3, -1)
        met = given + wanted > 0
        if not met.any():
            return dict.fromkeys(self.names(), np.nan)
        macro = f1(both[met], given[met], wanted[met]).mean()
        micro = f1(both.sum(), given.sum(), wanted.sum())
        return {"f1_macro": 100 * float(macro), "f1_micro": 100 * float(micro)}


def marks(judged: Judged, names: tuple[str, ...]) -> "np.ndarray":
    """1 for each label of the row that is among `names`, 0 for the others."""
    return np.array([name in names for name in judged.classes], dtype=float)


def f1(both: "np.ndarray", given: "np.ndarray", wanted: "np.ndarray") -> "np.ndarray":
    """The harmonic mean of precision and recall: 2 x both / (given + wanted)."""
    return np.divide(2 * both, given + wanted)
