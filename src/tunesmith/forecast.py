"""What a run would do (`--dry-run`): rows, tokens, steps, and roughly its memory and time.

Nothing is written beside the cache of models: rows are prepared in a folder that is thrown away.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tunesmith import environment
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.mixing import Recipe, recipe_of
from tunesmith.core.rows import Row
from tunesmith.core.tables import read_part
from tunesmith.data.policy import enforce
from tunesmith.data.stage import outdated, prepare
from tunesmith.model.bases import Base, check_name, resolve
from tunesmith.model.load import context, outline
from tunesmith.model.render import fit
from tunesmith.model.words import tokenizer_of
from tunesmith.run import Run
from tunesmith.train import room
from tunesmith.train.batches import common_start, largest, steps_in
from tunesmith.train.loop import Train
from tunesmith.train.mixture import mixed
from tunesmith.train.room import STATES, Need
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

# Forward and backward: numbers that a transformer block keeps, per token and unit of width
# (arXiv 2205.05198 counts 34 bytes at 16 bit).
BLOCK_NUMBERS = 17
# A training step reaches about this share of a plain matrix product's speed.
EFFICIENCY = 0.5
# A step in coarser numbers is about so many times as fast (docs/decisions/0015, 0022).
QUICKER = {"floats": 1.0, "bfloat16": 1.45, "bytes": 1.6}
# The products of attention are small: they reach about this share of the others' speed.
SMALL = 0.5
# Seconds of plain matrix products by which this machine is known.
PROBE = 0.5


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
) -> dict[str, Any]:
    """Rows, tokens, steps; bytes and seconds as rough figures. What the run begun `there` would
    refuse is refused here; `again` are the stages of it that are started over, and `known` is what
    it recorded of its base, as for `resolve`."""
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
            notes.append(making_way(there, run, wanted, again))
        refuse_unfit(run.train, base, run.model.dtype)
        rows = learnable(folder.path / "data", run.evaluate.unknown)
        spec = fitted(run.train, rows)
        counted = tokens(rows, spec, base, recipe_of(folder.path / "data"))
        counted["rows"]["test"] = len(read_part(folder.path / "data", "test"))
    notes.append(unused(run.train))
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


def rows_making_way(there: RunFolder, run: Run, again: Collection[str]) -> str:
    """The same of the rows."""
    why = RESTART if "data" in again else outdated(there, run.data, seed=run.seed)
    return there.stage("data").making_way(why)


def unused(spec: Train) -> str:
    """A setting that another one overrides."""
    if spec.steps is None:
        return ""
    return f"train.steps={spec.steps} says how long; train.epochs={spec.epochs} is not used"


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


def cost(run: Run, spec: Train, base: Base, counted: dict[str, Any]) -> dict[str, Any]:
    """Parameters, those of a head among them; memory at the longest micro-batch; and the time of
    training, evaluation left out. The objective of `spec` knows its labels."""
    import torch

    from tunesmith.model import arithmetic, devices, layout, quantise, recompute

    dtype = torch.float32 if run.model.dtype == "auto" else getattr(torch, run.model.dtype)
    plain = outline(base, dtype)
    plain.requires_grad_(False)
    spared = 0.0 if run.model.bits is None else quantise.spared(plain, run.model.bits)
    every = sum(p.numel() for p in plain.parameters())
    blocks, width = list(layout.blocks(plain)), layout.width(plain)
    within = sum(p.numel() for block in blocks for p in block.parameters())
    size = layout.vocabulary(plain)
    with torch.device("meta"):
        tuned = run.train.method.apply(plain, run.seed)
    head = spec.objective.head(tuned, run.seed)
    on_top = [] if head is None else list(head.linear.parameters())
    inside = [p for p in tuned.parameters() if p.requires_grad]
    logits = 0 if spec.objective.scores else size
    moving = sum(p.numel() for p in inside)
    counts = layout.sizes([*tuned.parameters(), *on_top])
    weights = sum(p.nbytes for p in [*tuned.parameters(), *on_top]) - spared
    if spec.arithmetic == "bfloat16":
        held = [] if run.model.bits is None else list(layout.linears(tuned).values())
        copied = arithmetic.layers(tuned, "bfloat16", scores=spec.objective.scores)
        weights += 2 * sum(m.weight.numel() for m in copied if all(m is not each for each in held))
    device = devices.choose(run.train.device, "train.device")
    shared = layout.writes(plain) and spec.seams == "fast"
    common, rows = counted["common"] if shared else 0, run.train.batch
    tokens = run.train.pass_tokens(device.type, common)
    longest = largest(tokens, longest=counted["longest"], common=common, rows=rows)
    a_block = longest * width * BLOCK_NUMBERS * dtype.itemsize
    states = STATES * sum(p.nbytes for p in [*inside, *on_top])
    need = Need(a_block * len(blocks), longest * logits * 4 + states)
    free = devices.free_bytes(device)
    left = None if free is None or not inside else free - weights
    again = len(recompute.chosen(blocks, skipped(spec, need, left, len(blocks))))
    # A block that is made again keeps its input alone, and all of it while it is made.
    kept = a_block * (len(blocks) - again + again / BLOCK_NUMBERS + (again > 0))
    epochs = counted["steps"] / steps_in(counted["epoch"], run.train.batch)
    # Of a mixture an epoch holds other counts than there are rows; their mean length stands in.
    an_epoch = counted["tokens"] * counted["epoch"] / max(1, counted["rows"]["train"])
    seen = an_epoch * epochs if moving else counted["tokens"]
    mean = counted["tokens"] / max(1, counted["rows"]["train"])
    seen *= once_each(mean, common, min(rows, (tokens - common) / max(1.0, mean - common)))
    # Forward 2, gradients to the hidden states 2, to the moving weights 2 a token and parameter;
    # looking up an embedding is free, and so is a head, which multiplies once a row.
    work = seen * (4 * (every - size * width) + 2 * moving + 2 * within * again / len(blocks))
    seen_by = counted["squares"] / max(1, counted["tokens"])  # the row of a token, in the mean
    work += seen * attended(seen_by, width, len(blocks))
    return {
        "parameters": counts[1],
        "moving_parameters": counts[0],
        "blocks": len(blocks),
        "blocks_again": again,
        "memory_bytes": weights + need.rest + kept,
        "train_seconds": round(work / (EFFICIENCY * QUICKER[spec.arithmetic] * speed())),
    }


def attended(length: float, width: int, blocks: int) -> float:
    """Operations of causal attention for a token of a row of that length, as so many of a large
    product: two products on the way and five back, each with the half of the row before it."""
    return 7 * 2 * (length / 2) * width * blocks / SMALL


def once_each(length: float, common: float, rows: float) -> float:
    """The share of all tokens that go through the model where so many rows, in the mean, share a
    pass that reads what they begin with once."""
    return 1 - common / max(1.0, length) * (1 - 1 / max(1.0, rows))


def skipped(spec: Train, need: Need, free: float | None, blocks: int) -> int | None:
    """Each how-manieth block would be computed again on the way back."""
    if isinstance(spec.gradient_checkpointing, int):
        return spec.gradient_checkpointing
    if spec.gradient_checkpointing == "off" or free is None:
        return None
    return room.every(need, free, blocks)


def speed() -> float:
    """Floating-point operations a second of a matrix product here, at its best.

    Short ones, many times: beside two other programs the best of 12 products of 1,024 rows was 80
    to 97 GFLOP/s from call to call, of half a second of products of 512 rows 96 to 105.
    """
    import torch

    size, best = 512, float("inf")
    left = torch.ones(size, size, device="cpu")
    until = time.perf_counter() + PROBE
    while (start := time.perf_counter()) < until:
        left @ left
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


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
