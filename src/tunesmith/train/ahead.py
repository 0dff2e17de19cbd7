"""Under a model that stays as it is: what it makes of every row, read before the first step.

No step changes it, and none depends on which rows a step happens to put together.
"""

from collections.abc import Callable, Sequence

from tunesmith.core.log import Log
from tunesmith.core.records import Batch, Example
from tunesmith.model import features
from tunesmith.model.bases import Base
from tunesmith.model.policy import Policy


def read(
    policy: Policy,
    base: Base,
    rows: Sequence[Example],
    cut: Callable[[list[Example]], list[Batch]],
    *,
    log: Log,
) -> None:
    """Have the states of all rows at hand, in batches as `cut` makes them."""
    policy.model.eval()
    kept = policy.features = features.opened(policy, base, log.say)
    unread = [row for row in rows if not kept.knows(row)]
    if len(unread) < len(rows):
        log.say(f"train: {len(rows) - len(unread)} of {len(rows)} rows were read before")
    if not unread:
        return
    found = cut(unread)
    try:
        with log.progress("reading rows", len(found)) as advance:
            for batch in found:
                policy.states(batch)
                advance(1)
    finally:
        kept.settle()
