"""Rows about what the law or decency protects: health, beliefs, sex life, origin, minors, abuse."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Labelled, Row
from tunesmith.data.audits.base import Audit, Eye
from tunesmith.data.found import Seen, Sight, report
from tunesmith.data.lexicons import OF_A_PERSON, TOPICS, pattern
from tunesmith.data.seen import seen

if TYPE_CHECKING:
    from tunesmith.model.judge import Judge


class Sensitive(Audit):
    """Topics by our own English word lists, and labels by a classifier of yours.

    A topic is told where the same sentence speaks of a person (`I`, `my`, `the patient`): an
    article about diabetes is nobody's illness. Abuse is told wherever it stands. Word lists are a
    floor: they miss what is implied, and find quotations and denials too. A classifier trained
    with tunesmith on rows like yours does better (measured: docs/decisions/0017-audits.md).
    """

    kind: Literal["sensitive"] = "sensitive"
    classifier: str | None = None
    """The folder of a finished run with a `classify` objective, whose head judges every text."""
    labels: tuple[str, ...] = ()
    """Which of the classifier's labels are told."""
    above: Annotated[float, Field(ge=0, le=1)] = 0.5
    """How sure the classifier must be."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.classifier is None) == bool(self.labels):
            raise ValueError("classifier and labels are said together: name the labels to be told")
        return self

    def files(self) -> tuple[str, ...]:
        """The manifest of the classifier's training, which vouches for all of it."""
        if self.classifier is None:
            return ()
        path = Path(self.classifier) / "train" / "MANIFEST.json"
        return (str(path),) if path.is_file() else ()

    def eye(self) -> Eye:
        """The topics of a row."""
        return lambda row: (
            Sight((topic,)) for topic in TOPICS if any(speaks(topic, text) for text in row.texts())
        )

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each topic and label for each part."""
        for part, rows in parts.items():
            found = seen(rows, self)
            for topic in TOPICS:
                yield from report(
                    "info" if topic == "minors" else "warning",
                    f"rows of {part} with {topic}" + ("" if topic == "abuse" else " of a person"),
                    found.get((topic,)),
                    ADVICE,
                    counts={topic: 1},
                )
        if self.classifier is not None:
            yield from self._judged(parts, Path(self.classifier))

    def _judged(self, parts: Mapping[str, Sequence[Row]], run: Path) -> Iterator[Finding]:
        """What the classifier says of each part."""
        from tunesmith.model.judge import Judge

        judge = Judge(run, self.labels)
        for part, rows in parts.items():
            said = {label: Seen() for label in self.labels}
            left = iter(rows)
            while some := list(islice(left, AT_ONCE)):
                for row, label in called(some, judge, self.above):
                    said[label].add(row)
            for label, found in said.items():
                yield from report(
                    "warning",
                    f"rows of {part} that the classifier calls {label!r}",
                    found,
                    ADVICE,
                    counts={label: found.rows},
                )


ADVICE = "decide whether the model needs them; drop the others, and note why in the data card"
AT_ONCE = 4096
"""Rows whose texts are judged before the next ones are read."""
NEAR = 120
"""Characters before and behind a topic in which a person is looked for."""
ENDS = ".!?\n"


def called(rows: Sequence[Row], judge: "Judge", above: float) -> Iterator[tuple[Row, str]]:
    """Each row with each label that a text of it is surely called."""
    texts = [Labelled((text,), ()) for row in rows for text in row.texts()]
    owners = [place for place, row in enumerate(rows) for _ in row.texts()]
    found = {
        (place, label): None
        for place, chances in zip(owners, judge.chances(texts), strict=True)
        for label, chance in chances.items()
        if chance >= above
    }
    yield from ((rows[place], label) for place, label in found)


def speaks(topic: str, text: str) -> bool:
    """Whether a text speaks of a topic, as somebody's where that is what matters."""
    for match in pattern(TOPICS[topic]).finditer(text):
        if topic == "abuse":
            return True
        start, end = match.span()
        before, behind = text[max(0, start - NEAR) : start], text[end : end + NEAR]
        before = before[max(before.rfind(mark) for mark in ENDS) + 1 :]
        ends = [place for mark in ENDS if (place := behind.find(mark)) >= 0]
        sentence = f"{before} . {behind[: min(ends, default=NEAR)]}"
        if pattern(OF_A_PERSON).search(sentence):
            return True
    return False
