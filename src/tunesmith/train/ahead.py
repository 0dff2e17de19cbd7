"""Under a model that stays as it is: what it makes of every row, read before the first step.

No step changes it, and none depends on which rows a step happens to put together. The rows that
steps take are read in the numbers of steps; those that are only looked at, exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.core.late import late
from tunesmith.core.log import Log
from tunesmith.core.records import Batch, Example
from tunesmith.model import features
from tunesmith.model.arithmetic import Arithmetic
from tunesmith.model.bases import Base
from tunesmith.model.features import Features
from tunesmith.model.policy import Policy

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def read(
    policy: Policy,
    base: Base,
    examples: Mapping[str, Sequence[Example]],
    cut: Callable[[list[Example]], list[Batch]],
    *,
    kind: Arithmetic,
    log: Log,
) -> None:
    """Have the states of all rows at hand, in batches as `cut` makes them."""
    policy.model.eval()
    exact = policy.features = features.opened(policy, base, log.say)
    rounded = exact if kind == "floats" else features.opened(policy, base, log.say, kind)
    policy.features_of_steps = rounded
    looked_at = [row for part, rows in examples.items() if part != "train" for row in rows]
    for_steps = unread(rounded, examples["train"])
    for_looks = unread(exact, looked_at)
    missing, count = len(for_steps) + len(for_looks), sum(map(len, examples.values()))
    if missing < count:
        log.say(f"train: {count - missing} of {count} rows were read before")
    if not missing:
        return
    parts = [(rows, steps) for rows, steps in ((for_steps, True), (for_looks, False)) if rows]
    found = [(batch, steps) for rows, steps in parts for batch in cut(rows)]
    try:
        with log.progress("reading rows", len(found)) as advance:
            for batch, steps in found:
                with torch.set_grad_enabled(steps):
                    policy.states(batch)
                advance(1)
    finally:
        exact.settle()
        rounded.settle()


def unread(kept: Features, rows: Sequence[Example]) -> list[Example]:
    """The rows whose states are not there yet."""
    return [row for row in rows if not kept.knows(row)]
