"""One call of the train stage: from a base model or the newest checkpoint to finished weights.

One class, and longer than most files: it is the order of things in a training, read top to bottom.
What is written down on the way is in `progress`, what a look measures in `held_out`.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import mixing
from tunesmith.core.disk import write_json
from tunesmith.core.errors import (
    DataError,
    IntegrityError,
    SettingsError,
    TrainError,
)
from tunesmith.core.folders import Stage
from tunesmith.core.late import late
from tunesmith.core.log import Log
from tunesmith.core.records import Batch, Example
from tunesmith.core.rows import Chat
from tunesmith.core.signals import deferred, error, requested
from tunesmith.core.tables import read_part
from tunesmith.model import arithmetic, devices, heads, layout, load, recompute
from tunesmith.model.bases import Base
from tunesmith.model.policy import Policy
from tunesmith.model.render import longest
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.train import (
    ahead,
    batches,
    checkpoint,
    mixture,
    optimiser,
    probes,
    randomness,
    room,
    selfcheck,
    weights,
)
from tunesmith.train.held_out import Asked, by_source, measured, until_asked
from tunesmith.train.loop import Step, Train, Watch, improves, steps
from tunesmith.train.progress import Progress
from tunesmith.train.state import flatten_optimizer, restore_optimizer

if TYPE_CHECKING:
    import torch

    from tunesmith.model import quantise
else:
    torch = late("torch")
    quantise = late("tunesmith.model.quantise")

MOVED_BY = 2
"""Steps after which all that is trainable has moved: LoRA's A waits for B, which starts at zero."""
START_OVER = "`tunesmith train RUN.yaml --restart`"
LOOKS = 5
"""Looks at the held-out rows in a run that says nothing else."""


class Session:
    """One call of the train stage: what it holds between steps, and the order of things."""

    def __init__(
        self,
        stage: Stage,
        spec: Train,
        base: Base,
        tokenizer: Tokenizer,
        examples: Mapping[str, list[Example]],
        dtype: str,
        seed: int,
        log: Log,
    ) -> None:
        self.stage, self.spec, self.base, self.log = stage, spec, base, log
        self.tokenizer, self.examples, self.seed, self.dtype = tokenizer, examples, seed, dtype
        recipe = mixing.recipe_of(stage.run.stage("data").path)
        self.mixture = mixture.mixed(examples["train"], recipe)
        self.replayed = recipe.replayed if recipe else set()
        per_epoch = batches.steps_in(self.mixture.size, spec.batch)
        self.total = spec.steps or spec.epochs * per_epoch
        self.look_every = spec.evaluate_every or max(1, self.total // LOOKS)
        self.watch = Watch(spec.best, spec.patience)
        self.progress = Progress(stage, log)
        self.moved: selfcheck.Moved | None = None

    def run(self) -> None:
        """From a base model, or the newest checkpoint, to the finished folder."""
        self._build()
        start = self._resume()
        # After the last write to a frozen layer.
        arithmetic.choose(self.policy, self.spec.arithmetic)
        if self.policy.still:
            kind = self.spec.arithmetic
            ahead.read(self.policy, self.base, self.examples, self._cut, kind=kind, log=self.log)
        self._make_room()
        with self.progress.copies.open(self.spec.sinks, self.stage):
            if start == 0:
                self._first_look()
            self._loop(start)
        self._finish()

    def _build(self) -> None:
        """Model, method, optimiser and stream, all from the seed."""
        device = devices.choose(self.spec.device, "train.device")
        randomness.seed_everything(self.seed)
        model = load.load_model(self.base, dtype=self.dtype, device=str(device))
        model.requires_grad_(False)
        if self.base.bits is not None:
            size = quantise.held(model)
            self.log.say(f"train: the base takes {size / 1e6:.1f} MB in {self.base.bits} bits")
        model = self.spec.method.apply(model, self.seed).train()
        self._check_context(model)
        self.spec.method.begin(model, self.tokenizer)
        head, fast = self.spec.objective.head(model, self.seed), self.spec.seams == "fast"
        self.policy = Policy(model, self.tokenizer, method=self.spec.method, head=head, fast=fast)
        if self.base.weights is not None:
            weights.go_on(self.policy, self.spec.method, self.base.weights)
        betas, decay = self.spec.betas, self.spec.decay
        self.optimizer = optimiser.adamw(
            self.policy.trainable(), decay=decay, betas=betas, paces=self._paces()
        )
        self._settle_passes()
        self._open_stream(start=0)
        self.held = {name: self._cut(found) for name, found in by_source(self.examples["valid"])}

    def _make_room(self) -> None:
        """Before any step: whether the longest one fits into memory, and what is done if not."""
        rows = self.examples["train"]
        longest = max(row.length for row in rows)
        count = {"longest": longest, "common": self.common, "rows": self.spec.batch}
        tokens = batches.largest(self.tokens, **count)
        every, said = room.plan(
            self.spec.gradient_checkpointing, self.policy, self.spec.objective, rows, tokens
        )
        self.policy.recomputed = recompute.chosen(list(layout.blocks(self.policy.model)), every)
        if said:
            self.log.say(f"warning: train: {said}")

    def _settle_passes(self) -> None:
        """How rows are laid and how many tokens a pass has, once: more where all begin alike, which
        is then read less often."""
        self.laid = self.policy.laid
        shared = self.laid == "shared"
        self.common = batches.common_start(self.examples["train"]) if shared else 0
        self.tokens = self.spec.pass_tokens(self.policy.device.type, self.common)

    def _cut(self, examples: list[Example]) -> list[Batch]:
        """Micro-batches as this model takes them."""
        return batches.cut(examples, self.tokens, self.policy.device, laid=self.laid)

    def _check_context(self, model: Any) -> None:
        row = max((e for part in self.examples.values() for e in part), key=longest)
        context = layout.context(model)
        if context is not None and longest(row) > context:
            raise DataError(
                f"{row.origin}: {longest(row)} tokens, and the model's context is {context}; "
                f"nothing is cut. Set train.length={context} train.too_long=drop, or shorten the "
                "row"
            )

    def _open_stream(self, start: int) -> None:
        self.groups = batches.Groups(
            self.examples["train"],
            mixture=self.mixture,
            rows=self.spec.batch,
            tokens=self.tokens,
            seed=self.seed,
            device=self.policy.device,
            laid=self.laid,
            start=start,
        )
        self.stream = self.spec.objective.stream(self.policy, self.groups)

    def _resume(self) -> int:
        """The step to go on from; everything a checkpoint holds is put back."""
        saved = checkpoint.newest(self._checkpoints, self.log)
        if (saved.step if saved else 0) < MOVED_BY <= self.total:
            # Before a checkpoint goes over it: the model is still what training starts from.
            self.moved = selfcheck.Moved(self.policy)
        if saved is None:
            self.progress.begin()
            return 0
        names = self._trainable_names()
        weights.restore(self.policy, self.spec.method, saved.model)
        restore_optimizer(self.optimizer, names, saved.optimizer, saved.optimizer_state)
        self._refuse_unfit(saved)
        betas, decay = self.spec.betas, self.spec.decay
        optimiser.settle(self.optimizer, decay=decay, betas=betas, paces=self._paces())
        self._open_stream(saved.cursor)
        self.stream.restore(saved.stream)
        randomness.restore(saved.random)
        self.watch = Watch(**{**saved.best, "patience": self.spec.patience})
        self.progress.go_on(saved.progress)
        self.log.say(f"train: going on from step {saved.step} of {self.total}")
        return int(saved.step)

    def _refuse_unfit(self, saved: checkpoint.Snapshot) -> None:
        """Changes that were accepted but cannot be meant at this point of the run."""
        if saved.best["measure"] != self.spec.best:
            raise SettingsError(
                f"train.best: the run has compared its looks by {saved.best['measure']} so far; "
                f"set it back, or start over: {START_OVER}"
            )
        if self.total < saved.step:
            raise SettingsError(
                f"train.steps, train.epochs: {saved.step} steps are done and {self.total} would "
                f"be all; set them back, or start over: {START_OVER}"
            )

    def _paces(self) -> dict[Any, float]:
        return {p: self.spec.method.pace(name) for name, p in self.policy.named()}

    def _trainable_names(self) -> dict[str, Any]:
        return {name: p for name, p in self.policy.named() if p.requires_grad}

    @property
    def _checkpoints(self) -> Path:
        return self.stage.path / "checkpoints"

    def _first_look(self) -> None:
        """Refuse what can be known to be wrong before any work, and note where training starts."""
        self._refuse_full_disk()
        rows, objective = self.examples["train"], self.spec.objective
        facts = selfcheck.rows(self.policy, objective, rows, self.replayed, log=self.log)
        if self.spec.seams == "fast":
            facts |= selfcheck.loss(self.policy, objective, rows[0])
        facts["guessing"] = objective.guessing(self.policy)
        selfcheck.words(self.policy, rows, self.log)
        counts = layout.sizes(parameter for _, parameter in self.policy.named())
        sizes = dict(zip(("trainable_parameters", "parameters"), counts, strict=True))
        self.progress.facts |= {"start": facts, **sizes}
        self.log.event("start", **facts, steps=self.total, mixture=self._account(self.total))
        self.log.say(
            f"train: {len(rows_of(rows))} rows, {facts['tokens']} tokens "
            f"({self._goal(facts)}), {self.total} steps, "
            f"{counts[0]:,} of {counts[1]:,} parameters move"
        )
        for name, seen in (self._account(self.total) or {}).items():
            self.log.say(f"train: {mixture.sentence(name, seen)}")
        if self.held:
            self.log.say("train: looking at the held-out rows, as before every training")
        self._look(0)

    def _account(self, groups: int) -> dict[str, Any] | None:
        """What is seen of each source in so many groups; None of a single one."""
        if len(self.mixture.stocks) == 1:
            return None
        drawn = self.mixture.times(self.spec.batch, self.seed, groups)
        return mixture.account(self.mixture, self.examples["train"], drawn)

    def _refuse_full_disk(self) -> None:
        """Refuse before the first step when one checkpoint and the result would not fit."""
        state = weights.state_of(self.policy, self.spec.method)
        result = checkpoint.size(b"", {"model": state})
        moments = 2 * sum(parameter.nbytes for parameter in self.policy.trainable())
        checkpoint.make_room(self._checkpoints, 2 * result + moments, self.log)

    def _goal(self, facts: Mapping[str, Any]) -> str:
        if self.spec.objective.scores:
            return f"{facts['labels']} labels"
        return f"{facts['trained_share']:.0%} trained"

    def _loop(self, start: int) -> None:
        began, before = time.monotonic(), self.progress.facts["seconds"]
        running = steps(
            self.policy,
            self.spec.objective,
            self.stream,
            self.spec,
            total=self.total,
            optimizer=self.optimizer,
            start=start,
            limit=self.progress.facts["micro_batch_limit"],
        )
        with deferred(), self.log.progress("training", self.total, done=start) as advance:
            if start and self._is_look(start) and not self.watch.has_seen(start):
                self._save_if_due(start, self._look(start))
            for step in self._until_exhausted(running):
                self.progress.facts["seconds"] = before + time.monotonic() - began
                self.progress.note(step)
                done = step.number + 1
                if self.moved is not None and done == MOVED_BY:
                    self.moved.check(self.policy, done)
                is_best = self._is_look(done) and self._look(done)
                self._save_if_due(done, is_best)
                advance(1, note=f"loss {step.loss:.3f}")

    def _until_exhausted(self, running: Iterator[Step]) -> Iterator[Step]:
        """Steps until patience runs out, also when it had already run out before a resume."""
        while not self.watch.exhausted:
            step = next(running, None)
            if step is None:
                return
            yield step
        self.log.say(f"train: stopped early; the best was step {self.watch.best_step}")

    def _is_look(self, done: int) -> bool:
        return done % self.look_every == 0 or done == self.total

    def _look(self, done: int) -> bool:
        """Held-out measures and probe answers after `done` steps; True when the best so far."""
        try:
            if self.spec.objective.fits_head:
                rows = until_asked(self._cut(self.examples["train"]))
                self.spec.objective.fit_head(self.policy, rows)
            if not self.held:
                return False
            found = measured(self.policy, self.spec.objective, self.held)
        except Asked:
            # Someone waits for this process to end: the look is made again after resuming. Before
            # the first step there is nothing to save, and later no way back to it.
            wanted = requested()
            if done == 0 and wanted is not None:
                raise error(wanted) from None
            return False
        self.progress.note_held_out(done, found)
        value = found.whole[self.spec.best]
        if value != value:
            raise TrainError(f"step {done}: the held-out {self.spec.best} is not a number")
        self._probe(done)
        if done == 0:
            # What is not trained yet is no result, only what to compare one with.
            self.progress.facts["held_out_before"] = value
            return False
        return self.watch.see(done, value)

    def _probe(self, done: int) -> None:
        if not (self.spec.probes and self.spec.objective.chats):
            return
        kept = {example.row for example in self.examples["valid"]}
        prepared = read_part(self.stage.run.stage("data").path, "valid")
        asked = [row for row in prepared if isinstance(row, Chat) and row.digest in kept]
        for shown in probes.asked(self.policy, self.tokenizer, asked[: self.spec.probes]):
            self.progress.answers.add(done, shown)

    def _save_if_due(self, done: int, is_best: bool) -> None:
        wanted = requested()
        last = done == self.total or self.watch.exhausted
        if wanted is None and not (is_best or last or done % self.spec.save_every == 0):
            return
        self._save(done)
        if wanted is not None:
            raise wanted(
                f"stopped after step {done} of {self.total}; the state is saved. "
                "The same command goes on from here"
            )

    def _save(self, done: int) -> None:
        names = self._trainable_names()
        progress = self.progress.state()
        tensors, described = flatten_optimizer(self.optimizer, names)
        snapshot = checkpoint.Snapshot(
            step=done,
            cursor=self.groups.drawn,
            model=weights.state_of(self.policy, self.spec.method),
            optimizer=tensors,
            optimizer_state=described,
            random=randomness.capture(),
            stream=self.stream.state(),
            best=asdict(self.watch),
            progress=progress,
            digests={"base": self.base.digest, "template": self.tokenizer.template_digest},
        )
        best = self.watch.best_step
        pinned = () if best is None else (best,)
        checkpoint.save(
            self._checkpoints, snapshot, keep=self.spec.keep, pinned=pinned, log=self.log
        )

    def _finish(self) -> None:
        """Put the best weights back, write the result, and commit the stage."""
        self._restore_best()
        self.policy.model.eval()
        layout.causal(self.policy.model).config._name_or_path = self.base.source
        self.spec.method.save(self.policy.model, self.stage.path)
        if self.policy.head is not None:
            heads.save(self.policy.head, self.stage.path)
        self.tokenizer.save(self.stage.path)
        drawn = self.mixture.times(self.spec.batch, self.seed, self.groups.drawn)
        rows = rows_of(e for place, e in enumerate(self.examples["train"]) if drawn[place])
        write_json(self.stage.path / "rows.json", {"trained_on": rows})
        write_json(self.stage.path / "train.json", self._result())
        tokens, seconds = (self.progress.facts[name] for name in ("tokens", "seconds"))
        self.stage.finish(best_step=self.watch.best_step, tokens=tokens)
        self.log.say(f"train: done in {seconds:.0f} s, {tokens / max(seconds, 1e-9):.0f} tokens/s")

    def _restore_best(self) -> None:
        """The weights of the best look; without held-out rows, the last ones."""
        best, after = self.watch.best_step, self.watch.best_value
        if best is None or after is None:
            return
        path = self._checkpoints / f"step-{best:08d}"
        try:
            saved = checkpoint.load(path)
        except IntegrityError as error:
            raise IntegrityError(
                f"{error}. It holds the best weights of a finished training; put the right file "
                f"back, or start over: {START_OVER}"
            ) from error
        weights.restore(self.policy, self.spec.method, saved.model)
        if self.spec.objective.fits_head:
            # A stop at the best look saved its step before the head was fitted to it.
            rows = self._cut(self.examples["train"])
            self.spec.objective.fit_head(self.policy, rows)
        before = self.progress.facts["held_out_before"]
        if not improves(self.spec.best, after, before):
            self.log.say(
                f"warning: training did not help: held-out {self.spec.best} was {before:.4f} "
                f"before and {after:.4f} at its best. Look at the rows, or at train.lr"
            )

    def _result(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "method": json.loads(spec.method.model_dump_json()),
            "objective": json.loads(spec.objective.model_dump_json()),
            "base": self.base.record(self.stage.run.path),
            "from": self.base.lineage,
            "words": list(self.base.tokens),
            "tokenizer": {
                "digest": self.tokenizer.digest,
                "template": self.tokenizer.template_digest,
            },
            "row": spec.objective.row.kind,
            "rows": {part: len(rows_of(found)) for part, found in self.examples.items()},
            "mixture": self._account(self.groups.drawn),
            "steps": len(self.progress.losses),
            "best_step": self.watch.best_step,
            "best_value": self.watch.best_value,
            "measure": spec.best,
            "first_loss": self.progress.losses[0],
            "last_loss": self.progress.losses[-1],
            "rate": spec.rate,
            "pooling": None if self.policy.head is None else self.policy.head.pooling,
            "seams": {"packed": self.policy.packs, "head": self.policy.splits_head},
            "threads": torch.get_num_threads(),
            **self.progress.facts,
        }


def rows_of(examples: Iterable[Example]) -> list[str]:
    """The rows behind the examples: a document in several windows is one row."""
    return [row for row, _ in dict.fromkeys((e.row, e.origin) for e in examples)]
