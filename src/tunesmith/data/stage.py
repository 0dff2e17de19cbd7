"""From files of rows to the parts of a run: read, transform, split, audit, every row counted."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tunesmith.core import disk
from tunesmith.core.disk import make_folders, write_json, write_parts
from tunesmith.core.errors import DataError, Interrupted, Preempted, ResourceError
from tunesmith.core.findings import Finding
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.core.parts import Spec
from tunesmith.core.quote import visible
from tunesmith.core.rows import Row
from tunesmith.data import mixed
from tunesmith.data.audits.base import Audit
from tunesmith.data.audits.leakage import Leakage
from tunesmith.data.audits.pii import Pii
from tunesmith.data.audits.poisoning import Poisoning
from tunesmith.data.audits.quality import Quality
from tunesmith.data.audits.secrets import Secrets
from tunesmith.data.before import sources_before
from tunesmith.data.crew import Crew
from tunesmith.data.formats.base import Format
from tunesmith.data.held import refuse_leaks, without_leaks
from tunesmith.data.intake import Given, left_by_steps, rows_from
from tunesmith.data.ledger import Ledger, told_lines
from tunesmith.data.lengths import histogram
from tunesmith.data.located import Located, content_digest, located
from tunesmith.data.mix import Mix, Source, refuse_unclear
from tunesmith.data.room import WORK, Room
from tunesmith.data.shelf import Shelf, bare, lines_of, noticed
from tunesmith.data.split import Split, parted
from tunesmith.data.transforms.base import Transform
from tunesmith.data.transforms.deduplicate import Deduplicate

PARTS = ("train", "valid", "test")
STEPS = "steps"
DECISIONS = "decisions.jsonl"
"""What every step did with which row, in `STEPS`: a line each of rows dropped, changed or added."""


class Data(Spec):
    """Where the rows come from, what is done to them, and how they are divided."""

    source: str | Annotated[tuple[str | Source, ...], Field(min_length=1)]
    """The rows: a file (.jsonl, .json, .csv, .tsv, .parquet, or .txt and .md, each one document;
    texts also as .gz), a folder of such files, or a data set of the hub as `hub:owner/name`, with
    `@revision` and `/train*.parquet` behind it where one commit or some files are meant. A list
    of these is a mixture: each by its path alone, or with a name, a weight and more."""
    mix: Mix = Mix()
    """How often each source is seen in training, where `source` is a list."""
    valid: str | None = None
    """Rows to choose the best step by, used as they are, instead of splitting some off."""
    test: str | None = None
    """Rows to judge the result by, used as they are, instead of splitting some off."""
    format: Format | None = None
    """The form of the records; found out from their keys where it is not stated."""
    transforms: tuple[Transform, ...] = (Deduplicate(),)
    """Steps over the rows of `source`, in this order."""
    audits: tuple[Audit, ...] = (Leakage(), Quality(), Pii(), Secrets(), Poisoning())
    """Looks at the finished parts; they report and change nothing."""
    split: Split | Literal["none"] = Split()
    """How many rows are kept from training, or `none`."""
    leaks: Literal["refuse", "drop"] = "refuse"
    """Rows of an earlier part that leak from a later one, where either has a file of yours: refuse
    to go on when one answers a held-out prompt to the letter, or drop all that any leakage audit
    is asked for (also but for case and spaces, `near`, `by`). Parts that are both split off are
    kept apart by `data.split`."""

    @model_validator(mode="after")
    def _sources_make_sense(self) -> "Data":
        if not isinstance(self.source, str):
            refuse_unclear(self.several, self.mix)
        elif self.mix != Mix():
            raise ValueError("mix is for several sources; make data.source a list of them")
        return self

    @property
    def several(self) -> tuple[Source, ...]:
        """The sources of a mixture; none where the rows have one source."""
        listed = () if isinstance(self.source, str) else self.source
        return tuple(Source(path=each) if isinstance(each, str) else each for each in listed)


def prepare(
    folder: RunFolder,
    spec: Data,
    *,
    seed: int,
    log: Log,
    tokenizer: Any = None,
    accept: Collection[str] = (),
    restart: bool = False,
    instead_of: RunFolder | None = None,
) -> None:
    """Write `data/`: the parts as JSONL, `account.json`, `findings.json`, and in `steps/` what was
    decided of single rows.

    Nothing is left behind when it fails: rows that cannot be used are a DataError with file and
    line. `tokenizer` only serves the lengths in the summary, which are words without it. Where the
    rows are only looked at, `instead_of` is the run that they would be prepared for.
    """
    stage = folder.stage("data")
    found, commits = places(instead_of or folder, spec, restart=restart)
    asked = inputs(spec, found, seed) | commits
    called = sources_before(stage, found)
    if not stage.begin(asked, accept=accept, restart=restart, say=log.say, called=called):
        log.say(f"data: prepared before from the same inputs: {stage.path}")
        return
    try:
        clear(stage)
        for each in found.values():
            each.ready()
        with Crew() as crew:
            room = Room(stage.path / WORK, asked, crew)
            parts, ledger = divided(spec, found, seed, log, room)
            for each in found.values():
                each.check()
            findings = [*audited(spec.audits, parts, log), *mixed.unmeasured(ledger.mixture)]
            write(stage, parts, ledger, findings)
            summarise(parts, ledger, findings, log, tokenizer)
            room.leave()
        stage.finish(parts=ledger.parts, findings=len(findings), commits=commits)
    except (KeyboardInterrupt, Interrupted, Preempted, ResourceError):
        if not (stage.path / WORK).is_dir():
            stage.give_up()
        raise  # What is done of many rows is worth keeping.
    except BaseException:
        stage.give_up()  # The next attempt may have other inputs, and owes this one nothing.
        raise


def places(
    run: RunFolder, spec: Data, *, restart: bool = False
) -> tuple[dict[str, Located], dict[str, str]]:
    """Where the rows are, as a run sees it: by paths from its project on, and by the commits of its
    data sets, which it keeps to until `restart`."""
    begun = {} if restart else run.stage("data").inputs
    found = locate(spec, run.path.absolute().parent.parent, begun)
    commits = {field: commit for each in found.values() for field, commit in each.commits.items()}
    return found, commits


def outdated(run: RunFolder, spec: Data, *, seed: int) -> str:
    """In what the finished rows of a run differ from those that are asked for, in words; nothing
    where they do not, or none are finished. Nothing is written."""
    stage = run.stage("data")
    if not stage.finished:
        return ""
    found, commits = places(run, spec)
    return stage.outdated(inputs(spec, found, seed) | commits, sources_before(stage, found))


def audited(
    audits: Sequence[Audit], parts: Mapping[str, Sequence[Row]], log: Log
) -> Iterator[Finding]:
    """What each audit finds, under its name; with progress where rows lie on disk."""
    on_disk = sum(len(rows) for rows in parts.values() if isinstance(rows, Shelf))
    for audit in audits:
        told = log.progress(f"{audit.kind}, rows", on_disk) if on_disk else nullcontext(silence)
        with told as advance:
            shown = {part: noticed(rows, advance) for part, rows in parts.items()}
            found = [*audit.inspect(shown)]
        yield from (replace(finding, audit=audit.kind) for finding in found)


def silence(rows: int) -> None:
    """No progress."""


def sources(spec: Data) -> dict[str, Given]:
    """What names rows, by its setting; in a mixture, by the source's name."""
    found = {}
    if isinstance(spec.source, str):
        found["source"] = Given(spec.source, "source", spec.format)
    for each in spec.several:
        form, here = each.format or spec.format, f"source.{each.called}"
        found[here] = Given(each.path, "source", form, each.called)
        for part, path in (("valid", each.valid), ("test", each.test)):
            if path is not None:
                found[f"{here}/{part}"] = Given(path, part, form, each.called)
    for part, path in (("valid", spec.valid), ("test", spec.test)):
        if path is not None:
            found[part] = Given(path, part, spec.format)
    return found


def locate(spec: Data, home: Path, begun: Mapping[str, Any]) -> dict[str, Located]:
    """Where the rows are. A data set stays at the commit that this run `begun` with, or that
    another setting has it at."""
    known, found = dict(begun), {}
    for name, given in sources(spec).items():
        found[name] = located(given.path, home, known)
        known |= found[name].commits
    return found


def inputs(spec: Data, found: Mapping[str, Located], seed: int) -> dict[str, Any]:
    """All that decides the result, flat: settings, contents, seed.

    Not where the files lie: a project that moved is not done again.
    """
    settings = dict(flat("data", spec.model_dump(mode="json", exclude={"source", "valid", "test"})))
    if spec.several:
        settings["data.source"] = [each.called for each in spec.several]
    for each in spec.several:
        said = each.model_dump(mode="json", exclude={"path", "name", "valid", "test"})
        settings |= dict(flat(f"data.source.{each.called}", said))
    contents = {f"digest of data.{name}": each.digest for name, each in found.items()}
    reading: tuple[Transform | Audit, ...] = (*spec.transforms, *spec.audits)
    for path in sorted({path for part in reading for path in part.files()}):
        contents[f"digest of {path}"] = content_digest(Path(path))
    return settings | contents | {"seed": seed}


def flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Settings by dotted path; a list is one setting."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(f"{path}.{key}", item)
    else:
        yield path, value


def divided(
    spec: Data, found: Mapping[str, Located], seed: int, log: Log, room: Room
) -> tuple[dict[str, Sequence[Row]], Ledger]:
    """The parts, and what happened on the way to them."""
    given = sources(spec)
    left, ledger = left_by_steps(
        given, found, spec.transforms, room, keys=keys_of(spec), seed=seed, log=log
    )
    refuse_nothing(spec, left, ledger)
    held_out: dict[str, list[Row]] = {}
    for name, each in given.items():
        if each.part != "source":
            read = rows_from(name, each, found[name], ledger, log=log)
            held_out.setdefault(each.part, []).extend(read)
    parts: dict[str, Sequence[Row]] = {"train": left}
    if sizes := sizes_of(spec):
        rule = spec.split if isinstance(spec.split, Split) else Split()
        with ledger.reasons_told():
            chosen = parted(left, sizes, rule, seed, kept=kept_whole(spec))
        parts = room.dealt(left, chosen, ("train", *sizes))
    if held_out:
        parts |= {part: room.joined(parts.get(part, ()), more) for part, more in held_out.items()}
        if spec.leaks == "refuse":
            refuse_leaks(parts, held_out)
        else:
            parts, accounts = without_leaks(parts, held_out, spec.audits, room, ledger.tell)
            ledger.steps += accounts
    parts = {part: parts[part] for part in PARTS if part in parts}
    ledger.parts = {part: len(parts.get(part, ())) for part in PARTS}
    if spec.several:
        ledger.mixture = mixed.mixture(spec.several, spec.mix, parts)
    return parts, ledger


def keys_of(spec: Data) -> tuple[str, ...]:
    """What rows keep of their records, since a setting names it."""
    divides = spec.split.fields() if isinstance(spec.split, Split) else ()
    named = [key for step in spec.transforms for key in step.fields()]
    return tuple(dict.fromkeys((*divides, *named)))


def sizes_of(spec: Data) -> dict[str, float | int]:
    """What is to be split off: nothing for a part that has its own file."""
    if not isinstance(spec.split, Split):
        return {}
    wanted = {"test": spec.split.test, "valid": spec.split.valid}
    own = {"test": spec.test, "valid": spec.valid}
    return {part: size for part, size in wanted.items() if size and own[part] is None}


def kept_whole(spec: Data) -> dict[str, set[str]]:
    """The parts for which nothing is split off a source: it has a file for them, or is replayed."""
    found = {}
    for each in spec.several:
        own = {"valid": each.valid, "test": each.test}
        found[each.called] = {p for p, path in own.items() if path is not None or each.replay}
    return found


def refuse_nothing(spec: Data, rows: Sequence[Row], ledger: Ledger) -> None:
    """Refuse transforms that leave nothing, with the reasons they gave."""
    if not rows:
        reasons = "; ".join(str(account) for account in ledger.steps)
        named = spec.source if isinstance(spec.source, str) else "data.source"
        raise DataError(f"{visible(named)}: no row is left ({reasons}); change the transforms")


def write(
    stage: Stage, parts: Mapping[str, Sequence[Row]], ledger: Ledger, findings: Sequence[Finding]
) -> None:
    """Put the parts and what is known about them into the stage's folder."""
    for part, rows in parts.items():
        write_parts(stage.path / f"{part}.jsonl", bare(lines_of(rows)))
    make_folders(stage.path / STEPS)
    write_parts(stage.path / STEPS / DECISIONS, told_lines(ledger.told))
    write_json(stage.path / "account.json", ledger.record())
    write_json(stage.path / "findings.json", [finding.record() for finding in findings])


def clear(stage: Stage) -> None:
    """Remove what a killed process left: another split may not have each of its parts. Its work on
    many rows stays."""
    for path in stage.path.iterdir():
        if path.is_dir():
            if path.name != WORK:
                disk.discard(path)
        elif path.name != "inputs.json":
            disk.DISK.unlink(path)


def summarise(
    parts: Mapping[str, Sequence[Row]],
    ledger: Ledger,
    findings: Sequence[Finding],
    log: Log,
    tokenizer: Any,
) -> None:
    """What a person should see: rows in, kept, dropped, the parts, their lengths, the findings."""
    for account in ledger.steps:
        log.say(str(account))
    for line in mixed.told(ledger.mixture):
        log.say(line)
    log.say("parts: " + ", ".join(f"{part} {count}" for part, count in ledger.parts.items()))
    for line in histogram(parts["train"], tokenizer):
        log.say(line)
    for finding in findings:
        log.finding(finding)
    log.event("data", **ledger.record())
