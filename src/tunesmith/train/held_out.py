"""The held-out rows, source by source, and what a look at them measures."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tunesmith.core.records import Batch, Example, Tally
from tunesmith.core.signals import requested
from tunesmith.model.policy import Policy
from tunesmith.train.loop import tallied
from tunesmith.train.objectives.base import Objective


class Asked(Exception):
    """The process was asked to stop in the middle of a look."""


@dataclass(frozen=True)
class Measured:
    """Held-out measures by name: of all rows and, where there are several sources, of each."""

    whole: dict[str, float]
    apart: dict[str, dict[str, float]]


def measured(policy: Policy, objective: Objective, held: Mapping[str, Iterable[Batch]]) -> Measured:
    """One look at all the rows; Asked where somebody waits for the process to end."""
    found = {name: tallied(policy, objective, until_asked(rows)) for name, rows in held.items()}
    apart = {name: tally.means() for name, tally in found.items()} if len(found) > 1 else {}
    return Measured(sum(found.values(), Tally()).means(), apart)


def until_asked(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches; Asked between two of them once the process is to stop."""
    for batch in batches:
        if requested() is not None:
            raise Asked
        yield batch


def by_source(examples: Iterable[Example]) -> Iterator[tuple[str, list[Example]]]:
    """Examples source by source, in the order in which sources are met."""
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.source, []).append(example)
    yield from found.items()
