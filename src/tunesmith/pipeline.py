"""A whole run on one page: data, train, evaluate, deploy, cards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import environment
from tunesmith.cards import model_card, page
from tunesmith.core.folders import RunFolder, file_digest, write_text
from tunesmith.core.log import Log
from tunesmith.data.stage import prepare
from tunesmith.deploy.stage import deploy
from tunesmith.evaluate.stage import evaluate
from tunesmith.model.load import Base, resolve
from tunesmith.model.render import Tokenizer
from tunesmith.resolved import text
from tunesmith.run import Loaded
from tunesmith.train.stage import train

STAGES = ("data", "train", "evaluate", "deploy")


@dataclass(frozen=True)
class Job:
    """A run to carry out, where its files go, and what a person decided about a changed one."""

    loaded: Loaded
    folder: RunFolder
    log: Log
    accept: tuple[str, ...] = ()
    restart: bool = False

    def decisions(self, stage: str, until: str) -> tuple[tuple[str, ...], bool]:
        """`--restart` is for the stage that was asked for, and for one before it that is stuck."""
        stuck = not self.folder.stage(stage).finished
        return self.accept, self.restart and (stage == until or stuck)


def job(loaded: Loaded, log: Log | None = None, home: Path | None = None) -> Job:
    """The job of a run whose folder is `runs/<name>/` beside where the command is given."""
    folder = RunFolder((home or Path.cwd()) / "runs" / loaded.run.name)
    return Job(loaded, folder, log or Log(folder))


def carry_out(job: Job, until: str) -> None:
    """The stages up to `until`, under the run's lock. What is finished and unchanged is kept."""
    job.folder.create()
    with job.folder.lock():
        # A change that is refused must not replace the settings that the results were made with.
        if not (job.folder.path / "run.yaml").exists():
            keep_settings(job)
        go(job, until)
        keep_settings(job)


def go(job: Job, until: str) -> None:
    """One stage after the other; they meet through the run folder alone."""
    run, folder, log = job.loaded.run, job.folder, job.log
    wanted = STAGES[: STAGES.index(until) + 1]

    accept, restart = job.decisions("data", until)
    prepare(folder, run.data, seed=run.seed, log=log, accept=accept, restart=restart)
    folder.record(data=data_facts(folder, run.data.source), seed=run.seed, name=run.name)
    if "train" not in wanted:
        return

    environment.need("train", "torch", "transformers", "peft")
    base = resolve(run.model)
    folder.record(**base_facts(base))
    accept, restart = job.decisions("train", until)
    train(
        folder,
        run.train,
        base,
        dtype=run.model.dtype,
        seed=run.seed,
        log=log,
        accept=accept,
        restart=restart,
    )
    folder.record(code=environment.code_digest(), environment=environment.facts())

    if "evaluate" in wanted:
        accept, restart = job.decisions("evaluate", until)
        evaluate(folder, run.evaluate, base, seed=run.seed, log=log, accept=accept, restart=restart)
        page.write(folder)
    if "deploy" in wanted:
        accept, restart = job.decisions("deploy", until)
        deploy(folder, run.deploy, base, seed=run.seed, log=log, accept=accept, restart=restart)
        model_card.write(folder)
        page.write(folder)  # Once more: now it can name the verified exports.


def keep_settings(job: Job) -> None:
    """The resolved run beside its results, every value with where it was said."""
    write_text(job.folder.path / "run.yaml", text(job.loaded, job.folder.path, Path.cwd()))


def data_facts(folder: RunFolder, source: str) -> dict[str, str]:
    """The digests of the rows as they came and as they were prepared."""
    return {"source": file_digest(Path(source)), "prepared": folder.stage("data").digest}


def base_facts(base: Base) -> dict[str, object]:
    """The digests of the model that was started from, and of how its text is made."""
    tokenizer = Tokenizer.load(base.folder)
    return {
        "base": {"source": base.source, "digest": base.digest, **base.facts},
        "tokenizer": tokenizer.digest,
        "template": tokenizer.template_digest,
    }


def result(job: Job) -> dict[str, Any]:
    """Where everything is, by name, as far as the run has come."""
    path = job.folder.path
    places = {
        "data": path / "data",
        "trained": path / "train",
        "page": path / "evaluate" / "report.html",
        "exports": path / "deploy",
        "card": path / "cards" / "model_card.md",
    }
    there = {name: str(place) for name, place in places.items() if place.exists()}
    stages = [name for name in STAGES if job.folder.stage(name).finished]
    return {"run": job.folder.name, "folder": str(path), "stages": stages, **there}


def sentences(found: dict[str, Any]) -> str:
    """The same for a reader."""
    places = [f"{name}: {place}" for name, place in found.items() if isinstance(place, str)]
    return "\n".join(places[1:])
