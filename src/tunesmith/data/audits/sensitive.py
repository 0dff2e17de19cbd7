"""Rows about what the law or decency protects: health, beliefs, sex life, origin, minors, abuse."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Labelled, Row
from tunesmith.data.audits.base import Audit
from tunesmith.data.found import report
from tunesmith.data.lexicons import OF_A_PERSON, TOPICS, pattern


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

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each topic and label for each part."""
        for part, rows in parts.items():
            for topic in TOPICS:
                yield from report(
                    "info" if topic == "minors" else "warning",
                    f"rows of {part} with {topic}" + ("" if topic == "abuse" else " of a person"),
                    [row for row in rows if any(speaks(topic, text) for text in row.texts())],
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
            texts = [Labelled((text,), ()) for row in rows for text in row.texts()]
            owners = [row for row in rows for _ in row.texts()]
            said: dict[str, dict[int, Row]] = {label: {} for label in self.labels}
            for owner, chances in zip(owners, judge.chances(texts), strict=True):
                for label, chance in chances.items():
                    if chance >= self.above:
                        said[label][id(owner)] = owner
            for label, found in said.items():
                yield from report(
                    "warning",
                    f"rows of {part} that the classifier calls {label!r}",
                    list(found.values()),
                    ADVICE,
                    counts={label: len(found)},
                )


ADVICE = "decide whether the model needs them; drop the others, and note why in the data card"
NEAR = 120
"""Characters before and behind a topic in which a person is looked for."""
ENDS = ".!?\n"


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
