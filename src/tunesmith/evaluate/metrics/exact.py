"""How many answers equal a reference."""

from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.late import late
from tunesmith.evaluate.fields import named, part_of
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")


class Exact(Metric):
    """Share of answers equal to a reference, character by character.

    For labels, numbers and other closed answers; too strict for free text.
    """

    mean_of_rows: ClassVar[bool] = True

    kind: Literal["exact"] = "exact"
    strip: bool = True
    """Leave white space at both ends out."""
    case: bool = True
    """Upper and lower case differ."""
    field: str | None = None
    """Compare one field of answers that are JSON objects; without it, whole answers."""

    def names(self) -> tuple[str, ...]:
        return (named(self.kind, self.field),)

    def counts(self, judged: Judged) -> "np.ndarray":
        wanted = {self._seen(text) for text in judged.references}
        return np.array([self._seen(judged.answer) in wanted, 1.0])

    def values(self, total: "np.ndarray") -> dict[str, float]:
        return {self.names()[0]: 100 * total[0] / total[1] if total[1] else np.nan}

    def _seen(self, text: str) -> str:
        text = part_of(text, self.field)
        text = text.strip() if self.strip else text
        return text if self.case else text.casefold()
