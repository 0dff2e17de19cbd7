"""Labelled texts to ids: as the tokenizer writes them itself, without a chat template.

An encoder's tokenizer knows pairs and puts its own separator between them. Any other is given both
texts as one, a line each.
"""

from collections.abc import Sequence as Many

from tunesmith.core.errors import DataError
from tunesmith.core.records import IGNORE, Example, Label, Sequence
from tunesmith.core.rows import Labelled
from tunesmith.model.tokenizer import Tokenizer


def encode(row: Labelled, tokenizer: Tokenizer, label: Label | None = None) -> Example:
    """A row's texts as one sequence that takes no loss by tokens. DataError where nothing is left
    to read."""
    ids, segments = tokenizer.written(texts(row.given, tokenizer))
    if not ids:
        raise DataError(f"{row.origin}: the text is empty; remove the row")
    sequence = Sequence(
        ids=tuple(ids),
        targets=(IGNORE,) * len(ids),
        segments=tuple(segments) if any(segments) else (),
    )
    return Example(
        (sequence,), row.digest, row.origin, label=label, weight=row.weight, source=row.source
    )


def texts(given: Many[str], tokenizer: Tokenizer) -> list[str]:
    """What is written together: one text, or two where the tokenizer names a separator."""
    pair = len(given) == 2 and "sep_token" in tokenizer.named
    return list(given) if pair else ["\n".join(given)]
