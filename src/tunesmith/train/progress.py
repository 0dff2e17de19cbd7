"""What a training has to show so far: facts, losses, curves, probe answers, and their copies."""

from collections.abc import Mapping
from typing import Any

from tunesmith.core.folders import Stage
from tunesmith.core.log import Log
from tunesmith.train.copies import Copies
from tunesmith.train.held_out import Measured
from tunesmith.train.loop import Step
from tunesmith.train.record import Lines


class Progress:
    """What is counted and written down from step to step; a checkpoint carries it."""

    def __init__(self, stage: Stage, log: Log) -> None:
        self.log = log
        self.curves = Lines(stage.path / "curves.jsonl")
        self.answers = Lines(stage.path / "probes.jsonl")
        self.copies = Copies(log)
        self.losses: list[float] = []
        self.facts: dict[str, Any] = {"seconds": 0.0, "tokens": 0, "supervised": 0}
        self.facts["micro_batch_limit"] = None

    def begin(self) -> None:
        """Forget the lines of an attempt that saved nothing."""
        self.curves.rewind(0)
        self.answers.rewind(0)

    def go_on(self, saved: Mapping[str, Any]) -> None:
        """Be where a checkpoint was written."""
        self.facts |= saved["facts"]
        self.losses = saved["losses"]
        self.curves.rewind(saved["written"]["curves"])
        self.answers.rewind(saved["written"]["probes"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; the lines that it counts on are durable."""
        written = {"curves": self.curves.settle(), "probes": self.answers.settle()}
        return {"facts": self.facts, "losses": self.losses, "written": written}

    def note(self, step: Step) -> None:
        """Take down a step."""
        self.facts["tokens"] += step.tokens
        self.facts["supervised"] += step.supervised
        self.losses.append(step.loss)
        self._note_memory(step)
        values = {"loss": step.loss, "norm": step.norm, "rate": step.rate, **step.means}
        self.curves.add(step.number + 1, {**values, "tokens": step.tokens})
        self.copies.write(step.number + 1, values)

    def _note_memory(self, step: Step) -> None:
        """Say once that memory ran out, and record how far micro-batches were cut."""
        known, limit = self.facts["micro_batch_limit"], step.limit
        if limit == known:
            return
        if known is None:
            self.log.say(
                f"warning: memory ran out at step {step.number + 1}; micro-batches over {limit} "
                "tokens, counted with padding, are halved from here. A step still sees the same "
                "rows; to save the failed tries, start with half the train.micro_batch"
            )
        self.log.event("out of memory", step=step.number + 1, micro_batch_limit=limit)
        self.facts["micro_batch_limit"] = limit

    def note_held_out(self, done: int, found: Measured) -> None:
        """Take down a look after `done` steps."""
        sources = {"sources": found.apart} if found.apart else {}
        self.curves.add(done, {"held_out": found.whole, **sources})
        self.copies.write(done, paths("held_out", found.whole) | paths("held_out", found.apart))
        self.log.event("held_out", step=done, **found.whole, **sources)


def paths(path: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Nested measures by path: `held_out/loss`, `held_out/reviews/loss`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        here = f"{path}/{name}"
        found |= paths(here, value) if isinstance(value, Mapping) else {here: value}
    return found
