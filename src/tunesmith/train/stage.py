"""The train stage: prepared rows and a base model in, a verified trained folder out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.core.records import Example
from tunesmith.core.rows import Labelled, Row, digest
from tunesmith.core.tables import read_part
from tunesmith.model import arithmetic, load, render
from tunesmith.model.bases import Base
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import tokenizer_of
from tunesmith.train import cache, checkpoint, continued
from tunesmith.train.loop import Train
from tunesmith.train.objectives.base import Objective
from tunesmith.train.session import Session

PARTS = ("train", "valid", "test")


def train(
    folder: RunFolder,
    spec: Train,
    base: Base,
    *,
    dtype: str = "auto",
    seed: int,
    log: Log,
    unknown: str | None = None,
    accept: Collection[str] = (),
    restart: bool = False,
) -> None:
    """Train as `spec` says on the run's prepared rows, going on where an earlier call stopped.
    `unknown` is the label that means none of those that are learned.

    Leaves the method's saved result, the tokenizer, `train.json`, curves and checkpoints in
    `train/`. Raises Preempted or Interrupted after saving, when asked to stop.
    """
    refuse_unfit(spec, base, dtype)
    stage, tokenizer = folder.stage("train"), tokenizer_of(base)
    continued.refuse_unlike(spec.method, base, tokenizer)
    wanted = inputs(folder, spec, base, tokenizer, dtype, seed)
    wanted["valid rows left out"] = left_out(folder.stage("data").path, unknown)
    saved = has_saved(stage)
    if not stage.begin(wanted, accept=accept, restart=restart, saved=saved, say=log.say):
        log.say("train: nothing to do, finished before with the same inputs")
        return
    with stage.unbegun_if_refused(lambda: has_saved(stage)):
        rows = learnable(folder.stage("data").path, unknown)
        if not rows["train"]:
            raise DataError("no rows are left to train on; see data/account.json for the reasons")
        spec, kept = fitted(spec, rows), ("train", "valid")
        longest = partial(load.context, base)
        examples = {
            part: _examples(part, rows[part], spec, tokenizer, log, longest) for part in kept
        }
        Session(stage, spec, base, tokenizer, examples, dtype, seed, log).run()


def has_saved(stage: Stage) -> bool:
    """Whether a step was saved that can be gone on from."""
    return bool(checkpoint.steps(stage.path / "checkpoints"))


def halted(stage: Stage) -> str:
    """How far a training came that is not finished, in words; nothing of one that is, or was never
    begun."""
    if stage.finished or not stage.begun:
        return ""
    saved = checkpoint.steps(stage.path / "checkpoints")
    return f"stopped at step {checkpoint.step_of(saved[0])}" if saved else "begun, no step saved"


def learnable(data: Path, unknown: str | None) -> dict[str, list[Row]]:
    """The prepared rows by part. Held-out rows of the unknown label are left out where no training
    row has it: a head has no output for them, only the evaluation tells them, by a threshold."""
    rows = {part: read_part(data, part) for part in PARTS}
    if any(has(row, unknown) for row in rows["train"]):
        return rows
    return {part: [row for row in found if not has(row, unknown)] for part, found in rows.items()}


def left_out(data: Path, unknown: str | None) -> dict[str, Any] | None:
    """How many valid rows `learnable` leaves out, and which. None where it leaves out none: then
    training is what it was before anybody named an unknown label."""
    if unknown is None:
        return None
    kept = {row.digest for row in learnable(data, unknown)["valid"]}
    gone = [row.digest for row in read_part(data, "valid") if row.digest not in kept]
    return {"rows": len(gone), "digest": digest(gone)} if gone else None


def has(row: Row, label: str | None) -> bool:
    """Whether a row with labels has this one."""
    return isinstance(row, Labelled) and label in row.labels


def refuse_unfit(spec: Train, base: Base, dtype: str) -> None:
    """Refuse an objective that the model's kind cannot serve, and numbers that would not pay."""
    arithmetic.refuse_unfit(
        spec.arithmetic,
        bits=base.bits,
        dtype=dtype,
        device=spec.device,
        moves=spec.method.moves,
    )
    if load.is_encoder(base.folder) and not spec.objective.scores:
        raise SettingsError(
            f"train.objective: {spec.objective.kind} trains a model to write, and {base.source} is "
            "an encoder, which reads only. Set train.objective=classify, or name another model"
        )


def fitted(spec: Train, rows: Mapping[str, Sequence[Row]]) -> Train:
    """The settings with an objective that knows its labels; rows that do not fit are refused, the
    test rows too: after hours of training is a bad time to hear of them."""
    Objective.accept(spec.objective, rows["train"])  # Their kind; the rest once it is fitted.
    objective = spec.objective.fitted(rows["train"])
    for part in PARTS:
        objective.accept(rows[part])
    return spec.model_copy(update={"objective": objective})


def inputs(
    folder: RunFolder, spec: Train, base: Base, tokenizer: Tokenizer, dtype: str, seed: int
) -> dict[str, Any]:
    """All that the result depends on, by the name a person would know it by."""
    settings = spec.model_dump(mode="json", exclude={"sinks", "keep"})
    return {
        **{f"train.{name}": value for name, value in settings.items()},
        "model.dtype": dtype,
        "model.tokens": list(base.tokens),
        "model.bits": base.bits,
        "seed": seed,
        "digest of the data": folder.stage("data").digest,
        "digest of the base": base.digest,
        "digest of the training it goes on from": base.lineage["training"]
        if base.weights is not None
        else None,
        "digest of the tokenizer": tokenizer.digest,
        "digest of the template": tokenizer.template_digest,
        "end tokens of the model": list(tokenizer.declared_stops),
    }


def _examples(
    part: str,
    rows: Sequence[Row],
    spec: Train,
    tokenizer: Tokenizer,
    log: Log,
    context: Callable[[], int | None],
) -> list[Example]:
    """A prepared part as tokens, over-long rows refused or dropped and counted."""
    examples = cache.encoded(rows, spec.objective, tokenizer)
    pieces = in_pieces(rows, examples, spec)
    if len(pieces) > len(examples):
        log.say(f"{part}: {len(examples)} rows in {len(pieces)} windows of up to {spec.length}")
    kept, account = render.fit(pieces, spec.length, spec.too_long, context)
    if len(kept) < len(pieces):
        log.say(f"{part}: {len(pieces) - len(kept)} rows longer than {spec.length} left out")
    log.event("tokens", part=part, **account.record())
    return list(kept)


def in_pieces(rows: Sequence[Row], examples: Sequence[Example], spec: Train) -> list[Example]:
    """The rows' examples as they are trained on: what may go on in another sequence does."""
    return [
        replace(piece, source=row.source)
        for row, example in zip(rows, examples, strict=True)
        for piece in spec.objective.cut(row, example, spec.length)
    ]
