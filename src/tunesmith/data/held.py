"""What becomes of rows that leak from held-out files: refused, or dropped and accounted for."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from tunesmith.core.errors import DataError
from tunesmith.core.quote import visible
from tunesmith.core.rows import Origin, Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.audits.leakage import Leakage
from tunesmith.data.leaks import answered
from tunesmith.data.room import Room
from tunesmith.data.transforms.base import Account, Decision

Parts = Mapping[str, Sequence[Row]]
LATER = (("train", ("valid", "test")), ("valid", ("test",)))
"""A part, and those that hold out from it."""


def held_out(parts: Parts) -> Iterator[tuple[str, list[Sequence[Row]]]]:
    """Each part with what is held out from it.

    Only held-out files of the user's can bring leaks: our own split keeps such rows together.
    """
    for part, later in LATER:
        if part in parts:
            yield part, [parts[name] for name in later if name in parts]


def refuse_leaks(parts: Parts) -> None:
    """Refuse rows that answer, to the letter, what is held out."""
    for part, others in held_out(parts):
        rows = parts[part]
        found: dict[int, Origin] = {}
        for each in others:
            for place, other in answered(rows, each)[0]:
                found.setdefault(place, each[other].origin)
        if found:
            first = min(found)
            raise DataError(
                f"{visible(rows[first].origin)}: this row answers the prompt of "
                f"{visible(found[first])}, which is held out (such rows of {part}: {len(found)}); "
                "remove them, or state data.leaks: drop"
            )


def without_leaks(
    parts: Parts, audits: Sequence[Audit], room: Room, tell: Callable[[Decision], object]
) -> tuple[dict[str, Sequence[Row]], list[Account]]:
    """The parts without rows that leak from a later part, and what was dropped."""
    audit = next((each for each in audits if isinstance(each, Leakage)), Leakage())
    result, accounts = dict(parts), []
    for part, others in held_out(parts):
        if found := leaks_of(audit, parts[part], others):
            account = Account(f"leaks of {part}", tell=tell)
            result[part] = room.again(parts[part], left(parts[part], found, account))
            accounts.append(account)
        if not result[part]:
            raise DataError(f"every row of {part} answers a held-out prompt; use other files")
    return result, accounts


def leaks_of(
    audit: Leakage, rows: Sequence[Row], others: Sequence[Sequence[Row]]
) -> dict[int, tuple[str, Origin]]:
    """The places of rows that leak, each with why and from where."""
    found: dict[int, tuple[str, Origin]] = {}
    for each in others:
        for way, leaks in audit.leaks(rows, each):
            for place, other in leaks:
                found.setdefault(place, (way.why, each[other].origin))
    return found


def left(
    rows: Sequence[Row], gone: Mapping[int, tuple[str, Origin]], account: Account
) -> Iterator[Row]:
    """The rows without those found to leak, which the account gets."""
    for place, row in enumerate(rows):
        account.taken += 1
        if place in gone:
            why, other = gone[place]
            account.drop(why, row, other)
            continue
        account.kept += 1
        yield row
