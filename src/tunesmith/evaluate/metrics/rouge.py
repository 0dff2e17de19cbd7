"""ROUGE, by rouge-score."""

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.core.late import late
from tunesmith.evaluate.fields import named, part_of
from tunesmith.evaluate.metrics.base import Judged, Metric

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

Type = Literal["rouge1", "rouge2", "rougeL"]
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese: no space between words."""
WORDS = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


class Rouge(Metric):
    """Mean F-score over rows of shared words: single, pairs, or the longest common sequence.

    For summaries and free text. Latin text gives rouge-score's own numbers. Its tokens know Latin
    letters and digits only and score identical Chinese or Russian 0, so a row whose references are
    in another script is cut into words, or characters where words are not spaced.
    """

    mean_of_rows: ClassVar[bool] = True

    kind: Literal["rouge"] = "rouge"
    types: Annotated[list[Type], Field(min_length=1)] = ["rougeL"]
    """Which to report, the main one first."""
    stem: bool = False
    """Compare word stems (Porter, English)."""
    field: str | None = None
    """Compare one field of answers that are JSON objects; without it, whole answers."""

    def names(self) -> tuple[str, ...]:
        return tuple(named(kind, self.field) for kind in self.types)

    def counts(self, judged: Judged) -> "np.ndarray":
        """[F of each type..., 1]; of several references the best, type by type."""
        references = [part_of(text, self.field) for text in judged.references]
        plain = all(is_latin(text) for text in references)
        found = scorer(tuple(self.types), self.stem, plain).score_multi(
            references, part_of(judged.answer, self.field)
        )
        return np.array([*(found[kind].fmeasure for kind in self.types), 1.0])

    def values(self, total: "np.ndarray") -> dict[str, float]:
        *sums, rows = total
        means = [100 * found / rows if rows else np.nan for found in sums]
        return dict(zip(self.names(), means, strict=True))

    def note(self) -> str:
        from importlib.metadata import version

        return f"rouge-score {version('rouge-score')}, mean F, {'' if self.stem else 'not '}stemmed"


@cache
def scorer(types: tuple[str, ...], stem: bool, plain: bool) -> Any:
    """rouge-score's scorer, with its own tokens for plain Latin text and ours for the rest."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(types), use_stemmer=stem, tokenizer=None if plain else Words())


class Words:
    """Words of any script, as rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case; each character of scripts that put no space between words."""
        return WORDS.findall(unicodedata.normalize("NFKC", text).lower())


def is_latin(text: str) -> bool:
    """Whether every letter is Latin."""
    return all(not c.isalpha() or "LATIN" in unicodedata.name(c, "") for c in set(text))
