"""What is checked before the first step and after the second: mistakes a loss curve would hide."""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, TrainError
from tunesmith.core.late import late
from tunesmith.core.log import Log
from tunesmith.core.quote import quoted
from tunesmith.core.records import IGNORE, Example, collate
from tunesmith.model import newrows, vocabulary
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy
from tunesmith.train.objectives.base import Objective

if TYPE_CHECKING:
    import torch

    from tunesmith.model.tokenizer import Tokenizer
else:
    torch = late("torch")

LEAST_SHARE = 0.01
"""Under this share of trained tokens a mask is more likely wrong than meant."""
TOLERANCE = 1e-4
"""Relative difference allowed between the fast seams and the model's own loss, in fp32."""


def rows(
    policy: Policy,
    objective: Objective,
    examples: Sequence[Example],
    replayed: Collection[str],
    *,
    log: Log,
) -> dict[str, Any]:
    """What there is to learn from, in tokens or in labels; no row of a `replayed` source is the
    task's."""
    if objective.scores:
        return {"tokens": sum(e.length for e in examples), "labels": len(policy.labels)}
    facts = tokens(examples, policy.tokenizer)
    if objective.chats:
        own = [e for e in examples if e.source not in replayed]
        facts |= stopping(own, policy.tokenizer, log)
    return facts


def tokens(examples: Sequence[Example], tokenizer: "Tokenizer") -> dict[str, Any]:
    """Counts of trained tokens, with one row's trained span decoded; refuses an empty mask."""
    total = sum(e.length for e in examples)
    trained = sum(s.supervised for e in examples for s in e.sequences)
    if trained < LEAST_SHARE * total:
        raise DataError(
            f"only {trained} of {total} tokens would be trained (under {LEAST_SHARE:.0%}). Look "
            "at the rows with: tunesmith data RUN.yaml --show 3"
        )
    first = examples[0].sequences[0]
    span = [t for t in first.targets if t != IGNORE]
    return {
        "tokens": total,
        "trained_tokens": trained,
        "trained_share": trained / total,
        "sample": tokenizer.decode(span, special=True),
        "sample_row": str(examples[0].origin),
    }


def loss(policy: Policy, objective: Objective, example: Example) -> dict[str, float]:
    """The first loss by the fast seams and by the model's own forward pass, which must agree."""
    batch = collate([example], policy.device)
    tokenizer, method, head = policy.tokenizer, policy.method, policy.head
    plain = Policy(policy.model, tokenizer, method=method, head=head, fast=False)
    with torch.no_grad(), evaluating(policy.model):
        fast = float(objective.loss(policy, batch).total)
        slow = float(objective.loss(plain, batch).total)
    bound = TOLERANCE if policy.dtype == torch.float32 else 0.05
    if not math.isfinite(fast) or abs(fast - slow) > bound * max(1.0, abs(slow)):
        raise TrainError(
            f"step 0: the fast path gives a loss of {fast:.6f} where the model itself gives "
            f"{slow:.6f}. Train with train.seams=reference, and please report this model"
        )
    count = float(objective.weight(batch))
    return {"loss": fast / count, "difference": abs(fast - slow) / count}


def stopping(examples: Sequence[Example], tokenizer: "Tokenizer", log: Log) -> dict[str, bool]:
    """Say so when answers are not trained to end with a token at which serving stops."""
    span = [t for t in examples[0].sequences[0].targets if t != IGNORE]
    stops = span[-1] in tokenizer.stop_ids
    if not stops:
        log.say(
            "warning: answers are not trained to end with a token at which serving stops; the "
            "tuned model may not stop. Look at the chat template's end of turn"
        )
    return {"ends_with_stop": stops}


def words(policy: Policy, examples: Sequence[Example], log: Log) -> None:
    """Say which new words no row trains: their rows stay what their pieces made them."""
    new = vocabulary.added(policy.model)
    seen = {number for e in examples for s in e.sequences for number in s.ids} if new else set()
    absent = [policy.tokenizer.decode([number]) for number in new if number not in seen]
    if absent:
        log.say(
            f"warning: {len(absent)} of {len(new)} new forms of words are in no training row, "
            f"first {quoted(absent[0])}; they are not trained as input"
        )


class Moved:
    """Holds what is trainable at the start, and refuses a run in which some of it never moves."""

    def __init__(self, policy: Policy) -> None:
        # The row of a new word waits for the word; see `words`.
        waiting = {id(rows) for rows in newrows.parameters(policy.model)}
        named = [(n, p) for n, p in policy.named() if id(p) not in waiting]
        self.before = {n: p.detach().clone() for n, p in named if p.requires_grad}

    def check(self, policy: Policy, number: int) -> None:
        """After `number` steps."""
        named = dict(policy.named())
        still = [n for n, old in self.before.items() if torch.equal(old, named[n].detach())]
        if still:
            raise TrainError(
                f"step {number}: {len(still)} trainable tensors have not moved "
                f"(the first is {still[0]}). Is train.lr zero, or are they unused by the model?"
            )
        self.before = {}
