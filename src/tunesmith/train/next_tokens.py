"""The loss of predicting what comes next, which answers and documents share."""

from typing import TYPE_CHECKING

from tunesmith.core.records import Batch, Loss, Tally

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy


def next_tokens(policy: "Policy", batch: Batch, weight: float) -> Loss:
    """The loss of predicting what comes next, `weight` supervised tokens of it."""
    total = policy.nll(batch)
    return Loss(total, Tally({"loss": (float(total.detach()), weight)}))
