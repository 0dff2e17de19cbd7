"""The transforms of a run, one behind the other: what goes in and comes out of each is counted."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from tunesmith.core.rows import Labelled, Row
from tunesmith.data.transforms.base import Account, Decision, Transform


def chained(
    rows: Iterable[Row],
    steps: Sequence[Transform],
    seed: int,
    tell: Callable[[Decision], object],
    before: dict[str, int],
) -> tuple[Iterable[Row], list[Account]]:
    """The rows as the steps leave them, and what happened in each, filled in as they are read;
    `before` gets what came in."""
    accounts: list[Account] = []
    rows = counting(rows, before)
    for step in steps:
        account = Account(step.kind, before=before, tell=tell)
        rows = counting(step.apply(rows, account, seed), account.after)
        accounts.append(account)
        before = account.after
    return rows, accounts


def counting(rows: Iterable[Row], sizes: dict[str, int]) -> Iterator[Row]:
    """The rows, while their characters and labels are added to the sizes."""
    sizes |= {"characters": 0}
    for row in rows:
        sizes["characters"] += sum(map(len, row.texts()))
        if isinstance(row, Labelled):
            sizes["labels"] = sizes.get("labels", 0) + len(row.labels)
        yield row
