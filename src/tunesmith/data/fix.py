"""`tunesmith data RUN.yaml --fix`: the rows as they were prepared, as a data set of their own.

The originals stay as they are. Beside the new files stands what was decided of which row. A look at
the new files with the same steps finds nothing to do: where one step makes work for an earlier one,
all are repeated until that is so.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunesmith.core import disk
from tunesmith.core.disk import make_folders, read_json, write_json, write_parts, write_text
from tunesmith.core.errors import DataError
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.core.quote import visible
from tunesmith.core.rows import Origin, Row, canonical
from tunesmith.core.tables import Record
from tunesmith.data.crew import Crew
from tunesmith.data.intake import Given, left_by_steps
from tunesmith.data.ledger import told_lines
from tunesmith.data.located import Located
from tunesmith.data.mix import Source
from tunesmith.data.records import Change, change_of, in_own_form, in_plain_form
from tunesmith.data.room import WORK, Room
from tunesmith.data.shelf import rows_in
from tunesmith.data.source import Reading
from tunesmith.data.source import rows as rows_of
from tunesmith.data.stage import (
    DECISIONS,
    PARTS,
    STEPS,
    Data,
    keys_of,
    locate,
    sources,
)
from tunesmith.data.transforms.base import Account
from tunesmith.data.whole import whole

FIXED = "fixed"
"""The folder in the run's."""
ROWS = "rows"
"""The folder of the new files in it: a source may be called like a file that stands beside."""
PLAIN = "plain"
"""The folder of each pass with the rows in the plain form of their kind."""
MOST_PASSES = 5
"""Steps that undo each other never come to rest."""
SHOWN = 20
"""Rows of each step and reason that the readable log names; the other one names all."""


@dataclass(frozen=True)
class Pass:
    """One look with all the steps: what each did, and to which rows."""

    steps: list[dict[str, Any]]
    told: Sequence[bytes | Path]


@dataclass(frozen=True)
class New:
    """A new file, for which source, and whether its rows are in the form they came in."""

    path: Path
    given: Given
    own: bool
    origins: Sequence[str]
    """Where each row, a line each, was read at first."""

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.origins)


def fix(run: RunFolder, spec: Data, *, seed: int, log: Log) -> Path:
    """Write `fixed/` from the finished data stage: a file for each source, and what was decided.

    Returns the folder. Raises DataError where the originals changed since, or where the steps never
    come to rest.
    """
    data, stage = run.stage("data"), run.stage(FIXED)
    data.manifest()
    if not stage.begin({"digest of data": data.digest}, saved=False, say=log.say):
        log.say(f"fixed: done before from the same rows: {stage.path}")
        return stage.path
    try:
        for each in stage.path.iterdir():  # What a killed process left.
            if each.is_dir():
                disk.discard(each)
        with Crew() as crew:
            files, passes = come_to_rest(stage, data, spec, seed, crew)
        make_folders(stage.path / ROWS)
        for name, new in files.items():
            disk.DISK.rename(new.path, stage.path / ROWS / f"{name}.jsonl")
        disk.discard(stage.path / WORK)
        report(stage.path, files, passes)
        stage.finish(files={name: new.rows for name, new in files.items()})
    except BaseException:
        stage.give_up()
        raise
    tell(stage.path, files, passes, log)
    return stage.path


def come_to_rest(
    stage: Stage, data: Stage, spec: Data, seed: int, crew: Crew
) -> tuple[dict[str, New], list[Pass]]:
    """The new files, once a look at them with the same steps finds nothing to do."""
    home = stage.path.absolute().parent.parent.parent
    found = originals(spec, home, data)
    account = read_json(data.path / "account.json")
    passes = [Pass(account["steps"], [data.path / STEPS / DECISIONS])]
    prepared = (data.path / f"{part}.jsonl" for part in PARTS)
    heads = Heads(rows_in(path) for path in prepared if path.exists())
    givens, places = sources(spec), Places({})
    while True:
        folder = stage.path / WORK / f"pass-{len(passes)}"
        files = dict(written(folder, spec, found, heads, seed, places))
        spec = renewed(spec, files)
        found = locate(spec, home, {})
        room = Room(folder / WORK, {}, crew)
        left, ledger = left_by_steps(
            sources(spec),
            found,
            spec.transforms,
            room,
            keys=keys_of(spec),
            seed=seed,
            log=Log(quiet=True),
        )
        if at_rest(ledger.steps):
            given = {called: givens[name] for name, called in named(spec)}
            kept = {called: replace(new, given=given[called]) for called, new in files.items()}
            return kept, passes
        if len(passes) == MOST_PASSES:
            moving = ", ".join(each.kind for each in ledger.steps if not at_rest([each]))
            raise DataError(
                f"data.transforms: after {MOST_PASSES} passes the steps still find something to do "
                f"({moving}); take out the step that undoes another one"
            )
        places = Places({found[name].place: files[called].origins for name, called in named(spec)})
        told = [places.translated(line) for line in told_lines(ledger.told)]
        passes.append(Pass([each.record() for each in ledger.steps], told))
        heads = Heads([iter(left)])


@dataclass(frozen=True)
class Places:
    """Files between two passes, with where each of their lines was read at first."""

    origins: Mapping[str, Sequence[str]]

    def first(self, place: str) -> str:
        """Where what stands at a place was read at first."""
        file, _, number = place.rpartition(":")
        return self.origins[file][int(number) - 1] if file in self.origins else place

    def translated(self, told: bytes) -> bytes:
        """A decision about a row, told with its first place."""
        found = json.loads(told)
        for key in ("row", "other"):
            if key in found:
                found[key] = self.first(found[key])
        return f"{canonical(found)}\n".encode()


def named(spec: Data) -> Iterator[tuple[str, str]]:
    """The settings of the sources, each with what the source is called."""
    for name, given in sources(spec).items():
        if given.part == "source":
            yield name, given.source or Source(path=given.path).called


def originals(spec: Data, home: Path, data: Stage) -> dict[str, Located]:
    """Where the rows came from, once it is certain that they are the same still."""
    found = locate(spec, home, data.inputs)
    for name, each in found.items():
        if data.inputs.get(f"digest of data.{name}") != each.digest:
            raise DataError(
                f"{visible(each.path)}: changed since it was prepared; give the same command again"
            )
        each.ready()
    return found


def at_rest(steps: Sequence[Account]) -> bool:
    """Whether no row was dropped, changed or added."""
    return not any(each.dropped or each.changed or each.added for each in steps)


class Heads:
    """The rows of several parts, each in the order of the sources, to be taken by their origin."""

    def __init__(self, parts: Iterable[Iterator[Row]]) -> None:
        self.parts = list(parts)
        self.first = [next(part, None) for part in self.parts]

    def at(self, origin: Origin) -> Iterator[Row]:
        """The rows that were read there, if any is left."""
        for number, part in enumerate(self.parts):
            while (row := self.first[number]) is not None and row.origin == origin:
                self.first[number] = next(part, None)
                yield row


def written(
    folder: Path,
    spec: Data,
    found: Mapping[str, Located],
    heads: Heads,
    seed: int,
    places: Places,
) -> Iterator[tuple[str, New]]:
    """A file for each source with the rows that are left of it, in the order of the source."""
    change = change_of(spec.transforms, seed)
    make_folders(folder / ROWS)
    make_folders(folder / PLAIN)
    for name, called in named(spec):
        given, there = sources(spec)[name], found[name]
        reading = Reading(there.path, given.format)
        own, plain = (folder / form / f"{called}.jsonl" for form in (ROWS, PLAIN))
        pairs = paired(reading, there, heads)
        possible, origins = both_forms(pairs, reading, change, own, plain)
        if possible:
            disk.DISK.unlink(plain)
        else:
            disk.DISK.rename(plain, own)
        yield called, New(own, given, possible, [places.first(place) for place in origins])


def paired(reading: Reading, there: Located, heads: Heads) -> Iterator[tuple[Record, Row]]:
    """The records of a source of which a row is left, with that row."""
    place = lru_cache(there.origin)
    for record, _ in rows_of(reading):
        for row in heads.at(Origin(place(record.origin.file), record.origin.line)):
            yield record, row


def both_forms(
    pairs: Iterable[tuple[Record, Row]], reading: Reading, change: Change, own: Path, plain: Path
) -> tuple[bool, list[str]]:
    """Write the rows in the form they came in, until one cannot be, and in the plain form of their
    kind. Whether the first file is whole, and where its rows come from."""
    possible, origins = True, []
    with whole(own) as first, whole(plain) as second:
        for record, row in pairs:
            form = reading.format
            assert form is not None  # The record was read in it.
            origins.append(str(row.origin))
            second.write(line(in_plain_form(record.fields, row, form, change)))
            if possible:
                found = in_own_form(record.fields, row, form, change)
                possible = found is not None
                first.write(line(found or {}))
    return possible, origins


def line(record: Mapping[str, Any]) -> bytes:
    """A record as a line; its keys stay in their order."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def renewed(spec: Data, files: Mapping[str, New]) -> Data:
    """The same settings for the new files."""
    if isinstance(spec.source, str):
        (new,) = files.values()
        form = spec.format if new.own else None
        return spec.model_copy(update={"source": str(new.path), "format": form})
    several = []
    for each in spec.several:
        new = files[each.called]
        said = {"path": str(new.path), "name": each.called}
        several.append(
            each.model_copy(update=said | {"format": new.given.format if new.own else None})
        )
    return spec.model_copy(update={"source": tuple(several), "format": None})


def report(folder: Path, files: Mapping[str, New], passes: Sequence[Pass]) -> None:
    """Write the decisions: in short, for a reader, and row by row."""
    found = {
        "files": {
            name: {"rows": new.rows, "from": new.given.path, "form": "own" if new.own else "plain"}
            for name, new in files.items()
        },
        "passes": [each.steps for each in passes],
    }
    write_json(folder / "decisions.json", found)
    counts: Counter[tuple[str, str, str]] = Counter()
    shown: dict[tuple[str, str, str], list[str]] = {}
    write_parts(folder / DECISIONS, every_decision(passes, counts, shown))
    write_text(folder / "decisions.md", page(files, passes, counts, shown))


def every_decision(
    passes: Sequence[Pass],
    counts: "Counter[tuple[str, str, str]]",
    shown: dict[tuple[str, str, str], list[str]],
) -> Iterator[bytes]:
    """Every decision with its pass; counted, and the first ones kept, on the way."""
    for number, each in enumerate(passes, 1):
        for told in told_lines(each.told):
            found = json.loads(told)
            key = (found["step"], found["did"], found["why"])
            counts[key] += 1
            if counts[key] <= SHOWN:
                other = f" ({found['other']})" if "other" in found else ""
                shown.setdefault(key, []).append(f"{found['row']}{other}")
            yield f"{canonical({**found, 'pass': number})}\n".encode()


def page(
    files: Mapping[str, New],
    passes: Sequence[Pass],
    counts: Mapping[tuple[str, str, str], int],
    shown: Mapping[tuple[str, str, str], Sequence[str]],
) -> str:
    """The decisions for a reader."""
    parts = ["# What was changed\n", "The original files are as they were. New files:\n"]
    for name, new in files.items():
        form = "" if new.own else ", in the plain form of their kind"
        parts.append(f"- `{name}.jsonl`: {new.rows} rows of `{visible(new.given.path)}`{form}")
    for number, each in enumerate(passes, 1):
        parts.append(f"\n## Pass {number}\n\n{HEADER}")
        parts += [step_line(step) for step in each.steps]
    parts.append("\nA further pass over the new files found nothing to do.\n\n## Rows")
    for key, count in counts.items():
        step, did, why = key
        more = f" and {count - SHOWN} more, in {DECISIONS}" if count > SHOWN else ""
        parts.append(f"\n{step}, {did}, {why}: {count}\n")
        parts += [f"- {visible(each)}" for each in shown[key]] + ([f"-{more}"] if more else [])
    return "\n".join(parts) + "\n"


HEADER = (
    "| step | rows before | after | dropped | changed | added | characters before | after |\n"
    "|---|---|---|---|---|---|---|---|"
)


def step_line(step: Mapping[str, Any]) -> str:
    """A step as a line of the table."""
    before, after = (step[side].get("characters", "") for side in ("before", "after"))
    counts = (step["taken"], step["kept"], sum(step["dropped"].values()), step["changed"])
    cells = (step["kind"], *counts, step["added"], before, after)
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def tell(folder: Path, files: Mapping[str, New], passes: Sequence[Pass], log: Log) -> None:
    """Say where the new files are and how they came about."""
    for name, new in files.items():
        log.say(
            f"fixed: {folder / ROWS / name}.jsonl: {new.rows} rows of {visible(new.given.path)}"
        )
        if not new.own:
            log.say(
                f"fixed: the rows of {visible(new.given.path)} could not be written in the form "
                "they came in; theirs is the plain one of their kind, so leave data.format out"
            )
    times = "once" if len(passes) == 1 else f"{len(passes)} times"
    log.say(
        f"fixed: the steps went over the rows {times}; a look at the result found nothing to do"
    )
