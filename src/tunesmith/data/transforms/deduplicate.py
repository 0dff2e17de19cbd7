"""Drop rows that say what an earlier row said."""

from collections.abc import Iterable, Iterator
from typing import Literal

from tunesmith.core.rows import Row
from tunesmith.data.prompts import normalised
from tunesmith.data.transforms.base import Account, Transform


class Deduplicate(Transform):
    """Keep the first of equal rows. Costs about 100 bytes of memory a row kept.

    The first row's weight stays as it is. Rows with one prompt and different answers are not
    equal: the audit `quality` names those. Nor are rows with labels from two sources: the same
    name may mean another thing there.
    """

    kind: Literal["deduplicate"] = "deduplicate"
    match: Literal["exact", "normalised"] = "exact"
    """Equal to the byte (`exact`), or but for case and spaces (`normalised`)."""

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows without those that repeat an earlier one."""
        identity = loose if self.match == "normalised" else strict
        seen: set[bytes] = set()
        for row in rows:
            account.taken += 1
            key = identity(row)
            if key in seen:
                account.drop("the same as an earlier row")
                continue
            seen.add(key)
            account.kept += 1
            yield row


def strict(row: Row) -> bytes:
    """What a row says, to the byte."""
    return bytes.fromhex(row.digest)[:16] + row.scope.encode()


def loose(row: Row) -> bytes:
    """What a row says, but for case and spaces in its texts."""
    return strict(row.mapped(normalised))
