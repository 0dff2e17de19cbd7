"""How likely a model finds the right answers, or documents: summed over tokens, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError
from tunesmith.core.late import late
from tunesmith.core.records import Example, collate
from tunesmith.core.rows import Chat, Text
from tunesmith.model import documents, layout
from tunesmith.model.modes import evaluating
from tunesmith.model.render import encode

if TYPE_CHECKING:
    import torch

    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer
else:
    torch = late("torch")

PASS_TOKENS = 4096
"""Tokens in one pass, padding counted: bounds the memory."""
WINDOW = 1024
"""Tokens of a document that are read together, where the model's context allows it. Windows do
not overlap: a token is predicted from what stands before it in its own window."""


@dataclass(frozen=True)
class Likelihood:
    """Of a row's last answer, its end of turn included, or of a whole document with its end:
    -log p in nats, and how many tokens."""

    row: str
    nll: float
    tokens: int


def likelihoods(
    policy: "Policy",
    rows: Sequence[Chat | Text],
    *,
    batch: int = 16,
    counted: "Tokenizer | None" = None,
) -> Iterator[Likelihood]:
    """Each row's, short rows first. A row's own is the same in whatever batch it comes.

    Tokens are those of `counted` where it is given: models that split text differently can only
    be compared per token of one of them.
    """
    rows = list({row.digest: row for row in rows}.values())
    sizes = {row.digest: count(row, counted) for row in rows} if counted else {}
    cut = sorted((pieces(row, policy) for row in rows), key=length)
    left = {found[0].row: len(found) for found in cut}
    sums = dict.fromkeys(left, 0.0)
    tokens = {found[0].row: sum(e.sequences[0].supervised for e in found) for found in cut} | sizes
    for group in groups([piece for found in cut for piece in found], batch):
        with torch.no_grad(), evaluating(policy.model):
            values = policy.logps(collate(group, policy.device)).double().sum(dim=1)
        for piece, value in zip(group, values.tolist(), strict=True):
            sums[piece.row] -= value
            left[piece.row] -= 1
            if not left[piece.row]:
                yield Likelihood(piece.row, sums[piece.row], tokens[piece.row])


def length(found: Sequence[Example]) -> int:
    """Tokens of a row, all of its windows together."""
    return sum(piece.length for piece in found)


def pieces(row: Chat | Text, policy: "Policy") -> list[Example]:
    """The row's tokens: an answer in one piece, a document in windows."""
    context = layout.context(policy.model)
    if isinstance(row, Text):
        whole = documents.encode(row, policy.tokenizer)
        return documents.windows(whole, min(WINDOW, context or WINDOW))
    example = last_answer(row, policy.tokenizer)
    if context is not None and example.length > context:
        raise DataError(
            f"{row.origin}: the row has {example.length} tokens and this model reads at most "
            f"{context}. Shorten or leave out the row"
        )
    return [example]


def count(row: Chat | Text, tokenizer: "Tokenizer") -> int:
    """How many tokens of the row another tokenizer would have predicted."""
    if isinstance(row, Text):
        return documents.encode(row, tokenizer).sequences[0].supervised
    return last_answer(row, tokenizer).sequences[0].supervised


def last_answer(row: Chat, tokenizer: "Tokenizer") -> Example:
    """The row's tokens, its last answer alone supervised."""
    last = max(i for i, message in enumerate(row.messages) if message.role == "assistant")
    marked = tuple(
        replace(message, train=i == last) if message.role == "assistant" else message
        for i, message in enumerate(row.messages[: last + 1])
    )
    return replace(encode(replace(row, messages=marked), tokenizer), row=row.digest)


def groups(examples: Sequence[Example], batch: int) -> Iterator[list[Example]]:
    """At most `batch` pieces and `PASS_TOKENS` padded tokens at a time, in the order they come."""
    group: list[Example] = []
    longest = 0
    for example in examples:
        longest = max(longest, example.length)
        if group and (len(group) == batch or (len(group) + 1) * longest > PASS_TOKENS):
            yield group
            group, longest = [], example.length
        group.append(example)
    if group:
        yield group
