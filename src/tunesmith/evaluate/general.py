"""General perplexity: what tuning on one field did to text about everything else."""

from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from tunesmith.core.disk import file_digest
from tunesmith.core.errors import DataError
from tunesmith.core.rows import Row, Text
from tunesmith.core.tables import read
from tunesmith.evaluate import compare
from tunesmith.evaluate.likelihood import Likelihood
from tunesmith.evaluate.metrics.base import Judged
from tunesmith.evaluate.metrics.perplexity import Perplexity

BUNDLED = "bundled"
NONE = "none"
NAME = "general_perplexity"


def chosen(said: str | None, rows: Sequence[Row], *, replayed: bool = False) -> str:
    """What is read: as said, and where nothing is, our own text where documents are judged or text
    is replayed, since then it matters what becomes of the rest."""
    if said is not None:
        return said
    return BUNDLED if replayed or any(isinstance(row, Text) for row in rows) else NONE


def texts(choice: str) -> list[Text]:
    """The general text, a row for each record's `text`."""
    if choice == NONE:
        return []
    if choice == BUNDLED:
        with as_file(files("tunesmith").joinpath("examples/general.jsonl")) as path:
            return of_file(path)
    return of_file(Path(choice))


def of_file(path: Path) -> list[Text]:
    """The `text` of every record."""
    found = []
    for record in read(path):
        text = record.fields.get("text")
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{record.origin}: evaluate.general: a general text is a record with words under "
                "`text`; correct the record, or name another file"
            )
        found.append(Text(text=text, origin=record.origin))
    return found


def inputs(choice: str) -> dict[str, str]:
    """What the numbers depend on beside the name of the file."""
    if choice in (BUNDLED, NONE):
        return {"evaluate.general": choice}
    if not Path(choice).is_file():
        raise DataError(
            f"evaluate.general: {choice} is no file; name one of `text` records, "
            f"`{BUNDLED}` or `{NONE}`"
        )
    return {"evaluate.general": "file", "digest of the general text": file_digest(Path(choice))}


def added(
    compared: compare.Comparison,
    arms: Mapping[str, Mapping[str, Likelihood]],
    *,
    draws: int,
    seed: int,
) -> compare.Comparison:
    """The comparison with the perplexity of the general text beside its own measures."""
    if not all(arms.values()):
        return compared
    order = sorted(next(iter(arms.values())))  # An interval must not depend on what came first.
    judged = {arm: [judgement(found[row]) for row in order] for arm, found in arms.items()}
    general = compare.compare([Perplexity()], judged, draws=draws, seed=seed)
    values = {
        arm: found | {NAME: general.arms[arm][Perplexity().kind]}
        for arm, found in compared.arms.items()
    }
    change = compared.difference | {NAME: general.difference[Perplexity().kind]}
    return compare.Comparison(values, change)


def judgement(likely: Likelihood) -> Judged:
    """A text as the metric sees it."""
    return Judged(likely.row, "", "", (), nll=likely.nll, tokens=likely.tokens)


def note(choice: str, arms: Mapping[str, Mapping[str, Likelihood]]) -> dict[str, str]:
    """What was read, for the report."""
    found = next(iter(arms.values()), {})
    if not found:
        return {}
    tokens = sum(each.tokens for each in found.values())
    what = "the text that comes with tunesmith" if choice == BUNDLED else Path(choice).name
    return {NAME: f"{what}, {len(found)} texts of {tokens} tokens: what the run did not train on"}
