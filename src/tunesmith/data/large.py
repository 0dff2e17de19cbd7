"""The transforms over more rows than memory should hold: in pieces, side by side, resumable.

Steps that look at one row at a time run over pieces of the source in several processes; those that
need all rows go through a shelf of files in one. Whatever is finished stays in the stage's folder
`work/` until all of it is, so a killed run goes on where it was. The same rows in the same order,
and the same account, as in memory.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tunesmith.core import disk
from tunesmith.core.errors import DataError, IntegrityError
from tunesmith.core.log import Log
from tunesmith.core.parts import Part
from tunesmith.core.pieces import Piece
from tunesmith.core.quote import visible
from tunesmith.core.rows import Row, canonical
from tunesmith.core.tables import pieces_of, read, read_piece
from tunesmith.data.crew import Crew
from tunesmith.data.formats.base import Format
from tunesmith.data.ledger import told_line
from tunesmith.data.shelf import FILE, Shelf, rows_in, shelved, written
from tunesmith.data.source import Reading, detected, made
from tunesmith.data.steps import chained, counting
from tunesmith.data.transforms.base import Account, Transform
from tunesmith.data.whole import whole

TOLD = "decisions.jsonl"


@dataclass(frozen=True)
class Origins:
    """One setting's rows: where they are, what they are called, and what is known of their form."""

    path: Path
    source: str
    format: Format | None
    place: Callable[[str], str]
    """A file as its rows remember it."""


@dataclass
class Work:
    """What is done so far: the rows on a shelf, each step's account, and every setting's rows."""

    shelf: Shelf
    readings: list[Reading] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    told: list[Path] = field(default_factory=list)
    """Files of decisions, in order."""
    before: dict[str, int] = field(default_factory=dict)
    """What the rows hold, before any step."""


def transformed(
    sources: Sequence[Origins],
    steps: Sequence[Transform],
    home: Path,
    crew: Crew,
    *,
    seed: int,
    keys: tuple[str, ...],
    log: Log,
) -> Work:
    """The rows of the sources as the steps leave them, kept in `home`."""
    runs = [(alone, list(found)) for alone, found in groupby(steps, lambda step: step.alone)]
    first = runs.pop(0)[1] if runs and runs[0][0] else []
    work = taken_in(sources, first, home / "0", crew, seed=seed, keys=keys, log=log)
    for number, (alone, found) in enumerate(runs, 1):
        folder = home / str(number)
        if alone:
            jobs = [{"file": str(file)} for file in work.shelf.files]
            side_by_side(work, jobs, found, folder, job=stepped, seed=seed, log=log)
        for place, step in enumerate([] if alone else found):
            at_once(work, step, folder / str(place), seed=seed, log=log)
    return work


def taken_in(
    sources: Sequence[Origins],
    steps: Sequence[Transform],
    folder: Path,
    crew: Crew,
    *,
    seed: int,
    keys: tuple[str, ...],
    log: Log,
) -> Work:
    """Read the sources, with the steps that come first."""
    work = Work(Shelf([], [], crew), [formed(each, keys) for each in sources])
    jobs = [
        job_of(piece, number, each, work.readings[number])
        for number, each in enumerate(sources)
        for piece in pieces_of(each.path, FILE)
    ]
    results = side_by_side(work, jobs, steps, folder, job=piece_done, seed=seed, log=log)
    for job, result in zip(jobs, results, strict=True):
        reading = work.readings[job["setting"]]
        reading.rows += result["read"]
        reading.unused |= dict.fromkeys(result["unused"])
        work.before = dict(Counter(work.before) + Counter(result["before"]))
    for first, rows in rows_of_files(jobs, results):
        if not rows:
            where = visible(first["place"])
            raise DataError(f"{where}:1: there is no row in this file; name a file with rows")
    return work


def job_of(piece: Piece, number: int, each: Origins, reading: Reading) -> dict[str, Any]:
    """What `piece_done` must know of a piece of a setting's rows."""
    form = reading.format.model_dump(mode="json") if reading.format else {}
    return {
        "path": str(piece.path),
        "start": piece.start,
        "end": piece.end,
        "before": piece.before,
        "size": piece.size,
        "setting": number,
        "place": each.place(str(piece.path)),
        "source": reading.source,
        "keys": list(reading.keys),
        "stated": each.format is not None,
        "form": form,
    }


def rows_of_files(
    jobs: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Each file's first job, and the rows read from all of it."""
    both = zip(jobs, results, strict=True)
    for _, found in groupby(both, lambda pair: (pair[0]["setting"], pair[0]["path"])):
        parts = list(found)
        yield parts[0][0], sum(result["read"] for _, result in parts)


def formed(each: Origins, keys: tuple[str, ...]) -> Reading:
    """What is to be read, with the format that the first record decides."""
    reading = Reading(each.path, each.format, each.source or each.path.name, keys=keys)
    if reading.format is None:
        record = next(read(each.path))
        try:
            reading.format = detected(record.fields)
        except DataError as error:
            raise DataError(f"{visible(record.origin)}: {error}") from None
    return reading


def side_by_side(
    work: Work,
    jobs: Sequence[Mapping[str, Any]],
    steps: Sequence[Transform],
    folder: Path,
    *,
    job: Callable[..., dict[str, Any]],
    seed: int,
    log: Log,
) -> list[dict[str, Any]]:
    """Put the steps on every piece that is not done; then the work stands on the result."""
    disk.make_folders(folder)
    asked = [step.model_dump(mode="json") for step in steps]
    settings = [
        {**each, "steps": asked, "seed": seed, "out": str(folder / f"{number:06}.jsonl")}
        for number, each in enumerate(jobs)
    ]
    found = [kept(Path(each["out"])) for each in settings]
    sizes = [
        size_of(each) if result is None else result["size"]
        for each, result in zip(jobs, found, strict=True)
    ]
    left = [index for index, result in enumerate(found) if result is None]
    done = sum(sizes) - sum(sizes[index] for index in left)
    what = " and ".join(["reading"] * ("size" in jobs[0]) + [step.kind for step in steps])
    with log.progress(f"{what}, bytes", sum(sizes), done=done) as advance:
        answers = work.shelf.crew.each(job, [settings[index] for index in left])
        for index, answer in zip(left, answers, strict=True):
            found[index] = answer
            advance(sizes[index])
    results = [result for result in found if result is not None]
    forget(work.shelf)
    files = [Path(each["out"]) for each in settings]
    work.shelf = Shelf(files, [result["kept"] for result in results], work.shelf.crew)
    work.told += [decisions_of(file) for file in files]
    for number, step in enumerate(steps):
        account = Account(step.kind)
        for result in results:
            account.join(Account(**result["accounts"][number]))
        work.accounts.append(account)
    return results


def size_of(job: Mapping[str, Any]) -> int:
    """The bytes that a job is about."""
    if "size" in job:
        return int(job["size"])
    if not os.path.exists(job["file"]):
        raise IntegrityError(
            f"{job['file']}: is gone, and what was made of it is damaged, as after a power loss; "
            "start over with --restart"
        )
    return os.path.getsize(job["file"])


def at_once(work: Work, step: Transform, folder: Path, *, seed: int, log: Log) -> None:
    """Put a step that needs all rows on the shelf."""
    disk.make_folders(folder)
    seal = folder / "done.json"
    if not intact(seal):
        before = work.accounts[-1].after if work.accounts else work.before
        log.say(f"{step.kind}: {len(work.shelf)} rows")
        with whole(folder / TOLD) as told:
            account = Account(step.kind, before=before, tell=lambda d: told.write(told_line(d)))
            rows = counting(step.apply(work.shelf, account, seed), account.after)
            made_of = shelved(written(watched(rows, step, len(work.shelf), log)), folder, Crew(1))
        with whole(seal) as out:
            facts = {"counts": made_of.counts, "account": account.record()}
            digests = {file.name: disk.file_digest(file) for file in made_of.files}
            out.write(canonical({**facts, "files": digests}).encode())
    found = json.loads(seal.read_bytes())
    forget(work.shelf)
    files = [folder / name for name in sorted(found["files"])]
    work.shelf = Shelf(files, found["counts"], work.shelf.crew)
    work.accounts.append(Account(**found["account"]))
    work.told.append(folder / TOLD)


def intact(seal: Path) -> bool:
    """Whether a step is done and its rows are whole, as far as no later step took them up."""
    if not seal.exists():
        return False
    found: dict[str, str] = json.loads(seal.read_bytes() or b"{}").get("files", {})
    there = [(seal.parent / name, digest) for name, digest in found.items()]
    return bool(found) and all(
        disk.file_digest(path) == digest for path, digest in there if path.exists()
    )


def watched(rows: Iterable[Row], step: Transform, total: int, log: Log) -> Iterator[Row]:
    """The rows, with progress."""
    with log.progress(f"{step.kind}, rows", total) as advance:
        for row in rows:
            yield row
            advance()


def forget(shelf: Shelf) -> None:
    """Remove the rows of a step that the next one has taken up; what it decided stays."""
    for file in shelf.files:
        for path in file.parent.glob(f"{file.stem}.*"):
            if path.suffix not in (".told", ".done"):
                disk.DISK.unlink(path)


def decisions_of(out: Path) -> Path:
    """Where the decisions on a file's rows are."""
    return out.with_suffix(".told")


def kept(out: Path) -> dict[str, Any] | None:
    """What an earlier process found out about a piece that it finished, if that is whole. Rows that
    a later step has taken up are gone."""
    seal = out.with_suffix(".done")
    if not seal.exists():
        return None
    found: dict[str, Any] = json.loads(seal.read_bytes() or b"{}")
    whole_still = not out.exists() or disk.file_digest(out) == found.get("sha256")
    return found if found and whole_still else None


def piece_done(
    *,
    path: str,
    start: int,
    end: int | None,
    before: int,
    place: str,
    form: dict[str, Any],
    stated: bool,
    source: str,
    keys: Sequence[str],
    steps: list[dict[str, Any]],
    seed: int,
    out: str,
    setting: int,
    size: int,
) -> dict[str, Any]:
    """Read a piece of a source, put the steps on its rows, and keep them in `out`."""
    reading = Reading(Path(path), remade(Format.members(), form), source, keys=tuple(keys))
    records = read_piece(Piece(Path(path), start, end, before), lambda size: None)
    rows = (row.at(place) for _, row in made(reading, records, stated))
    result = finished(
        rows,
        steps,
        seed,
        Path(out),
        lambda: {"read": reading.rows, "unused": list(reading.unused), "size": size},
    )
    return result


def remade(family: Mapping[str, type[Part]], record: Mapping[str, Any]) -> Any:
    """A part of a family from its settings."""
    return family[record["kind"]].model_validate(record)


def stepped(*, file: str, steps: list[dict[str, Any]], seed: int, out: str) -> dict[str, Any]:
    """Put the steps on the rows of a file, and keep them in `out`."""
    size = Path(file).stat().st_size
    return finished(rows_in(Path(file)), steps, seed, Path(out), lambda: {"size": size})


def finished(
    rows: Iterable[Row],
    steps: list[dict[str, Any]],
    seed: int,
    out: Path,
    more: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Write the rows that the steps leave, what was decided, and at last the facts."""
    parts: list[Transform] = [remade(Transform.members(), step) for step in steps]
    with whole(out) as file, whole(decisions_of(out)) as told:
        before: dict[str, int] = {}
        left, accounts = chained(
            rows, parts, seed, lambda decision: told.write(told_line(decision)), before
        )
        count, hashed = 0, hashlib.sha256()
        for each in written(left):
            file.write(each)
            hashed.update(each)
            count += 1
    facts = {
        "kept": count,
        "sha256": hashed.hexdigest(),
        "before": before,
        "accounts": [account.record() for account in accounts],
        **more(),
    }
    with whole(out.with_suffix(".done")) as seal:
        seal.write(canonical(facts).encode())
    return facts
