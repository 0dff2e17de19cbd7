"""The train stage: prepared rows and a base model in, a verified trained folder out."""

from collections.abc import Collection
from typing import Any

from tunesmith.core.errors import DataError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.records import Example
from tunesmith.core.rows import Row
from tunesmith.core.tables import read_part
from tunesmith.model import load, render
from tunesmith.model.render import Tokenizer
from tunesmith.model.words import tokenizer_of
from tunesmith.train import cache
from tunesmith.train.loop import Train
from tunesmith.train.session import Session


def train(
    folder: RunFolder,
    spec: Train,
    base: load.Base,
    *,
    dtype: str = "auto",
    seed: int,
    log: Log,
    accept: Collection[str] = (),
    restart: bool = False,
) -> None:
    """Train as `spec` says on the run's prepared rows, going on where an earlier call stopped.

    Leaves the method's saved result, the tokenizer, `train.json`, curves and checkpoints in
    `train/`. Raises Preempted or Interrupted after saving, when asked to stop.
    """
    stage, tokenizer = folder.stage("train"), tokenizer_of(base)
    wanted = inputs(folder, spec, base, tokenizer, dtype, seed)
    if not stage.begin(wanted, accept=accept, restart=restart):
        log.say("train: nothing to do, finished before with the same inputs")
        return
    examples = {part: _examples(folder, part, spec, tokenizer, log) for part in ("train", "valid")}
    if not examples["train"]:
        raise DataError("no rows are left to train on; see data/account.json for the reasons")
    Session(stage, spec, base, tokenizer, examples, dtype, seed, log).run()


def inputs(
    folder: RunFolder, spec: Train, base: load.Base, tokenizer: Tokenizer, dtype: str, seed: int
) -> dict[str, Any]:
    """All that the result depends on, by the name a person would know it by."""
    settings = spec.model_dump(mode="json", exclude={"sinks", "keep"})
    return {
        **{f"train.{name}": value for name, value in settings.items()},
        "model.dtype": dtype,
        "model.tokens": list(base.tokens),
        "seed": seed,
        "digest of the data": folder.stage("data").digest,
        "digest of the base": base.digest,
        "digest of the tokenizer": tokenizer.digest,
        "digest of the template": tokenizer.template_digest,
    }


def _examples(
    folder: RunFolder, part: str, spec: Train, tokenizer: Tokenizer, log: Log
) -> list[Example]:
    """A prepared part as tokens, over-long rows refused or dropped and counted."""
    rows: list[Row] = list(read_part(folder.stage("data").path, part))
    spec.objective.accept(rows)
    examples = cache.encoded(rows, spec.objective, tokenizer)
    pieces = [piece for e in examples for piece in spec.objective.cut(e, spec.length)]
    if len(pieces) > len(examples):
        log.say(f"{part}: {len(examples)} rows in {len(pieces)} windows of up to {spec.length}")
    kept, account = render.fit(pieces, spec.length, spec.too_long)
    if len(kept) < len(pieces):
        log.say(f"{part}: {len(pieces) - len(kept)} rows longer than {spec.length} left out")
    log.event("tokens", part=part, **account.record())
    return list(kept)
