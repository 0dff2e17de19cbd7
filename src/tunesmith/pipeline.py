"""A whole run on one page: data, train, evaluate, deploy, cards."""

import difflib
import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith import environment
from tunesmith.cards import data_card, model_card, page
from tunesmith.core.disk import read_json, write_text
from tunesmith.core.errors import SettingsError, missing
from tunesmith.core.folders import RunFolder
from tunesmith.core.rows import Row, digest
from tunesmith.core.tables import read_part
from tunesmith.data import compliance
from tunesmith.data.fix import FIXED, fix
from tunesmith.data.policy import enforce
from tunesmith.data.stage import outdated, prepare
from tunesmith.deploy.exports.merged import Merged
from tunesmith.deploy.stage import deploy
from tunesmith.evaluate import general
from tunesmith.evaluate.questions import enough, questions
from tunesmith.evaluate.stage import evaluate
from tunesmith.job import STAGES, WHOLE, Job, asks_model, known_base, stuck
from tunesmith.model.bases import Base, check_name, resolve
from tunesmith.model.devices import choose
from tunesmith.model.heads import Meaning
from tunesmith.model.words import tokenizer_of
from tunesmith.places import RUN_FILE, run_file, run_of
from tunesmith.resolved import text
from tunesmith.rows_told import tell_rows
from tunesmith.run import Loaded, Run
from tunesmith.train.stage import fitted as fitted_to
from tunesmith.train.stage import halted, has_saved, learnable, train

SOURCE = "digest of data.source"
"""How the inputs of the data stage call the content of a source."""
OWNERS = {"seed": "data", "model": "train"} | {name: name for name in STAGES}
"""The stage whose results a section of the run file speaks of."""


def carry_out(job: Job, until: str) -> None:
    """The stages up to `until`, under the run's lock. What is finished and unchanged is kept."""
    job = replace(job, loaded=fitted(job.loaded))
    refuse_itself(job)
    if until != "data" or job.loaded.run.model.tokens:
        refuse_no_model(job, until)
    job.folder.create()
    with job.folder.lock(), job.folder.tidied():
        refuse_unknown(job)
        keep_settings(job, ())
        go(job, until)


def go(job: Job, until: str) -> None:
    """One stage after the other; they meet through the run folder alone."""
    run, folder, log, accept = job.loaded.run, job.folder, job.log, job.accept
    wanted = STAGES if until == WHOLE else STAGES[: STAGES.index(until) + 1]

    if "train" in wanted:
        refuse_moved_rows(job, until)
    again = job.restarts("data", until)
    prepare(folder, run.data, seed=run.seed, log=log, accept=accept, restart=again)
    folder.record(data=data_facts(folder), seed=run.seed, name=run.name)
    compliance.write(folder, run.policy, [a.model_dump(mode="json") for a in run.data.audits])
    data_card.write(folder)
    keep_settings(job, ("data",))
    if "train" not in wanted:
        tell_rows(job)
        return

    enforce(folder.stage("data").path, run.policy, "train")
    foresee(job, until, wanted)
    base = base_of(job, until)
    if not folder.stage("train").begun:
        folder.record(**base_facts(base, folder))
    before, again = trained_digest(folder), job.restarts("train", until)
    train(
        folder,
        run.train,
        base,
        dtype=run.model.dtype,
        seed=run.seed,
        log=log,
        unknown=run.evaluate.unknown,
        accept=accept,
        restart=again,
    )
    folder.record(**base_facts(base, folder))
    if trained_digest(folder) != before:
        folder.record(code=environment.code_digest(), environment=environment.facts())
    keep_settings(job, ("data", "train"))

    if "evaluate" in wanted:
        if until == "evaluate" or held_out(job):
            again = job.restarts("evaluate", until)
            evaluate(
                folder, run.evaluate, base, seed=run.seed, log=log, accept=accept, restart=again
            )
        else:
            unmeasured(job)
        keep_settings(job, ("data", "train", "evaluate"))
        page.write(folder)
    if "deploy" in wanted:
        enforce(folder.stage("data").path, run.policy, "export")
        again = job.restarts("deploy", until)
        deploy(folder, run.deploy, base, seed=run.seed, log=log, accept=accept, restart=again)
        keep_settings(job, STAGES)
        model_card.write(folder)
        page.write(folder)  # Once more: now it can name the verified exports.


def fixed(job: Job) -> None:
    """The prepared rows as a data set of their own."""
    with job.folder.lock():
        fix(job.folder, job.loaded.run.data, seed=job.loaded.run.seed, log=job.log)


def fitted(loaded: Loaded) -> Loaded:
    """The run with the export that its method can have, where the run file names none."""
    run = loaded.run
    if loaded.says("deploy.exports") or run.train.method.leaves_adapter:
        return loaded
    exports = run.deploy.model_copy(update={"exports": [Merged()]})
    return replace(loaded, run=run.model_copy(update={"deploy": exports}))


def foresee(job: Job, until: str, wanted: Collection[str]) -> None:
    """Refuse before training what is known to stop the run after it: what is asked of the rows is
    settled here as it will be there."""
    environment.need("train", "torch", "transformers", "peft")
    run, data = job.loaded.run, job.folder.stage("data").path
    if run.model.bits is not None:
        environment.need("qlora", "bitsandbytes")
    rows: list[Row] = []
    if "evaluate" in wanted:
        environment.need("eval", "matplotlib")  # Draws the page.
        rows = held_out(job)
        if note := enough(run.evaluate, len(rows), wanted=until == "evaluate"):
            job.log.say(note)
    if rows:
        choose(run.evaluate.device, "evaluate.device")
        asked = questions(data, run.evaluate, seed=run.seed, head=head_to_be(run, data))
        general.inputs(asked.general)
        for metric in asked.metrics:
            try:
                metric.note()
            except ImportError as error:
                raise missing(error.name or metric.kind, "eval") from error
    for sink in run.train.sinks:
        sink.accept()
    if "deploy" in wanted and not run.train.method.leaves_adapter:
        for export in run.deploy.exports:
            # What training will leave holds no adapter; the run's own folder has none either.
            export.accept(job.folder.path)


def head_to_be(run: Run, data: Path) -> Meaning | None:
    """What the head that training makes will say, if it makes one."""
    if not run.train.objective.scores:
        return None
    rows = learnable(data, run.evaluate.unknown)
    return fitted_to(run.train, rows).objective.meaning()


def base_of(job: Job, until: str) -> Base:
    """The model the run starts from: as the finished training took it, unless training is asked
    for. Tells where it is another one than before."""
    recorded, asked = job.folder.manifest().get("base") or {}, asks_model(job, until)
    base = resolve(job.loaded.run.model, known_base(job, until))
    if job.folder.stage("train").begun and recorded.get("digest", base.digest) != base.digest:
        job.log.say(changed(base, recorded))
    if asked and "head" in base.lineage:
        job.log.say(
            f"model: the head of {base.source} stays behind; model.start=continue goes on with it"
        )
    return base


def refuse_no_model(job: Job, until: str) -> None:
    """A name that means no model is refused before rows are read and anything is written."""
    with job.loaded.naming("model.source"):
        check_name(job.loaded.run.model, known_base(job, until))


def changed(base: Base, recorded: Mapping[str, Any]) -> str:
    """That the model is no longer the one that the run was begun with, and how to keep to that."""
    then, now = recorded.get("revision"), base.revision
    if recorded["source"] != base.source:
        return f"model: this run was begun with {recorded['source']}, and now it is {base.source}"
    if not then or not now:
        return f"model: {base.source} has other weights than when this run was begun with it"
    return (
        f"model: {base.source} has moved since this run was trained, from commit {then} to {now}; "
        f"to keep to the old one: model.revision={then}"
    )


def held_out(job: Job) -> list[Row]:
    """The rows to measure by."""
    return read_part(job.folder.stage("data").path, job.loaded.run.evaluate.part)


def unmeasured(job: Job) -> None:
    """A run without rows to measure by goes on; what was measured of another is put away."""
    part, stage = job.loaded.run.evaluate.part, job.folder.stage("evaluate")
    job.log.say(
        f"evaluate: no {part} rows, so nothing is measured: whether tuning helped or harmed is not "
        f"known. Hold rows out by data.split, or name a file as data.{part}"
    )
    if stage.begun:
        stage.set_aside()


def trained_digest(folder: RunFolder) -> str | None:
    """The digest of the finished training, if there is one."""
    stage = folder.stage("train")
    return stage.digest if stage.finished else None


def refuse_unknown(job: Job) -> None:
    """Refuse names after `--accept-change` that no stage could mean."""
    if not job.accept:
        return
    paths = [path.split(".") for path in job.loaded.origins]
    known = {".".join(path[:size]) for path in paths for size in range(1, len(path) + 1)}
    for stage in map(job.folder.stage, STAGES):
        known |= set() if stuck(stage) and job.restart else {*stage.inputs}
    for name in job.accept:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            advice = f"did you mean {shlex.quote(near[0])}?" if near else "copy it from the refusal"
            raise SettingsError(f"--accept-change {shlex.quote(name)}: no such setting; {advice}")


def refuse_other_folder(given: Path | str, loaded: Loaded, meant: Path) -> None:
    """A run's folder that was copied or renamed says another name than it has: work on it would be
    done in the folder of that name, which is right only where the name was said beside it."""
    place = run_of(run_file(Path(given)))
    if place is not None and not loaded.overrides("name") and place.resolve() != meant.resolve():
        raise SettingsError(
            f"{place}: its run.yaml says name: {meant.name}, so the work would be done in {meant}; "
            f"call that one, or say name={place.name} where this folder lies in runs/"
        )


def refuse_moved_rows(job: Job, until: str) -> None:
    """Rows that changed under a training which was stopped are refused before they take the place
    of those that it was begun with."""
    train, field = job.folder.stage("train"), "digest of the data"
    if train.finished or not has_saved(train) or field in job.accept:
        return
    if job.restarts("train", until) or job.restarts("data", until):
        return
    if why := outdated(job.folder, job.loaded.run.data, seed=job.loaded.run.seed):
        raise SettingsError(
            f"{train.path}: this training was stopped, and would go on with other rows: {why}. Put "
            f"them back, go on with these by --accept-change {shlex.quote(field)}, or start over: "
            "`tunesmith train RUN.yaml --restart`"
        )


def refuse_itself(job: Job) -> None:
    """A run that started from itself would put away what it stands on."""
    source = Path(job.loaded.run.model.source).expanduser()
    if source.exists() and source.resolve() == job.folder.path.resolve():
        raise SettingsError(
            f"model.source: {job.loaded.run.model.source} is this very run; give the new one "
            "another name: name=..."
        )


def keep_settings(job: Job, done: Collection[str]) -> None:
    """The resolved run beside its results, every value with where it was said.

    A stage that was begun and is not `done` keeps the settings it was begun with: a change that
    is refused, or not asked for, must not replace them.
    """
    path = job.folder.path / RUN_FILE
    found = sections(text(job.loaded, job.folder.path, Path.cwd()))
    before = sections(path.read_text("utf-8", "replace")) if path.exists() else {}
    for name, stage in OWNERS.items():
        if stage not in done and job.folder.stage(stage).begun:
            found[name] = before.get(name, found[name])
    write_text(path, "".join(found.values()))


def sections(content: str) -> dict[str, str]:
    """The lines of a resolved run by the section they are in; what is above them under ""."""
    found, name = {"": ""}, ""
    for line in content.splitlines(keepends=True):
        name = line.partition(":")[0] if line[0].isalpha() else name
        found[name] = found.get(name, "") + line
    return found


def data_facts(folder: RunFolder) -> dict[str, str]:
    """The digests of the rows as they came and as they were prepared."""
    stage = folder.stage("data")
    named = {name: value for name, value in stage.inputs.items() if name.startswith(SOURCE)}
    source = next(iter(named.values())) if len(named) == 1 else digest(named)
    return {"source": source, "prepared": stage.digest}


def base_facts(base: Base, folder: RunFolder) -> dict[str, object]:
    """The digests of the model that was started from, and of how its text is made."""
    tokenizer = tokenizer_of(base)
    return {
        "base": base.record(folder.path),
        "from": base.lineage,
        "tokenizer": tokenizer.digest,
        "template": tokenizer.template_digest,
    }


def result(job: Job) -> dict[str, Any]:
    """Where everything is, by name, as far as the run has come."""
    path = job.folder.path
    places = {
        "data": path / "data",
        "data page": path / "cards" / "data.html",
        "fixed": path / FIXED,
        "trained": path / "train",
        "page": path / "evaluate" / "report.html",
        "exports": path / "deploy",
        "card": path / "cards" / "model_card.md",
    }
    stages = [name for name in STAGES if job.folder.stage(name).finished]
    half = {path / name for name in (*STAGES, FIXED) if not job.folder.stage(name).finished}
    whole = {name: place for name, place in places.items() if place.exists()}
    there = {name: str(place) for name, place in whole.items() if place not in half}
    if how := halted(job.folder.stage("train")):
        there["training"] = f"{how}: {path / 'train'}"
    return {"run": job.folder.name, "folder": str(path), "stages": stages, **there, **apart(path)}


def apart(path: Path) -> dict[str, Any]:
    """Every measure of each source by itself, where the run was evaluated on several."""
    report = path / "evaluate" / "report.json"
    found = read_json(report).get("sources") if report.exists() else None
    return {"sources": found} if found else {}


def sentences(found: dict[str, Any]) -> str:
    """The same for a reader."""
    places = [f"{name}: {place}" for name, place in found.items() if isinstance(place, str)]
    return "\n".join(places[1:])
