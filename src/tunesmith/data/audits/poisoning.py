"""Signs that rows were planted to teach a model something in secret. None found proves nothing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.found import report
from tunesmith.data.hidden import hidden
from tunesmith.data.spotted import findings, spotted
from tunesmith.data.triggers import Limits, Trigger, triggers


class Poisoning(Audit):
    """Rare words that go with one output wherever they stand, invisible and misleading characters,
    control tokens, and base64.

    Found: a fixed word or phrase put into at least five rows, and a tenth of a per cent of them,
    that otherwise have nothing in common (measured: docs/decisions/0017-audits.md). Missed: fewer
    rows, parts of fewer than 250 rows, triggers that are a style or a topic, and rows whose label
    is right for their text.
    Never take a quiet audit for proof.
    """

    kind: Literal["poisoning"] = "poisoning"
    least: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Rows that must have a trigger, as a share of their part; never fewer than five."""
    tied: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    """How many of a trigger's rows must have the same output."""
    alike: Annotated[float, Field(gt=0)] = 1.6
    """How much more than any two rows a trigger's rows may have in common; higher finds more, and
    more that is none."""

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """A finding for each trigger, then one for each kind of hidden text of each part."""
        for part, rows in parts.items():
            least = max(FEWEST, math.ceil(len(rows) * self.least))
            limits = Limits(least, MOST, self.tied, self.alike)
            for each in triggers(rows, limits):
                yield from planted(part, rows, each)
        for part, rows in parts.items():
            found = spotted(rows, hidden)
            yield from findings(part, found, dict.fromkeys(NAMES, "warning"), NAMES, ADVICE)


FEWEST = 5
MOST = 0.02
"""Share of the rows above which words are no longer rare."""
NAMES = {
    "invisible": "invisible characters",
    "direction": "characters that reorder the text shown",
    "tags": "text in tag characters, which nothing shows",
    "lookalike": "words with letters of another alphabet that look like theirs",
    "control_token": "a model's control tokens as text",
    "base64": "a long stretch of base64",
}
ADVICE = "look at them; state data.transforms: [normalise] where they are no more than dirt"


def planted(part: str, rows: Sequence[Row], each: Trigger) -> Iterator[Finding]:
    """The finding for a trigger. Its words stay out: they are text of rows."""
    count = len(each.words.split())
    yield from report(
        "error",
        f"rows of {part} that share rare words and one output, and nothing else",
        [rows[place] for place in each.places],
        "read them: if nobody can say why they are so, drop them and ask where they came from",
        seen=f"{count} word{'s' * (count > 1)} of {len(each.words)} characters; their rest is "
        f"{each.alike:.1f} times as alike as any two rows",
        counts={"trigger": 1},
        most=20,
    )
