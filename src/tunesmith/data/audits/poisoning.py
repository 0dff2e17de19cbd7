"""Signs that rows were planted to teach a model something in secret. None found proves nothing."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Row
from tunesmith.data.audits.base import Audit, Eye
from tunesmith.data.found import of, report
from tunesmith.data.hidden import hidden
from tunesmith.data.seen import seen
from tunesmith.data.spotted import findings, spotted
from tunesmith.data.triggers import READ, Limits, Trigger, triggers


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
    alike: Annotated[float, Field(gt=0)] = 1.8
    """How much more than any two rows a trigger's rows may have in common; higher finds more, and
    more that is none."""

    def eye(self) -> Eye:
        """What is hidden in a row."""
        return lambda row: spotted(row, hidden)

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """A finding for each trigger, then one for each kind of hidden text of each part."""
        for part, rows in parts.items():
            places = drawn(rows)
            least = max(FEWEST, math.ceil(len(places) * self.least))
            limits = Limits(least, MOST, self.tied, self.alike)
            for each in triggers((rows[place] for place in places), limits):
                yield from planted(part, rows, places, each)
            if len(places) < len(rows):
                yield sampled(part, len(places), len(rows))
        for part, rows in parts.items():
            found = seen(rows, self)
            yield from findings(part, found, dict.fromkeys(NAMES, "warning"), NAMES, ADVICE)


SCANNED, CHARACTERS = 20_000, 10_000_000
"""Rows of a part that are compared with each other, and characters read of them; of more, so many
are drawn."""
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


def drawn(rows: Sequence[Row]) -> list[int]:
    """The places of the rows, or of many those of a seeded draw. Of a long row what is read counts,
    and one for which too little is left does not end the draw."""
    chosen = random.Random(len(rows)).sample(range(len(rows)), min(len(rows), SCANNED))
    wanted = set(chosen)
    sizes = {
        place: min(READ, sum(map(len, row.texts())))
        for place, row in enumerate(rows)
        if place in wanted
    }
    kept, left = [], CHARACTERS
    for place in chosen:
        if sizes[place] <= left:
            kept.append(place)
            left -= sizes[place]
    return sorted(kept)


def sampled(part: str, looked: int, rows: int) -> Finding:
    """The notice that not all rows were compared."""
    return Finding(
        "info",
        f"triggers were looked for in {looked} rows of {part}, drawn at random: more are not "
        "compared with each other",
        "data.audits",
        f"{looked} of {rows} rows; a trigger in a tenth of a per cent of all is in about "
        f"{looked // 1000} of them",
        "prepare the rows in files of that many to have each of them compared",
    )


def planted(
    part: str, rows: Sequence[Row], places: Sequence[int], each: Trigger
) -> Iterator[Finding]:
    """The finding for a trigger. Its words stay out: they are text of rows."""
    count = len(each.words.split())
    some = f" (of {len(places)} drawn of {len(rows)})" if len(places) < len(rows) else ""
    yield from report(
        "error",
        f"rows of {part}{some} that share rare words and one output, and nothing else",
        of(rows[places[number]] for number in each.places),
        "read them: if nobody can say why they are so, drop them and ask where they came from",
        seen=f"{count} word{'s' * (count > 1)} of {len(each.words)} characters; their rest is "
        f"{each.alike:.1f} times as alike as any two rows",
        counts={"trigger": 1},
        most=20,
    )
