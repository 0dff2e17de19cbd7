"""Which runs were trained on a row: by its digest, by a file of rows, or by words in it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.disk import read_json
from tunesmith.core.errors import SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.quote import visible
from tunesmith.core.rows import row_from
from tunesmith.data.prompts import normalised
from tunesmith.data.source import Reading, rows

DIGEST = re.compile("[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Seen:
    """A run that was trained on rows asked for, itself or through the run it started from."""

    run: str
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

    folder: Path
    digests: frozenset[str]
    training: str
    """The digest of its training, by which later runs name it."""
    source: str
    """The digest of the training that it started from; empty where it started from a base."""


def who_saw(asked: str, home: Path) -> list[Seen]:
    """The runs under `home` that were trained on what is asked for, and those that go on from
    one. `asked` is a row's digest or its first 12 digits, a file of rows, or words of a row.

    A file's rows are known again where no transform changed them; words are looked for in the
    rows as they were trained on, without case and spaces.
    """
    found = [each for path in sorted(home.glob("*/train/rows.json")) if (each := trained(path))]
    if not found:
        raise SettingsError(f"{home}: holds no trained run; go to where `runs/` is")
    hits = {each.training: digests for each in found if (digests := among(asked, each))}
    told: dict[str, Seen] = {}
    for each in found:
        source = earlier(each, found, hits)
        if each.training in hits or source:
            mine = tuple(sorted(hits.get(each.training, ())))
            name = each.folder.name
            told[name] = Seen(name, mine, source, tuple(models(each.folder)))
    return list(told.values())


def trained(rows_file: Path) -> Trained | None:
    """A finished training; None of one that is not."""
    folder = RunFolder(rows_file.parent.parent)
    stage = folder.stage("train")
    if not stage.finished:
        return None
    record = read_json(stage.path / "train.json")
    came = (record.get("from") or {}).get("training", "")
    digests = frozenset(read_json(rows_file)["trained_on"])
    return Trained(folder.path, digests, stage.digest, came)


def among(asked: str, run: Trained) -> set[str]:
    """The digests of the rows asked for that a run was trained on."""
    if DIGEST.fullmatch(asked):
        return {digest for digest in run.digests if digest.startswith(asked)}
    if Path(asked).exists():
        reading = Reading(Path(asked), None, "")
        return {row.digest for _, row in rows(reading)} & run.digests
    wanted = normalised(asked)
    return {
        record["digest"]
        for record in prepared(run.folder)
        if record["digest"] in run.digests
        and any(wanted in normalised(text) for text in row_from(record).texts())
    }


def prepared(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The prepared training rows of a run."""
    yield from whole_lines(folder / "data" / "train.jsonl")


def earlier(run: Trained, known: list[Trained], hits: Mapping[str, set[str]]) -> str:
    """The earlier run that saw the rows and whose model this one started from, at any distance."""
    by_training = {each.training: each for each in known}
    source = run.source
    while source in by_training:
        if source in hits:
            return by_training[source].folder.name
        source = by_training[source].source
    return ""


def models(folder: Path) -> Iterator[str]:
    """Where the numbers are that a run learned: its training, what it put away, its exports."""
    yield str(folder / "train")
    if (folder / "deploy").is_dir():
        yield from (str(p) for p in sorted((folder / "deploy").iterdir()) if p.is_dir())
    if (folder / "earlier").is_dir():
        yield str(folder / "earlier")


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
