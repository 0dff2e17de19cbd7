"""Documents to tokens: every token is a target, and windows lose none and repeat none."""

from dataclasses import replace

from tunesmith.core.errors import DataError
from tunesmith.core.records import IGNORE, Example
from tunesmith.core.records import Sequence as Ids
from tunesmith.core.rows import Text
from tunesmith.model.render import placed
from tunesmith.model.tokenizer import Tokenizer


def encode(row: Text, tokenizer: Tokenizer) -> Example:
    """The document as the tokenizer begins a text, with its end of sequence after it.

    Every token is a target but the first, which nothing stands before.
    """
    with placed(row.origin):
        words = tokenizer.encode(row.text)
        if not words:
            raise DataError("the document is empty; remove it")
        ids = (*tokenizer.opening, *words, tokenizer.closing)
    sequence = Ids(ids, (*ids[1:], IGNORE))
    return Example((sequence,), row.digest, row.origin, weight=row.weight)


def windows(example: Example, length: int) -> list[Example]:
    """The document in as few windows of at most `length` tokens as it takes, about equally long.

    The last position of a window predicts the first token of the next, which begins there without
    what came before. Equal windows, since a short last one would be read nearly without context.
    """
    (whole,) = example.sequences
    if len(whole.ids) <= length:
        return [example]
    size = len(whole.ids) - 1  # The end of sequence predicts nothing.
    count = -(-size // length)
    borders = [size * number // count for number in range(count + 1)]
    return [
        replace(example, sequences=(Ids(whole.ids[low:high], whole.targets[low:high]),))
        for low, high in zip(borders, borders[1:], strict=False)
    ]
