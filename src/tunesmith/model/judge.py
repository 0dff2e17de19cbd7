"""A finished run's head as a judge of texts: the chance of each label asked for."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tunesmith.core.disk import read_json
from tunesmith.core.errors import SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.quote import listed, quoted
from tunesmith.core.rows import Labelled
from tunesmith.model import layout, plain
from tunesmith.model.classify import probabilities
from tunesmith.model.earlier import base_of
from tunesmith.model.trained import load_trained


class Judge:
    """A classifier that tunesmith trained. A text longer than the model reads is not judged.

    Raises SettingsError for a run without a head or without these labels, IntegrityError for one
    that is damaged.
    """

    def __init__(self, run: Path, labels: Sequence[str]) -> None:
        stage = RunFolder(run).stage("train")
        stage.manifest()
        record = read_json(stage.path / "train.json")
        base = base_of(run, record["base"], record.get("words", []))
        self.policy = load_trained(stage.path, base)
        if self.policy.head is None:
            raise SettingsError(f"{run}: has no head that chooses labels; name another run")
        unknown = [label for label in labels if label not in self.policy.labels]
        if unknown:
            known = listed(self.policy.labels)
            raise SettingsError(f"{run}: has no label {quoted(unknown[0])}; it has {known}")
        self.places = {label: self.policy.labels.index(label) for label in labels}

    def chances(self, rows: Sequence[Labelled]) -> Iterator[Mapping[str, float]]:
        """For each text the chance of each label; none for what is too long or empty."""
        context = layout.context(self.policy.model)
        fits = [self._fits(row, context) for row in rows]
        judged = (
            said
            for _, said in probabilities(
                self.policy, [r for r, f in zip(rows, fits, strict=True) if f]
            )
        )
        for fitting in fits:
            said = next(judged) if fitting else None
            yield {} if said is None else {name: said[p] for name, p in self.places.items()}

    def _fits(self, row: Labelled, context: int | None) -> bool:
        length = plain.encode(row, self.policy.tokenizer).length
        return bool(row.given[0].strip()) and (context is None or length <= context)
