"""Rows to probabilities: what a trained head says of texts that it was or was not trained on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.records import Example, collate
from tunesmith.core.rows import Labelled
from tunesmith.model import layout, plain
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

WINDOW = 16
"""Batches that are read ahead, so that rows of one length can be put together."""


def probabilities(
    policy: Policy, rows: Sequence[Labelled], batch: int = 32
) -> Iterator[tuple[str, list[float]]]:
    """Each row's digest and its probability for every label, in the order of `policy.labels`.

    In the rows' order, `batch` texts at a time. Where one label is chosen they add up to 1; labels
    of other tasks than the row's source have none. Raises DataError for a row longer than the
    model's context: nothing is cut.
    """
    head = policy.head
    if head is None:
        raise ValueError("a policy without a head has no labels")
    context = layout.context(policy.model)
    for start in range(0, len(rows), batch * WINDOW):
        examples = [plain.encode(row, policy.tokenizer) for row in rows[start:][: batch * WINDOW]]
        refuse_long(examples, context)
        order = sorted(range(len(examples)), key=lambda i: examples[i].length)
        found: dict[int, list[float]] = {}
        for first in range(0, len(order), batch):
            places = order[first : first + batch]
            together = collate([examples[i] for i in places], policy.device)
            with torch.inference_mode(), evaluating(policy.model):
                scores = head.routed(policy.scores(together), together.sources)
                said = head.probabilities(scores).cpu().tolist()
            found.update(zip(places, said, strict=True))
        yield from ((examples[i].row, found[i]) for i in range(len(examples)))
    if policy.features is not None:
        policy.features.settle()


def refuse_long(examples: Sequence[Example], context: int | None) -> None:
    """Refuse the first row that the model cannot read whole."""
    for example in examples:
        if context is not None and example.length > context:
            raise DataError(
                f"{example.origin}: {example.length} tokens, and the model's context is "
                f"{context}; nothing is cut. Shorten the row, or leave it out"
            )
