"""What base and tuned made of the questions: answers, probabilities, likelihoods, kept as they
come, so that a second call asks only what is missing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.folders import Stage
from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.log import Log
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Labelled, Row, Text
from tunesmith.evaluate import answer, general
from tunesmith.evaluate.labels import LabelRow, Labels, labels_of, threshold
from tunesmith.evaluate.likelihood import Likelihood, likelihoods
from tunesmith.evaluate.metrics.base import Judged
from tunesmith.evaluate.questions import HeldOut, Questions
from tunesmith.evaluate.scores import (
    Found,
    Scored,
    by_head,
    by_likelihood,
    by_shares,
    keep_scores,
)
from tunesmith.model.devices import Device, choose
from tunesmith.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy

ARMS = ("base", "tuned")


@dataclass(frozen=True)
class StandIn:
    """What answers for an arm that has no model which could."""

    word: str
    """What it is, to stand beside a number."""
    reason: str
    """Why it answers, and what it says."""


@dataclass(frozen=True)
class Outcome:
    """What one arm made of the rows, by row digest; or what its `stand_in` did."""

    answers: Mapping[str, answer.Answered] = field(default_factory=dict)
    likelihoods: Mapping[str, Likelihood] = field(default_factory=dict)
    scores: Mapping[str, Scored] = field(default_factory=dict)
    general: Mapping[str, Likelihood] = field(default_factory=dict)
    labels: Labels | None = None
    threshold: float | None = None
    stand_in: StandIn | None = None

    @property
    def said(self) -> bool:
        """Whether the arm answered rows, in words or in labels."""
        return bool(self.answers or self.scores)

    def judged(self, row: HeldOut) -> Judged:
        """One row as metrics see it."""
        said, likely = self.answers.get(row.digest), self.likelihoods.get(row.digest)
        scored, given = self.scores.get(row.digest), self.given(row)
        found = Judged(
            row=row.digest,
            prompt=prompt_of(row),
            answer=said.answer if said else self.labels.answer(given) if self.labels else "",
            references=self.references(row),
            stopped=said.stopped if said else True,
            nll=likely.nll if likely else 0.0,
            tokens=likely.tokens if likely else 0,
        )
        if self.labels is None or isinstance(row, Text):
            return found
        return replace(
            found,
            wanted=labels_of(row),
            given=given,
            labels=self.labels.names,
            chances=scored.chances if scored else (),
            unknown=self.labels.unknown,
            many=self.labels.many,
        )

    def references(self, row: HeldOut) -> tuple[str, ...]:
        """The right answers, the row's own first; a document has none."""
        if isinstance(row, Text):
            return ()
        if isinstance(row, Labelled) and self.labels is not None:
            return (self.labels.answer(row.labels),)  # A head may allow several where a row has one
        return (row.answer(), *(row.references if isinstance(row, Chat) else ()))

    def given(self, row: HeldOut) -> tuple[str, ...]:
        """The labels that the arm gives a row: what it wrote, or finds likeliest."""
        said, scored = self.answers.get(row.digest), self.scores.get(row.digest)
        if said is not None:
            return (said.answer.strip(),)
        if scored is None or self.labels is None:
            return ()
        return tuple(self.labels.likeliest(scored.chances, self.threshold))

    def facts(self) -> dict[str, float]:
        """Seconds of answering, earlier calls too; of written answers also their tokens, and the
        share that ended by themselves."""
        lines = self.answers.values()
        times = [line.seconds for line in lines] + [line.seconds for line in self.scores.values()]
        found: dict[str, float] = {"seconds": round(sum(times), 3)}
        if lines:
            found["tokens"] = sum(line.tokens for line in lines)
            found["stopped"] = sum(line.stopped for line in lines) / len(lines)
        return found


def prompt_of(row: HeldOut) -> str:
    """What was said last before the answer; the texts to label. Nothing asks for a document."""
    if isinstance(row, Text):
        return ""
    if isinstance(row, Labelled):
        return "\n".join(row.given)
    return row.prompt().messages[-1].content or ""


@dataclass(frozen=True)
class Asking:
    """One arm under questions: its model, what it is asked, where what it says is kept."""

    model: "Loaded"
    questions: Questions
    log: Log

    def file(self, what: str) -> Path:
        """Where the arm's lines of a kind are kept."""
        return self.model.stage.path / f"{what}-{self.model.arm}.jsonl"

    def progress(
        self, what: str, rows: Sequence[Row]
    ) -> AbstractContextManager[Callable[..., None]]:
        """A line that says how far the arm is."""
        return self.log.progress(f"{self.model.arm} {what}", len({row.digest for row in rows}))


def ask(arm: str, stage: Stage, base: "Base", questions: Questions, *, log: Log) -> Outcome:
    """What the arm makes of the rows, as far as the metrics need it; loaded only if needed."""
    asking = Asking(Loaded(stage, base, arm, questions.device, log), questions, log)
    read = [row for row in questions.rows if not isinstance(row, Labelled)]
    texts = general.texts(questions.general)
    found = Outcome(
        answers=written(asking) if questions.writes else {},
        likelihoods=likely(asking, "likelihoods", read) if questions.need("likelihood") else {},
        general=likely(asking, "general-text", texts) if texts else {},
        labels=questions.labels,
    )
    if questions.scores and questions.labels is not None:
        return scored(found, asking, questions.labels)
    return found


def written(asking: Asking) -> dict[str, answer.Answered]:
    """What the arm answers."""
    questions = asking.questions
    rows = [row for row in questions.rows if isinstance(row, Chat)]
    with asking.progress("answers", rows) as advance:
        return answer.keep_answers(
            asking.file("answers"),
            asking.model,
            rows,
            questions.sampling,
            batch=questions.batch,
            seed=questions.seed,
            advance=advance,
        )


def scored(found: Outcome, asking: Asking, labels: Labels) -> Outcome:
    """`found` with the probability of every label, and the threshold for the unknown."""
    model, questions = asking.model, asking.questions
    stands_in = questions.headed and model.arm == "base"  # A base never has the head of a run.

    def score(rows: Sequence[LabelRow]) -> Found:
        if stands_in:
            return by_shares(rows, labels)
        if questions.headed:
            return by_head(model(), rows, questions.batch)
        return by_likelihood(model(), rows, labels)

    rows = [*questions.labelled, *questions.valid]
    with asking.progress("probabilities", rows) as advance:
        size = len(labels.names)
        lines = keep_scores(asking.file("scores"), rows, score, size=size, advance=advance)
    chosen = None
    if questions.valid:
        chances = [lines[row.digest].chances for row in questions.valid]
        chosen = threshold(labels, questions.valid, chances)
    shares = majority(labels) if stands_in else None
    return replace(found, scores=lines, threshold=chosen, stand_in=shares)


def likely(asking: Asking, what: str, rows: Sequence[Chat | Text]) -> dict[str, Likelihood]:
    """Like `answer.keep_answers`, for likelihoods; a number that is none is kept as null."""
    path, model = asking.file(what), asking.model
    wanted = {row.digest: row for row in rows}
    found = {
        line["row"]: Likelihood(
            line["row"], float("nan") if line["nll"] is None else line["nll"], line["tokens"]
        )
        for line in whole_lines(path)
        if line["row"] in wanted
    }
    missing = [row for row in wanted.values() if row.digest not in found]
    with asking.progress(what.replace("-", " "), rows) as advance:
        advance(len(found))
        if not missing:
            return found
        batch, counted = asking.questions.batch, model.counted
        for each in likelihoods(model(), missing, batch=batch, counted=counted):
            finite = each.nll if abs(each.nll) < float("inf") else None
            answer.append(path, {"row": each.row, "nll": finite, "tokens": each.tokens})
            found[each.row] = each
            advance(1)
    return found


def majority(labels: Labels) -> StandIn:
    """What stands in for a base whose head would be new: of one label the likeliest is given, of
    many those that half the rows have."""
    word = "the shares of labels" if labels.many else "the largest class"
    if labels.tasks:
        return StandIn(
            f"{word} of each source",
            "the base has no heads for these labels, so the shares of labels among the training "
            "rows of each source stand in for them",
        )
    share, name = max(zip(labels.shares, labels.names, strict=True))
    return StandIn(
        word,
        "the base has no head for these labels, so the shares of labels among the training rows "
        f"stand in for it; the largest class is {quoted(name)} with {share:.1%}",
    )


class Loaded:
    """An arm's model, loaded at the first call and kept for the next."""

    def __init__(self, stage: Stage, base: "Base", arm: str, device: Device, log: Log) -> None:
        self.stage, self.base, self.arm = stage, base, arm
        self.device, self.log = device, log

    def __call__(self) -> "Policy":
        return self._policy

    @property
    def counted(self) -> Tokenizer | None:
        """Whose tokens likelihoods are counted in, where the arms read text in different ones."""
        return Tokenizer.load(self.base.folder) if self.base.tokens else None

    @cached_property
    def _policy(self) -> "Policy":
        from tunesmith.model.features import opened
        from tunesmith.model.trained import head_alone, load_trained

        folder, tuned = self.stage.run.stage("train").path, self.arm == "tuned"
        device = str(choose(self.device, "evaluate.device"))
        policy = load_trained(folder, self.base, device=device, tuned=tuned)
        if tuned and head_alone(folder):
            policy.features = opened(policy, self.base, self.log.say)
        return policy
