"""What a reader should know of prepared rows before anything is trained on them."""

from tunesmith.core.lock import in_use_by
from tunesmith.core.rows import Row
from tunesmith.core.tables import read_part
from tunesmith.data.shelf import rows_in
from tunesmith.data.stage import outdated
from tunesmith.data.words import told
from tunesmith.job import Job, known_base
from tunesmith.model.bases import resolve
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import tokenizer_of
from tunesmith.train.stage import halted


def on_other_rows(job: Job) -> str:
    """Where a training was begun with other rows than those asked for: that it stays as it is. A
    look at rows takes no model out of service; `train` is asked to, and `--restart` says so."""
    stage, folder = job.folder.stage("train"), job.folder
    if job.restart or not stage.begun:
        return ""
    why = outdated(folder, job.loaded.run.data, seed=job.loaded.run.seed)
    if not why:
        return ""
    how, again = halted(stage) or "finished", " --restart" if halted(stage) else ""
    if again and in_use_by(folder.path / "lock") is not None:
        how = "under way"
    return (
        f"{folder.path}: its training ({how}) is on rows that were prepared otherwise: {why}. It "
        f"stays as it is, and these are only looked at; `tunesmith train RUN.yaml{again}` trains "
        f"on them and moves it to {folder.path / 'earlier'}, name=OTHER makes a run of their own"
    )


def tell_rows(job: Job) -> None:
    """What is to be known of prepared rows before they are trained on."""
    tell_goal(job)
    tell_words(job)


def tell_goal(job: Job) -> None:
    """Which objective would use the rows, where that of the run does not train on such."""
    objective = job.loaded.run.train.objective
    kind: type[Row] | None = None
    for row in rows_in(job.folder.stage("data").path / "train.jsonl"):
        if isinstance(row, objective.row):
            return
        kind = kind or type(row)
    if kind is not None:
        found = [f"train.objective={name}" for name in objective.of_rows(kind)]
        which = " or ".join(found) or "no objective of this version"
        job.log.say(
            f"rows of kind {kind.kind}: {which} trains on such, train.objective={objective.kind} "
            "does not"
        )


def tell_words(job: Job) -> None:
    """What the words of `model.tokens` do to the text: pieces before and after."""
    if not job.loaded.run.model.tokens:
        return
    base = resolve(job.loaded.run.model, known_base(job, "data"))
    rows = read_part(job.folder.stage("data").path, "train")
    for line in told(base.tokens, rows, Tokenizer.load(base.folder), tokenizer_of(base)):
        job.log.say(line)
