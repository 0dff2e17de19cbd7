"""The command line: one command for each stage, and a few to look around.

A setting is never a flag: every command takes `path=value` overrides on the run file instead.
"""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.door import Visit, advised, enter

if TYPE_CHECKING:
    from tunesmith.answers import Arm
    from tunesmith.job import Job

app = typer.Typer(
    name="tunesmith",
    help="Fine-tune a language model from a file of rows; measure, verify and keep the result.",
    epilog="Exit codes: 0 done, 2 settings, 3 data, 4 integrity, 5 resources, 6 diverged, "
    "7 internal error, 75 preempted, 130 interrupted.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# `readable=False`: whether a path can be read is told where it is opened, with what to do.
RunFile = Annotated[
    Path,
    typer.Argument(
        metavar="RUN.yaml",
        help="A run file, a file of rows, or a run's name or folder.",
        readable=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=c", help="Settings that override the run file's."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        "--accept-change",
        metavar="FIELD",
        help="Go on with an unfinished stage although FIELD has changed; may be repeated.",
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart", help="Start over, under `run` every stage; the old folder moves to earlier/."
    ),
]
Finished = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's name or folder, or its run file.")
]
FromBase = Annotated[bool, typer.Option("--base", help="Ask the untuned model instead.")]


@app.callback()
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Fine-tune a language model from a file of rows; measure, verify and keep the result."""
    if version:
        from tunesmith import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def demo(as_json: Json = False, dry_run: DryRun = False) -> None:
    """Tune the bundled model on the example rows and compare it with itself before."""
    from tunesmith import demo as example

    if dry_run:
        foretell(prepared(example.RUN, None, as_json), "train", as_json)
        return
    from tunesmith import pipeline

    job = prepared(example.RUN, None, as_json)
    pipeline.carry_out(job, "deploy")
    result = example.result(job)
    show(result, example.picture(result), as_json)


@app.command()
def init(
    where: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS", help="A file or folder of rows; or a new name.", readable=False
        ),
    ] = Path("."),
    to: Annotated[
        Path | None,
        typer.Argument(metavar="RUN.yaml", help="The run file; by default named as the rows."),
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Write a first run file that fits the rows; a new folder gets example rows."""
    from tunesmith import starter

    found = starter.planned(where, to) if dry_run else starter.init(where, to)
    names = [str(path) for path in found]
    verb = "would write" if dry_run else "wrote"
    waits = not dry_run and starter.UNSAID in found[0].read_text("utf-8")
    first = f"say in {names[0]} what is in the columns, then: " if waits else ""
    following = f"next: {first}tunesmith run {names[0]}"
    text = "\n".join([*(f"{verb} {name}" for name in names), following])
    show({"written": [] if dry_run else names, "files": names}, text, as_json)


@app.command()
def doctor(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]")] = None, as_json: Json = False
) -> None:
    """Check this machine, or every file of a finished run."""
    from tunesmith import doctor as checks

    found = checks.of_run(run) if run else checks.of_machine()
    show([check.record() for check in found], checks.lines(found), as_json)
    if any(check.needed and not check.passed for check in found):
        raise typer.Exit(checks.code(found))


@app.command()
def data(
    run: RunFile,
    overrides: Overrides = None,
    show_rows: Annotated[
        int, typer.Option("--show", metavar="N", help="Print N rows, trained tokens in colour.")
    ] = 0,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Write the rows as a data set of their own, with what was decided of each.",
        ),
    ] = False,
    as_json: Json = False,
    dry_run: DryRun = False,
    accept_change: Accept = None,
    restart: Restart = False,
) -> None:
    """Read, check, transform and split the rows; a trained run stays as it is."""
    job = prepared(run, overrides, as_json, accept_change, restart)

    from tunesmith import looks, pipeline, rows_told
    from tunesmith.core.errors import SettingsError

    shown = 0 if as_json else show_rows
    if shown:
        pipeline.refuse_no_model(job, "data")
    kept = rows_told.on_other_rows(job)
    if kept and fix:
        raise SettingsError(f"{kept}. --fix needs rows that are prepared in the run")
    if kept or dry_run:
        look(job, kept, shown, as_json)
        return
    carry_out(job, "data", as_json, fix=fix)
    if shown:
        looks.rows(job, shown)


STAGED = {
    "train": "Prepare the rows if need be, and tune the model.",
    "evaluate": "Compare the tuned model with its base on held-out rows, and write the report.",
    "deploy": "Export the tuned model, each form verified by a reload, and write its card.",
    "run": "All of it: data, train, evaluate, deploy, cards. What is done already is kept.",
}
"""The commands that differ only in how far they go."""


def staged(until: str) -> Callable[..., None]:
    """The command that carries a run out up to a stage."""

    def command(
        run: RunFile,
        overrides: Overrides = None,
        as_json: Json = False,
        dry_run: DryRun = False,
        accept_change: Accept = None,
        restart: Restart = False,
    ) -> None:
        job = prepared(run, overrides, as_json, accept_change, restart)
        if dry_run:
            foretell(job, until, as_json)
        else:
            carry_out(job, until, as_json)

    return command


for until, what in STAGED.items():
    app.command(until, help=what)(staged(until))


@app.command()
def predict(
    run: Finished,
    rows: Annotated[
        Path, typer.Argument(metavar="ROWS", help="A file of rows to answer.", readable=False)
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Append here; a second call goes on.", readable=False
        ),
    ] = None,
    base: FromBase = False,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose labels, where each task has its own head."),
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Answer the rows of a file: each row as a JSON line, in order, with `predicted` added."""
    from tunesmith import predict as predictions
    from tunesmith.core.log import Log

    arm: Arm = "base" if base else "tuned"
    if dry_run:
        asked = predictions.planned(run, rows, out, overrides or (), arm, task)
        show({"rows": asked.left}, asked.told(out, f"{rows}: {asked.left} rows to answer"), as_json)
        return
    asked = predictions.write(run, rows, out, overrides or (), arm, Log(quiet=as_json), task)
    if out is not None:
        said = asked.told(out, f"{out}: {asked.left} rows added")
        show({"out": str(out), "written": asked.left}, said, as_json)


@app.command()
def chat(
    run: Finished,
    overrides: Overrides = None,
    base: FromBase = False,
    both: Annotated[
        bool, typer.Option("--both", help="Ask the untuned model beside the tuned one.")
    ] = False,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="The system prompt.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Talk to a tuned model; /quit, Ctrl-D or Ctrl-C ends it."""
    from tunesmith import chat as conversation

    speak = conversation.as_json if as_json else conversation.as_text
    arms = conversation.arms(base=base, both=both)
    conversation.hold(run, overrides or (), arms, speak, system=system)


@app.command()
def runs(
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Say which checkpoints and earlier results of trained runs can go."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --prune: remove them.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs of this folder: state, measurements, disk space."""
    from tunesmith import shelf
    from tunesmith.core.errors import SettingsError
    from tunesmith.places import RUNS

    if yes and not prune:
        raise SettingsError("--yes says yes to --prune; give both")
    if prune:
        gone = shelf.prune(RUNS, remove=yes)
        show(gone, shelf.removal(gone, removed=yes), as_json)
        return
    found = shelf.runs(RUNS)
    show(found, shelf.table(found), as_json)


@app.command("who-saw")
def who_saw(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="ROW|FILE|TEXT", help="A row's digest, a file of rows, or words of a row."
        ),
    ],
    as_json: Json = False,
) -> None:
    """List the runs of this folder that were trained on a row, and the models that hold it."""
    from tunesmith import lineage
    from tunesmith.places import RUNS

    found = lineage.who_saw(asked, RUNS)
    show([each.record() for each in found], lineage.sentences(asked, found), as_json)


@app.command()
def explain(
    path: Annotated[str, typer.Argument(metavar="PATH")] = "", as_json: Json = False
) -> None:
    """Say what a setting, section or part means: train.lr, train.method.lora."""
    from tunesmith import reference

    text = reference.explain(path)
    show({"path": path, "text": text}, text, as_json)


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the JSON Schema of run files, for editors."""
    from tunesmith import reference

    found = reference.json_schema()
    show(found, json.dumps(found, indent=2), as_json)


def prepared(
    run: Path,
    overrides: list[str] | None,
    as_json: bool,
    accept: list[str] | None = None,
    restart: bool = False,
) -> "Job":
    """Read and check the settings, before anything heavy is imported."""
    from tunesmith import run as settings

    loaded = settings.load_with_origins(run, overrides or ())

    from tunesmith.core.folders import RunFolder
    from tunesmith.core.log import Log
    from tunesmith.job import Job
    from tunesmith.pipeline import refuse_other_folder
    from tunesmith.places import RUNS

    folder = RunFolder(RUNS / loaded.run.name)
    refuse_other_folder(run, loaded, folder.path)
    Visit.folder, Visit.given = folder.path, shlex.join([str(run), *(overrides or ())])
    return Job(loaded, folder, Log(folder, quiet=as_json), tuple(accept or ()), restart)


def carry_out(job: "Job", until: str, as_json: bool, *, fix: bool = False) -> None:
    """Do the work, then say where everything is."""
    from tunesmith import pipeline

    pipeline.carry_out(job, until)
    if fix:
        pipeline.fixed(job)
    result = pipeline.result(job)
    show(result, pipeline.sentences(result), as_json)


def foretell(job: "Job", until: str, as_json: bool) -> None:
    """`--dry-run`."""
    from tunesmith import forecast
    from tunesmith.core.log import Log
    from tunesmith.job import known_base

    known = known_base(job, until)
    again = [stage for stage in ("data", "train") if job.restarts(stage, until)]
    run, log = job.loaded.run, Log(quiet=as_json)
    with job.loaded.naming("model.source"):
        found = forecast.whole(
            run, log, job.folder, job.accept, again=again, known=known, until=until
        )
    show(found, forecast.sentence(found), as_json)


def look(job: "Job", kept: str, count: int, as_json: bool) -> None:
    """The rows as they would be, `count` of them shown, and nothing written. `kept` says why not,
    where that was not asked for."""
    from dataclasses import replace

    from tunesmith import forecast, looks, rows_told
    from tunesmith.core.log import Log

    run, log = job.loaded.run, Log(quiet=as_json)
    again = ["data"] if job.restart else []
    note = advised(kept) if kept else forecast.rows_making_way(job.folder, run, again)
    with forecast.prepared(run, log, job.folder, restart=job.restart) as folder:
        aside = replace(job, folder=folder, log=log)
        rows_told.tell_rows(aside)
        found = forecast.rows(folder, [note] if note else [])
        show(found, forecast.sentence(found), as_json)
        if count:
            looks.rows(aside, count)


def show(result: Any, text: str, as_json: bool) -> None:
    """The result of a command on stdout."""
    print(json.dumps(result, ensure_ascii=True) if as_json else text, flush=True)


def main(words: list[str] | None = None) -> None:
    """The `tunesmith` command."""
    sys.exit(enter(app, sys.argv[1:] if words is None else words))


if __name__ == "__main__":
    main()
