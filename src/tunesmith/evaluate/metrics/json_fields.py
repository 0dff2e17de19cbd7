"""How many fields of a JSON answer are right."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.rows import canonical
from tunesmith.evaluate.fields import fields_of
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

MISSING = object()


class JsonFields(Metric):
    """Share of closed fields that equal the reference's, each field apart and all together.

    An answer that is not one JSON object has every field wrong, words around it or not: the
    program that reads it would fail too. A field that is left out is wrong, also where null is
    right.
    """

    mean_of_rows: ClassVar[bool] = True

    kind: Literal["json_fields"] = "json_fields"
    fields: Annotated[list[str], Field(min_length=1)]
    """Names of the fields to compare."""

    def names(self) -> tuple[str, ...]:
        each = (f"field_accuracy.{name}" for name in self.fields)
        return ("field_accuracy", *each, "valid_json")

    def counts(self, judged: Judged) -> "np.ndarray":
        """[right, of each field..., valid, rows]; of several references the best."""
        answer = fields_of(judged.answer)
        right = [self._right(answer or {}, text, judged.row) for text in judged.references]
        best = max(right, key=sum)
        return np.array([*best, answer is not None, 1], dtype=float)

    def values(self, total: "np.ndarray") -> dict[str, float]:
        *right, valid, rows = total
        if not rows:
            return dict.fromkeys(self.names(), np.nan)
        shares = [sum(right) / len(self.fields), *right, valid]
        return {name: 100 * n / rows for name, n in zip(self.names(), shares, strict=True)}

    def _right(self, answer: dict[str, Any], reference: str, row: str) -> list[bool]:
        wanted = fields_of(reference)
        absent = [name for name in self.fields if name not in (wanted or {})]
        if wanted is None or absent:
            what = f"has no field {absent[0]!r}" if wanted is not None else "is not a JSON object"
            raise DataError(
                f"row {row[:12]}: json_fields cannot judge it, its reference {what}. "
                "Correct evaluate.metrics or the row"
            )
        return [same(answer.get(name, MISSING), wanted[name]) for name in self.fields]


def same(given: Any, wanted: Any) -> bool:
    """Equal as JSON: `1` is neither `true` nor `"1"`, which Python's `==` would not all say."""
    return given is not MISSING and canonical(given) == canonical(wanted)
