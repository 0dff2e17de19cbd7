"""Documents of a few words, and a prepared run of them."""

from pathlib import Path

from tests.trained import WORDS, prepared
from tunesmith.core.folders import RunFolder
from tunesmith.core.rows import Origin, Text


def document(number: int, *, words: int = 12) -> Text:
    """A short text whose words follow from its number."""
    said = [WORDS[(number * k + 3 * k + number) % len(WORDS)] for k in range(1, words + number % 7)]
    return Text(text=" ".join(said) + ".", origin=Origin("texts.jsonl", number + 1))


def prepared_documents(path: Path, *, rows: int = 12, held: int = 3, words: int = 12) -> RunFolder:
    """A run folder whose data stage is finished, with documents in every part."""
    return prepared(path, rows=rows, held=held, row=lambda number: document(number, words=words))
