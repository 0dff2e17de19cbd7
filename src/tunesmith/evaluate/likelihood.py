"""How likely a model finds the right answers: summed over tokens, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.records import Example, collate
from tunesmith.core.rows import Chat
from tunesmith.model import layout
from tunesmith.model.render import encode

if TYPE_CHECKING:
    import torch

    from tunesmith.model.policy import Policy
else:
    torch = late("torch")

PASS_TOKENS = 4096
"""Tokens in one pass, padding counted: bounds the memory."""


@dataclass(frozen=True)
class Likelihood:
    """Of a row's last answer, its end of turn included: -log p in nats, and how many tokens."""

    row: str
    nll: float
    tokens: int


def likelihoods(policy: "Policy", rows: Sequence[Chat], *, batch: int = 16) -> Iterator[Likelihood]:
    """Each row's, short rows first. A row's own is the same in whatever batch it comes."""
    from tunesmith.model.policy import evaluating

    examples = sorted((last_answer(row, policy) for row in rows), key=lambda e: e.length)
    for group in groups(examples, batch):
        with torch.no_grad(), evaluating(policy.model):
            found = collate(group, policy.device)
            sums = policy.logps(found).double().sum(dim=1)
        for example, total in zip(group, sums.tolist(), strict=True):
            yield Likelihood(example.row, -total, example.sequences[0].supervised)


def last_answer(row: Chat, policy: "Policy") -> Example:
    """The row's tokens, its last answer alone supervised."""
    last = max(i for i, message in enumerate(row.messages) if message.role == "assistant")
    marked = tuple(
        replace(message, train=i == last) if message.role == "assistant" else message
        for i, message in enumerate(row.messages[: last + 1])
    )
    example = encode(replace(row, messages=marked), policy.tokenizer)
    context = layout.context(policy.model)
    if context is not None and example.length > context:
        raise DataError(
            f"{row.origin}: the row has {example.length} tokens and this model reads at most "
            f"{context}. Shorten or leave out the row"
        )
    return replace(example, row=row.digest)


def groups(examples: Sequence[Example], batch: int) -> Iterator[list[Example]]:
    """At most `batch` rows and `PASS_TOKENS` padded tokens at a time; `examples` by length."""
    group: list[Example] = []
    for example in examples:
        if group and (len(group) == batch or (len(group) + 1) * example.length > PASS_TOKENS):
            yield group
            group = []
        group.append(example)
    if group:
        yield group
