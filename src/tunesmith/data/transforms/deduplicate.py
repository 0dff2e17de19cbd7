"""Drop rows that say what an earlier row said."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunesmith.core.rows import Origin, Row
from tunesmith.data import meaning, neighbours
from tunesmith.data.prompts import normalised
from tunesmith.data.shelf import listed
from tunesmith.data.transforms.base import Account, Transform

SAME = {"row": "the same as an earlier row", "question": "asks what an earlier row asks"}
ALIKE = {"near": 0.8, "meaning": 0.9}
"""How alike rows are that are dropped, where no threshold is stated."""


class Deduplicate(Transform):
    """Keep the first of equal rows, in the order of sources and lines.

    The first row's weight stays as it is. Rows with one prompt and different answers are not
    equal: the audit `quality` names those. Nor are rows with labels from two sources: the same
    name may mean another thing there. `exact` and `normalised` cost about 250 bytes of memory a
    row kept; `near` 1 kB of disk and 400 bytes of memory a row, and 0.2 ms; `meaning` reads
    every row with the bundled encoder and compares each with each: for up to 100,000 rows.
    """

    kind: Literal["deduplicate"] = "deduplicate"
    match: Literal["exact", "normalised", "near", "meaning"] = "exact"
    """Equal to the byte (`exact`), but for case and spaces (`normalised`), in nearly all of whole
    text and answer (`near`: shared 5-character stretches, MinHash), or in sense (`meaning`: cosine
    of the texts as the bundled encoder reads them, with answers that are nearly equal)."""
    threshold: Annotated[float, Field(gt=0.3, le=1)] | None = None
    """How alike rows are that count as equal, for `near` (0.8, a Jaccard index) and `meaning`
    (0.9, a cosine)."""
    what: Literal["row", "question"] = "row"
    """What is compared: all that a row says, or what it asks alone, so that of several answers to
    one question the first is kept (`exact` and `normalised`)."""
    across: bool = True
    """Whether rows of several sources are compared with each other too."""

    @model_validator(mode="after")
    def threshold_means_something(self) -> "Deduplicate":
        """Rows that are equal have no degree."""
        if self.threshold is not None and self.match not in ALIKE:
            raise ValueError("threshold is for match: near or meaning; leave it out")
        if self.what == "question" and self.match in ALIKE:
            raise ValueError("what: question is for match: exact or normalised")
        return self

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows without those that repeat an earlier one."""
        if self.match in ALIKE:
            return self.unlike(listed(rows), account)
        return self.unequal(rows, account)

    def unequal(self, rows: Iterable[Row], account: Account) -> Iterator[Row]:
        """The rows that equal no earlier one."""
        identity = loose if self.match == "normalised" else strict
        seen: dict[bytes, Origin] = {}
        for row in rows:
            account.taken += 1
            key = identity(row if self.what == "row" else row.question()) + (
                b"" if self.across else row.source.encode()
            )
            if key in seen:
                account.drop(SAME[self.what], row, seen[key])
                continue
            seen[key] = row.origin
            account.kept += 1
            yield row

    def unlike(self, rows: Sequence[Row], account: Account) -> Iterator[Row]:
        """The rows that are nearly the same as no earlier one that is kept."""
        threshold = self.threshold or ALIKE[self.match]
        found = meaning.repeats if self.match == "meaning" else neighbours.repeats
        repeated = dict(found(rows, threshold, across=self.across))
        places = {earlier: rows[earlier].origin for earlier in {*repeated.values()}}
        reason = f"nearly the same as an earlier row ({self.match})"
        for index, row in enumerate(rows):
            account.taken += 1
            if index in repeated:
                account.drop(reason, row, places[repeated[index]])
                continue
            account.kept += 1
            yield row


def strict(row: Row) -> bytes:
    """What a row says, to the byte."""
    return bytes.fromhex(row.digest)[:16] + row.scope.encode()


def loose(row: Row) -> bytes:
    """What a row says, but for case and spaces in its texts."""
    return strict(row.mapped(normalised))
