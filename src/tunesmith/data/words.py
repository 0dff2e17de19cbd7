"""In how many pieces the words of the rows are read, before new words are added and after."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tunesmith.core.quote import printable
from tunesmith.core.rows import Row
from tunesmith.model.tokenizer import Tokenizer

WORD = re.compile(r"[^\W\d_]{8,}")
"""A word long enough to be a term of the field."""
MOST = 2000
"""Words of the rows that are looked at, the commonest long ones."""
SHOWN = 5
"""Words named that still cost the most."""


def told(
    added: Sequence[str], rows: Iterable[Row], before: Tokenizer, after: Tokenizer
) -> Iterator[str]:
    """A line for each added word, one for the long words of the rows, and the costliest left."""
    for word in added:
        first, then = pieces(word, before), pieces(word, after)
        yield f"  {printable(word)}: {first} pieces, now {then}"
    counts = common(rows)
    total = sum(counts.values())
    if total:
        ends = [sum(pieces(w, by) * n for w, n in counts.items()) / total for by in (before, after)]
        yield (
            f"the {len(counts)} commonest long words of the rows: {ends[0]:.3f} pieces a word, now "
            f"{ends[1]:.3f}"
        )
    left = [f"{printable(word)} ({pieces(word, after)})" for word in costly(counts, after)[:SHOWN]]
    if left:
        yield f"what costs the most pieces yet: {', '.join(left)}"


def costly(counts: Mapping[str, int], tokenizer: Tokenizer) -> list[str]:
    """The words that are several pieces, those first that would save the most as one."""
    saved = {word: (pieces(word, tokenizer) - 1) * times for word, times in counts.items()}
    return sorted((word for word in saved if saved[word]), key=lambda word: (-saved[word], word))


def pieces(word: str, tokenizer: Tokenizer) -> int:
    """Pieces of a word as it stands within a sentence."""
    return len(tokenizer.encode(f" {word.strip()}", "inside"))


def common(rows: Iterable[Row]) -> dict[str, int]:
    """The commonest long words, each with how often it is there."""
    found = Counter(word for row in rows for text in row.texts() for word in WORD.findall(text))
    return dict(found.most_common(MOST))
