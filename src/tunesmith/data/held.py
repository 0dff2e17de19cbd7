"""What becomes of rows that leak from held-out files: refused, or dropped and accounted for."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import product

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


def held_out(parts: Parts, files: Collection[str]) -> Iterator[tuple[str, list[Sequence[Row]]]]:
    """Each part with what is held out from it, where one of the two has rows of the user's `files`.

    Two parts that are both split off are for `data.split` to keep apart.
    """
    for part, later in LATER:
        others = [name for name in later if name in parts and {part, name} & {*files}]
        if part in parts and others:
            yield part, [parts[name] for name in others]


def refuse_leaks(parts: Parts, files: Collection[str]) -> None:
    """Refuse rows that answer, to the letter, what is held out."""
    for part, others in held_out(parts, files):
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
    parts: Parts,
    files: Collection[str],
    audits: Sequence[Audit],
    room: Room,
    tell: Callable[[Decision], object],
) -> tuple[dict[str, Sequence[Row]], list[Account]]:
    """The parts without rows that any leakage audit calls leaks, and what was dropped."""
    asked = [each for each in audits if isinstance(each, Leakage)] or [Leakage()]
    result, accounts = dict(parts), []
    for part, others in held_out(parts, files):
        found = leaks_of(asked, parts[part], others)
        if not found:
            continue
        account = Account(f"leaks of {part}", tell=tell)
        result[part] = room.again(parts[part], left(parts[part], found, account))
        accounts.append(account)
        if not result[part]:
            raise DataError(
                f"data.leaks: no row of {part} is left ({account}); use other files, or have the "
                "leakage audit look for less"
            )
    return result, accounts


def leaks_of(
    audits: Sequence[Leakage], rows: Sequence[Row], others: Sequence[Sequence[Row]]
) -> dict[int, tuple[str, Origin]]:
    """The places of rows that leak, each with why and from where."""
    found: dict[int, tuple[str, Origin]] = {}
    for audit, each in product(audits, others):
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
