"""What training would cost, by counting: memory at its longest micro-batch, and time.

The model is outlined, never loaded; one short probe says how fast this machine multiplies.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.model.bases import Base
from tunesmith.model.load import outline
from tunesmith.run import Run
from tunesmith.train import room
from tunesmith.train.batches import largest, steps_in
from tunesmith.train.loop import Train
from tunesmith.train.room import STATES, Need

# Forward and backward: numbers that a transformer block keeps, per token and unit of width
# (arXiv 2205.05198 counts 34 bytes at 16 bit).
BLOCK_NUMBERS = 17
# A training step reaches about this share of a plain matrix product's speed.
EFFICIENCY = 0.5
# A step in coarser numbers is about so many times as fast (docs/decisions/0015, 0022).
QUICKER = {"floats": 1.0, "bfloat16": 1.4, "bytes": 1.5}
# Seconds of plain matrix products by which this machine is known.
PROBE = 0.5


@dataclass(frozen=True)
class Plain:
    """What is counted of a model before a method adds to it."""

    blocks: list[Any]
    width: int
    vocabulary: int
    itemsize: int
    writes: bool
    multiplied: int
    """Numbers that a token is multiplied by: all but those of the embedding, which is looked up."""
    within: int
    """Numbers of the blocks."""


@dataclass(frozen=True)
class Tuned:
    """What is counted of it with what trains; nothing of it is loaded."""

    moving: list[Any]
    """Parameters of the model that take gradients."""
    on_top: list[Any]
    """Those of a head of labels."""
    weights: float
    """Bytes of all parameters, and of the copies that steps multiply by."""
    counts: tuple[int, int]
    """Parameters that move, and all."""
    drops: bool
    """Whether training leaves numbers out at random, so that no two beginnings are alike."""


def cost(run: Run, spec: Train, base: Base, counted: dict[str, Any]) -> dict[str, Any]:
    """Parameters, those of a head among them; memory at the longest micro-batch; and the time of
    training, evaluation left out. The objective of `spec` knows its labels."""
    from tunesmith.model import devices, recompute

    model, tuned = outlined(run, spec, base)
    device = devices.choose(spec.device, "train.device")
    shares = model.writes and spec.seams == "fast" and not tuned.drops
    common = counted["common"] if shares else 0
    tokens = spec.pass_tokens(device.type, common)
    longest = largest(tokens, longest=counted["longest"], common=common, rows=spec.batch)
    a_block, need = needed(spec, model, tuned, longest, device)
    free = devices.free_bytes(device)
    left = None if free is None or not tuned.moving else free - tuned.weights
    again = len(recompute.chosen(model.blocks, skipped(spec, need, left, len(model.blocks))))
    # A block that is made again keeps its input alone, and all of it while it is made; of a model
    # that stays as it is there is one at a time.
    held = len(model.blocks) - again + again / BLOCK_NUMBERS + (again > 0)
    kept = a_block * (held if tuned.moving else 1)
    seen = read(spec, counted, common, tokens, moves=bool(tuned.moving))
    work = operations(model, tuned, counted, seen=seen, again=again)
    return {
        "parameters": tuned.counts[1],
        "moving_parameters": tuned.counts[0],
        "blocks": len(model.blocks),
        "blocks_again": again,
        "memory_bytes": tuned.weights + need.rest + kept,
        "train_seconds": round(work / (EFFICIENCY * QUICKER[spec.arithmetic] * speed())),
    }


def outlined(run: Run, spec: Train, base: Base) -> tuple[Plain, Tuned]:
    """The model before and after the method and the objective of a run, without its numbers."""
    import torch

    from tunesmith.model import layout, quantise

    dtype = torch.float32 if run.model.dtype == "auto" else getattr(torch, run.model.dtype)
    plain = outline(base, dtype)
    plain.requires_grad_(False)
    spared = 0.0 if run.model.bits is None else quantise.spared(plain, run.model.bits)
    before = counted_of(plain, dtype.itemsize)  # A method may add its own in place.
    with torch.device("meta"):
        tuned = run.train.method.apply(plain, run.seed)
    head = spec.objective.head(tuned, run.seed)
    on_top = [] if head is None else list(head.linear.parameters())
    everything = [*tuned.parameters(), *on_top]
    weights = sum(p.nbytes for p in everything) - spared + copied(run, spec, tuned)
    moving, drops = layout.trainable(tuned.parameters()), layout.drops(tuned.train())
    return before, Tuned(moving, on_top, weights, layout.sizes(everything), drops)


def counted_of(plain: Any, itemsize: int) -> Plain:
    """A model that no method has touched."""
    from tunesmith.model import layout

    blocks, width, size = list(layout.blocks(plain)), layout.width(plain), layout.vocabulary(plain)
    every = sum(p.numel() for p in plain.parameters())
    within = sum(p.numel() for block in blocks for p in block.parameters())
    writes = layout.writes(plain)
    return Plain(blocks, width, size, itemsize, writes, every - size * width, within)


def copied(run: Run, spec: Train, model: Any) -> float:
    """Bytes of the copies that steps in bfloat16 multiply by; what is in bits needs none."""
    from tunesmith.model import arithmetic, layout

    if spec.arithmetic != "bfloat16":
        return 0.0
    found = arithmetic.layers(model, "bfloat16", scores=spec.objective.scores)
    held = [] if run.model.bits is None else list(layout.linears(model).values())
    plain = [layer for layer in found if all(layer is not each for each in held)]
    return 2.0 * sum(int(layer.weight.numel()) for layer in plain)


def needed(spec: Train, model: Plain, tuned: Tuned, tokens: int, device: Any) -> tuple[float, Need]:
    """Bytes that a block keeps of so many tokens, and all that a step needs beside the weights."""
    from tunesmith.model import losshead

    a_block = tokens * model.width * BLOCK_NUMBERS * model.itemsize
    at_once = losshead.rows_at_once(device) if spec.seams == "fast" else tokens
    logits = 0 if spec.objective.scores else min(tokens, at_once) * model.vocabulary
    states = STATES * sum(p.nbytes for p in [*tuned.moving, *tuned.on_top])
    return a_block, Need(a_block * len(model.blocks), logits * 4 + states)


def read(
    spec: Train, counted: Mapping[str, Any], common: int, tokens: int, *, moves: bool
) -> float:
    """Tokens that go through the model in all of training, in passes of up to `tokens`; each row
    once where the model does not move."""
    rows = max(1, counted["rows"]["train"])
    # Of a mixture an epoch holds other counts than there are rows; their mean length stands in.
    an_epoch = counted["tokens"] * counted["epoch"] / rows
    epochs = counted["steps"] / steps_in(counted["epoch"], spec.batch)
    seen: float = an_epoch * epochs if moves else counted["tokens"]
    mean = counted["tokens"] / rows
    a_pass = min(spec.batch, (tokens - common) / max(1.0, mean - common))
    return seen * once_each(mean, common, a_pass)


def operations(
    model: Plain, tuned: Tuned, counted: Mapping[str, Any], *, seen: float, again: int
) -> float:
    """What training multiplies and adds: forward 2, gradients to the hidden states 2, to the moving
    weights 2 a token and parameter; forward alone where no weight of the model moves. A head of
    labels, which multiplies once a row, is free."""
    moving: int = sum(p.numel() for p in tuned.moving)
    ways = 4 if tuned.moving else 2
    a_token = ways * model.multiplied + 2 * moving + 2 * model.within * again / len(model.blocks)
    # The length of the row that a token is in, in the mean.
    seen_by: float = counted["squares"] / max(1, counted["tokens"])
    looked = attended(seen_by, model.width, len(model.blocks), back=bool(tuned.moving))
    return seen * (a_token + looked)


def attended(length: float, width: int, blocks: int, *, back: bool = True) -> float:
    """Operations of causal attention for a token of a row of that length: two products on the way
    and five `back`, each with the half of the row before it."""
    return (7 if back else 2) * 2 * (length / 2) * width * blocks


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
