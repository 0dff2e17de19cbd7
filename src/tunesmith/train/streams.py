"""Streams of groups to train on: what the loop draws from, and a checkpoint carries."""

from collections.abc import Iterator
from typing import Any, Protocol

from tunesmith.core.records import Batch

Group = list[Batch]
"""The micro-batches of one optimiser step."""


class Stream(Protocol):
    """Groups to train on, with a state that a checkpoint carries."""

    def __iter__(self) -> Iterator[Group]: ...
    def __next__(self) -> Group: ...
    def state(self) -> dict[str, Any]:
        """JSON values and tensors from which `restore` goes on."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where the stream that gave `state` stood."""


class PassThrough:
    """The stream of an objective that trains on its rows as they come. It has no state."""

    def __init__(self, groups: Iterator[Group]) -> None:
        self.groups = groups

    def __iter__(self) -> Iterator[Group]:
        return self

    def __next__(self) -> Group:
        return next(self.groups)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass
