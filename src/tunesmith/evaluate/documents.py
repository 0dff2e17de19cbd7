"""What can be measured on documents, which ask nothing and so have no answers."""

from collections.abc import Sequence

from tunesmith.core.errors import SettingsError
from tunesmith.core.rows import Row, Text
from tunesmith.evaluate.likelihood import WINDOW
from tunesmith.evaluate.metrics.base import Metric

NOTE = (
    f"documents are read in windows of at most {WINDOW} tokens, or of the model's context, that do "
    "not overlap; every token but a document's first counts, its end of sequence too"
)


def refuse_unfit(metrics: Sequence[Metric], rows: Sequence[Row]) -> None:
    """Refuse metrics that need an answer where documents are read."""
    unfit = [metric.kind for metric in metrics if metric.needs != "likelihood"]
    if unfit and any(isinstance(row, Text) for row in rows):
        raise SettingsError(
            f"evaluate.metrics: {', '.join(unfit)}: documents have no answers to judge. Use: "
            "metrics: [perplexity]"
        )
