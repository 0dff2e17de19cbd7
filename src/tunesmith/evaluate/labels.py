"""The labels a model chooses among, as its head or training rows name them, and a row's own."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunesmith.core.errors import DataError
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Labelled, canonical
from tunesmith.model.heads import Meaning

LabelRow = Chat | Labelled
"""The rows that can be judged by label: with a label, or a conversation that ends in one."""


@dataclass(frozen=True)
class Labels:
    """The names of all labels, how answers spell them, and what share of training rows has each.

    `unknown` is the label of rows that are none of the others; it may be among `names`. With
    `many` a row has any number of labels.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    shares: tuple[float, ...]
    unknown: str | None = None
    many: bool = False
    tasks: tuple[str, ...] = ()
    """The task of each label, where each source has a head of its own."""

    def among(self, row: LabelRow) -> list[float]:
        """The share of training rows with each label; only labels of the row's task have one."""
        if not self.tasks:
            return list(self.shares)
        return [s * (t == row.source) for s, t in zip(self.shares, self.tasks, strict=True)]

    @property
    def untaught(self) -> bool:
        """Whether the unknown is in no training row, so that only a threshold can tell it."""
        return self.unknown is not None and self.unknown not in self.names

    def check(self, rows: Iterable[LabelRow], source: str) -> None:
        """Refuse a row with a label that no model could give; `source` says where labels are
        from."""
        known = {*self.names, self.unknown}
        for row in rows:
            for name in labels_of(row):
                if name not in known:
                    raise DataError(
                        f"{row.origin}: the label {quoted(name)} is not among the {len(self.names)}"
                        f" of {source}, so no model could give it; correct it, add it there, or "
                        "name it as evaluate.unknown if it means none of them"
                    )

    def answer(self, given: Sequence[str]) -> str:
        """Labels as an answer spells them."""
        if self.many:
            return canonical(list(given))
        spelled = dict(zip(self.names, self.texts, strict=True))
        return "".join(spelled.get(name, name) for name in given)

    def likeliest(self, chances: Sequence[float], threshold: float | None = None) -> list[str]:
        """The labels that these probabilities mean: those above one half where there may be many;
        else the largest, or the unknown where the largest is under the threshold."""
        if self.many:
            return [name for name, p in zip(self.names, chances, strict=True) if p >= 0.5]
        best = max(range(len(chances)), key=chances.__getitem__)
        if self.unknown is not None and threshold is not None and chances[best] < threshold:
            return [self.unknown]
        return [self.names[best]]


def labels_of(row: LabelRow) -> tuple[str, ...]:
    """The labels a row has."""
    return row.labels if isinstance(row, Labelled) else (row.answer().strip(),)


def learned(rows: Sequence[Chat], unknown: str | None = None) -> Labels:
    """The answers of training rows, in the order of the alphabet. Space around one is its
    spelling, not its name."""
    spelled: dict[str, str] = {}
    for row in rows:
        spelled.setdefault(row.answer().strip(), row.answer())
    names = tuple(sorted(spelled))
    counts = Counter(row.answer().strip() for row in rows)
    return Labels(
        names=names,
        texts=tuple(spelled[name] for name in names),
        shares=tuple(counts[name] / len(rows) for name in names),
        unknown=unknown,
    )


def headed(outputs: Meaning, rows: Sequence[LabelRow], unknown: str | None = None) -> Labels:
    """The labels that a trained head chooses among, in its order: it may know some that no
    training row has, and choose several where each row had one."""
    counts = Counter(name for row in rows for name in labels_of(row))
    sizes = Counter(row.source for row in rows)
    tasks = outputs.tasks or ("",) * len(outputs.labels)
    return Labels(
        names=outputs.labels,
        texts=outputs.labels,
        shares=tuple(
            counts[name] / (sizes[task] if task else len(rows))
            for name, task in zip(outputs.labels, tasks, strict=True)
        ),
        unknown=unknown,
        many=outputs.many,
        tasks=outputs.tasks,
    )


def listed(texts: Sequence[str], unknown: str | None = None) -> Labels:
    """The labels that a run file lists as choices, in its order."""
    names = tuple(text.strip() for text in texts)
    return Labels(names, tuple(texts), shares=(0.0,) * len(names), unknown=unknown)


def threshold(
    labels: Labels, rows: Sequence[LabelRow], chances: Sequence[Sequence[float]]
) -> float:
    """The threshold on the largest probability that makes most of `rows` right, those of the
    unknown among them. Of several the lowest; it lies half-way between two rows."""
    seen = sorted(
        (max(found), labels.likeliest(found)[0] == labels_of(row)[0], labels_of(row)[0])
        for row, found in zip(rows, chances, strict=True)
    )
    right = sum(known for _, known, _ in seen)
    best, chosen = right, 0.0
    for place, (largest, known, wanted) in enumerate(seen):
        right += (wanted == labels.unknown) - known
        above = seen[place + 1][0] if place + 1 < len(seen) else 1.0 + largest
        if right > best and above > largest:
            best, chosen = right, (largest + above) / 2
    return chosen
