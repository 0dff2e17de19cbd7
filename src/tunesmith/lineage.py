"""Which runs were trained on a row: by its digest, by a file of rows, or by words in it."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.disk import read_json
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.quote import visible
from tunesmith.core.rows import row_from
from tunesmith.data.prompts import normalised
from tunesmith.data.source import Reading, rows
from tunesmith.data.stated import forms_of

DIGEST = re.compile("[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Seen:
    """A run that was trained on rows asked for, itself or through the run it started from."""

    run: str
    """Its name; of a training put away, its folder in the run's."""
    rows: tuple[str, ...]
    """Digests of those rows; none where only an earlier run saw them."""
    through: str
    """The earlier run whose model it started from, where that one saw them."""
    models: tuple[str, ...]
    """What an erasure touches: the trained folder and every export."""

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """What a run keeps of the rows that it was trained on."""

    run: str
    """The run's name; of a training put away, its folder in the run's."""
    folder: Path
    """The folder of its training."""
    digests: frozenset[str]
    training: str
    """The digest of its training, by which later runs name it."""
    source: str
    """The digest of the training that it started from; empty where it started from a base."""


def who_saw(asked: str, home: Path) -> list[Seen]:
    """The runs under `home` that were trained on what is asked for, and those that go on from
    one. `asked` is a row's digest or its first 12 digits, a file of rows, or words of a row.

    A file's rows are known again where no transform changed them; words are looked for in the
    rows as they were trained on, without case and spaces. A training that was put away is told
    as a run of its own: its numbers are still on the disk.
    """
    files = beside(home, "train/rows.json")
    found = [each for path in files if (each := trained(path, home))]
    if not found:
        raise SettingsError(f"{home}: holds no trained run; go to where `runs/` is")
    wanted = asked_for(asked, home, found)
    hits = {each.training: saw for each in found if (saw := wanted & each.digests)}
    told = []
    for each in found:
        source = earlier(each, found, hits)
        if each.training in hits or source:
            mine = tuple(sorted(hits.get(each.training, ())))
            told.append(Seen(each.run, mine, source, tuple(models(each))))
    return told


def trained(rows_file: Path, home: Path) -> Trained | None:
    """A finished training; None of one that is not."""
    place = rows_file.parent
    stage = RunFolder(place.parent).stage(place.name)
    if not stage.finished:
        return None
    record = read_json(place / "train.json")
    came = (record.get("from") or {}).get("training", "")
    digests = frozenset(read_json(rows_file)["trained_on"])
    run = place if place.name != "train" else place.parent
    return Trained(run.relative_to(home).as_posix(), place, digests, stage.digest, came)


def asked_for(asked: str, home: Path, known: Sequence[Trained]) -> frozenset[str]:
    """The digests of the rows asked for. Digits that begin no digest are words: card and phone
    numbers look like one."""
    if DIGEST.fullmatch(asked):
        every = frozenset[str]().union(*(each.digests for each in known))
        if found := frozenset(digest for digest in every if digest.startswith(asked)):
            return found
    if os.path.isfile(asked):
        return of_file(Path(asked), home)
    wanted = normalised(asked)
    return frozenset(
        record["digest"]
        for path in beside(home, "data/train.jsonl")
        for record in whole_lines(path)
        if any(wanted in normalised(text) for text in row_from(record).texts())
    )


def of_file(path: Path, home: Path) -> frozenset[str]:
    """The digests of a file's rows, in the form that its keys tell and in each that a run states.
    Raises DataError where it can be read in none."""
    found, refused = set[str](), []
    begun = beside(home, "data/inputs.json")
    stages = (RunFolder(each.parent.parent).stage(each.parent.name) for each in begun)
    forms = [None, *forms_of(stage.inputs for stage in stages)]
    for form in forms:
        try:
            found |= {row.digest for _, row in rows(Reading(path, form, ""))}
        except DataError as error:
            refused.append(error)
    if len(refused) == len(forms):
        raise refused[0]
    return frozenset(found)


def beside(home: Path, file: str) -> list[Path]:
    """A stage's file in every run, and where the stage was put away."""
    stage, name = file.split("/")
    patterns = (f"*/{file}", f"*/earlier/*/{stage}*/{name}")
    return [path for pattern in patterns for path in sorted(home.glob(pattern))]


def earlier(run: Trained, known: list[Trained], hits: Mapping[str, frozenset[str]]) -> str:
    """The earlier run that saw the rows and whose model this one started from, at any distance."""
    by_training = {each.training: each for each in known}
    source = run.source
    while source in by_training:
        if source in hits:
            return by_training[source].run
        source = by_training[source].source
    return ""


def models(run: Trained) -> Iterator[str]:
    """Where the numbers are that a run learned: its training, and every export of it."""
    yield str(run.folder)
    folder = run.folder.parent
    if folder.parent.name == "earlier":
        folder = folder.parent.parent
    for place in (folder / "deploy", *sorted(folder.glob("earlier/*/deploy*"))):
        if run.training in RunFolder(place.parent).stage(place.name).inputs.values():
            yield from (str(p) for p in sorted(place.iterdir()) if p.is_dir())


def sentences(asked: str, found: list[Seen]) -> str:
    """The same for a reader."""
    if not found:
        return f"no run here was trained on {visible(asked)}"
    lines = []
    for each in found:
        count = len(each.rows)
        saw = f"trained on {count} such row{'s' * (count != 1)}" if count else ""
        via = f"started from {each.through}, which was" if each.through else ""
        lines.append(f"{each.run}: {' and '.join(filter(None, (saw, via)))}")
        lines += [f"  {place}" for place in each.models]
    lines.append("A trained model cannot forget a row: retrain without it, or withdraw the model.")
    return "\n".join(lines)
