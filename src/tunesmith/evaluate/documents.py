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


def fitting(metrics: list[Metric], rows: Sequence[Row]) -> list[Metric]:
    """The metrics that the rows allow: on documents, those that need no answer."""
    if not any(isinstance(row, Text) for row in rows):
        return metrics
    found = [metric for metric in metrics if metric.needs == "likelihood"]
    if not found:
        raise SettingsError(
            f"evaluate.metrics: {', '.join(metric.kind for metric in metrics)} judge answers, and "
            "documents have none. Use: metrics: [perplexity]"
        )
    return found
