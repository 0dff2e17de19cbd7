"""What a run would do (`--dry-run`): rows, tokens, steps, and roughly its memory and time.

Nothing is written beside the cache of models: rows are prepared in a folder that is thrown away.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tunesmith import environment
from tunesmith.core.errors import SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.mixing import Recipe, recipe_of
from tunesmith.core.rows import Row
from tunesmith.core.tables import read_part
from tunesmith.costs import cost
from tunesmith.data.policy import enforce
from tunesmith.data.stage import outdated, prepare
from tunesmith.evaluate.questions import enough
from tunesmith.model.bases import Base, check_name, resolve
from tunesmith.model.load import context, outline
from tunesmith.model.render import fit
from tunesmith.model.words import tokenizer_of
from tunesmith.run import Run
from tunesmith.train.batches import common_start, steps_in
from tunesmith.train.loop import Train
from tunesmith.train.mixture import mixed
from tunesmith.train.stage import (
    fitted,
    has_saved,
    in_pieces,
    inputs,
    learnable,
    left_out,
    refuse_unfit,
)

PARTS = ("train", "valid", "test")
RESTART = "as --restart says"


@contextmanager
def prepared(
    run: Run, log: Log, there: RunFolder | None = None, *, restart: bool = False
) -> Iterator[RunFolder]:
    """The rows as they would be prepared `there`, in a folder that is thrown away."""
    with TemporaryDirectory() as aside:
        folder = RunFolder(Path(aside) / "runs" / run.name)
        folder.create()
        prepare(folder, run.data, seed=run.seed, log=log, restart=restart, instead_of=there)
        yield folder


def rows(folder: RunFolder, notes: Collection[str] = ()) -> dict[str, Any]:
    """The rows of each part, after transforms and split."""
    counts = {part: len(read_part(folder.path / "data", part)) for part in PARTS}
    return {"rows": counts, "notes": [*notes]}


def whole(
    run: Run,
    log: Log,
    there: RunFolder | None = None,
    accept: Collection[str] = (),
    *,
    again: Collection[str] = (),
    known: Mapping[str, Any] | None = None,
    until: str = "train",
) -> dict[str, Any]:
    """Rows, tokens, steps; bytes and seconds as rough figures. What the run begun `there` would
    refuse is refused here; `again` are the stages of it that are started over, and `known` is what
    it recorded of its base, as for `resolve`. The command goes on `until` a stage, or all of it."""
    environment.need("train", "torch", "transformers", "peft")
    if run.model.bits is not None:
        environment.need("qlora", "bitsandbytes")
    check_name(run.model, known)
    with prepared(run, log, there, restart="data" in again) as folder:
        enforce(folder.stage("data").path, run.policy, "train")
        base = resolve(run.model, known)
        notes: list[str] = []
        if there is not None:
            wanted = asked(there, folder, run, base)
            if "train" not in again:
                refuse_changed(there, wanted, accept)
            notes.append(making_way(there, run, wanted, again) or staying(there))
        refuse_unfit(run.train, base, run.model.dtype)
        rows = learnable(folder.path / "data", run.evaluate.unknown)
        spec = fitted(run.train, rows)
        counted = tokens(rows, spec, base, recipe_of(folder.path / "data"))
        counted["rows"]["test"] = len(read_part(folder.path / "data", "test"))
    notes.append(unused(run.train))
    if until != "train":
        count = counted["rows"][run.evaluate.part]
        notes.append(enough(run.evaluate, count, wanted=until == "evaluate"))
    if there is None or not there.stage("train").begun:  # That goes on as it was begun.
        notes.append(quicker(run.train, base, run.model.dtype))
    return counted | cost(run, spec, base, counted) | {"notes": [*filter(None, notes)]}


def asked(there: RunFolder, folder: RunFolder, run: Run, base: Base) -> dict[str, Any]:
    """What training `there` would be begun with; `folder` has the rows as they would be."""
    data, mine = there.stage("data"), folder.stage("data")
    wanted = inputs(folder, run.train, base, tokenizer_of(base), run.model.dtype, run.seed)
    wanted["valid rows left out"] = left_out(mine.path, run.evaluate.unknown)
    if data.finished and data.inputs == mine.inputs:
        wanted["digest of the data"] = data.digest  # Kept, in the words of whoever prepared it.
    return wanted


def refuse_changed(there: RunFolder, wanted: Mapping[str, Any], accept: Collection[str]) -> None:
    """Refuse settings that a training stopped `there` was not begun with."""
    stage = there.stage("train")
    if not stage.finished and has_saved(stage):
        stage.refuse_changed(wanted, accept)


def making_way(
    there: RunFolder, run: Run, wanted: Mapping[str, Any], again: Collection[str]
) -> str:
    """Which finished results would make way for new ones, and why; nothing where all would stay.
    With rows goes what was trained on them."""
    if line := rows_making_way(there, run, again):
        return line
    train = there.stage("train")
    return train.making_way(RESTART if "train" in again else train.outdated(wanted))


def staying(there: RunFolder) -> str:
    """That a finished training stays, where nothing makes way."""
    train = there.stage("train")
    if not train.finished:
        return ""
    return f"{train.path}: its training is finished and stays; nothing is trained again"


def rows_making_way(there: RunFolder, run: Run, again: Collection[str]) -> str:
    """The same of the rows."""
    why = RESTART if "data" in again else outdated(there, run.data, seed=run.seed)
    return there.stage("data").making_way(why)


def unused(spec: Train) -> str:
    """A setting that was said and that another one overrides."""
    if spec.steps is None or "epochs" not in spec.model_fields_set:
        return ""
    return f"train.steps={spec.steps} says how long; train.epochs={spec.epochs} is not used"


def quicker(spec: Train, base: Base, dtype: str) -> str:
    """A setting with which the steps of a new training would take less time here."""
    from tunesmith.model import arithmetic

    if spec.arithmetic != "floats" or not spec.method.moves:
        return ""
    try:
        refuse_unfit(spec.model_copy(update={"arithmetic": "bfloat16"}), base, dtype)
        arithmetic.layers(outline(base), "bfloat16", scores=True)  # Not the head alone.
    except SettingsError:
        return ""
    return (
        "train.arithmetic=bfloat16 would take a quarter to a third less time on this processor; "
        "what a step multiplies is rounded then"
    )


def tokens(
    rows: Mapping[str, Sequence[Row]], spec: Train, base: Base, recipe: Recipe | None
) -> dict[str, Any]:
    """What training would see: too long rows are refused here as they would be there, and only
    those: test rows are asked, not trained on."""
    tokenizer = tokenizer_of(base)
    found: dict[str, Any] = {"rows": {}}
    for part, read in rows.items():
        if part == "test":
            continue
        examples = [spec.objective.encode(row, tokenizer) for row in read]
        pieces = in_pieces(read, examples, spec)
        kept, _ = fit(pieces, spec.length, spec.too_long, partial(context, base))
        found["rows"][part] = len(kept)
        if part == "train":
            found["tokens"] = sum(example.length for example in kept)
            found["trained"] = sum(s.supervised for e in kept for s in e.sequences)
            found["epoch"] = mixed(kept, recipe).size
            found["longest"] = max((example.length for example in kept), default=0)
            found["squares"] = sum(example.length**2 for example in kept)
            found["common"] = common_start(kept) if kept else 0
    found["steps"] = spec.steps or spec.epochs * steps_in(found["epoch"], spec.batch)
    return found


def sentence(found: dict[str, Any]) -> str:
    """The forecast for a reader."""
    rows = ", ".join(f"{part} {count}" for part, count in found["rows"].items())
    notes = "".join(f"{note}\n" for note in found["notes"])
    if "tokens" not in found:
        return f"rows: {rows}\n{notes}Nothing was written."
    # A goal that scores whole texts trains no token.
    trained = f", {found['trained']:,} of them trained" if found["trained"] else ""
    again = ""
    if found["blocks_again"]:
        count = f"{found['blocks_again']} of {found['blocks']}"
        again = f", {count} blocks computed again on the way back"
    return (
        f"rows: {rows}\n"
        f"tokens: {found['tokens']:,} an epoch{trained}, the longest row {found['longest']}\n"
        f"steps: {found['steps']}; {found['moving_parameters']:,} of "
        f"{found['parameters']:,} parameters move\n"
        f"roughly: {found['memory_bytes'] / 1e9:.1f} GB of memory, "
        f"{about(found['train_seconds'])} of training on this machine{again}, evaluation left out\n"
        f"{notes}Nothing was written."
    )


def about(seconds: float) -> str:
    """A time as exactly as a forecast knows it."""
    minutes = seconds / 60
    if minutes < 1:
        return "less than a minute"
    if minutes < 10:
        return f"about {round(minutes)} minute{'s' if round(minutes) > 1 else ''}"
    if minutes < 100:
        return f"about {5 * round(minutes / 5)} minutes"
    hours = minutes / 60
    return f"about {hours:.1f} hours" if hours < 10 else f"about {round(hours)} hours"
