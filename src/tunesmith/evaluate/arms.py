"""What base and tuned made of the questions: answers, probabilities, likelihoods, kept as they
come, so that a second call asks only what is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tunesmith.core.folders import Stage
from tunesmith.core.jsonlines import whole_lines
from tunesmith.core.log import Log
from tunesmith.core.quote import quoted
from tunesmith.core.rows import Chat, Labelled, Text
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
from tunesmith.model.render import Tokenizer

if TYPE_CHECKING:
    from tunesmith.model.load import Base
    from tunesmith.model.policy import Policy

ARMS = ("base", "tuned")


@dataclass(frozen=True)
class Asked:
    """What one arm made of the rows, by row digest.

    `stand_in` says what answered where the arm has no model that could.
    """

    answers: Mapping[str, answer.Answered] = field(default_factory=dict)
    likelihoods: Mapping[str, Likelihood] = field(default_factory=dict)
    scores: Mapping[str, Scored] = field(default_factory=dict)
    general: Mapping[str, Likelihood] = field(default_factory=dict)
    labels: Labels | None = None
    threshold: float | None = None
    stand_in: str = ""

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


def ask(arm: str, stage: Stage, base: "Base", questions: Questions, log: Log) -> Asked:
    """What the arm makes of the rows, as far as the metrics need it; loaded only if needed."""
    model = Loaded(stage, base, arm, questions.device)
    chats = [row for row in questions.rows if isinstance(row, Chat)]
    size = len({row.digest for row in questions.rows})
    said: dict[str, answer.Answered] = {}
    likely: dict[str, Likelihood] = {}
    if questions.writes:
        with log.progress(f"{arm} answers", size) as advance:
            said = answer.keep_answers(
                stage.path / f"answers-{arm}.jsonl",
                model,
                chats,
                questions.sampling,
                batch=questions.batch,
                seed=questions.seed,
                advance=advance,
            )
    if questions.need("likelihood"):
        with log.progress(f"{arm} likelihoods", size) as advance:
            read = [row for row in questions.rows if not isinstance(row, Labelled)]
            likely = keep_likelihoods(stage, arm, model, read, questions.batch, advance)
    found = Asked(said, likely, general=beside(arm, stage, model, questions, log))
    found = replace(found, labels=questions.labels)
    if questions.scores and questions.labels is not None:
        return scored(found, arm, stage, model, questions, questions.labels, log)
    return found


def beside(
    arm: str, stage: Stage, model: "Loaded", questions: Questions, log: Log
) -> Mapping[str, Likelihood]:
    """How likely the arm finds the general text, where one is read."""
    texts = general.texts(questions.general)
    if not texts:
        return {}
    with log.progress(f"{arm} general text", len(texts)) as advance:
        return keep_likelihoods(stage, f"general-{arm}", model, texts, questions.batch, advance)


def scored(
    found: Asked,
    arm: str,
    stage: Stage,
    model: Callable[[], "Policy"],
    questions: Questions,
    labels: Labels,
    log: Log,
) -> Asked:
    """`found` with the probability of every label, and the threshold for the unknown."""
    stands_in = questions.headed and arm == "base"

    def score(rows: Sequence[LabelRow]) -> Found:
        if stands_in:
            return by_shares(rows, labels)
        if questions.headed:
            return by_head(model(), rows, questions.batch)
        return by_likelihood(model(), rows, labels)

    rows = [*questions.labelled, *questions.valid]
    with log.progress(f"{arm} probabilities", len({row.digest for row in rows})) as advance:
        lines = keep_scores(stage.path / f"scores-{arm}.jsonl", rows, score, advance=advance)
    chosen = None
    if questions.valid:
        chances = [lines[row.digest].chances for row in questions.valid]
        chosen = threshold(labels, questions.valid, chances)
    said = majority(labels) if stands_in else ""
    return replace(found, scores=lines, threshold=chosen, stand_in=said)


def majority(labels: Labels) -> str:
    """What stands in for a base whose head would be new."""
    share, name = max(zip(labels.shares, labels.names, strict=True))
    return (
        "the base has no head for these labels, so the shares of labels among the training rows "
        f"stand in for it; the largest class is {quoted(name)} with {share:.1%}"
    )


class Loaded:
    """An arm's model, loaded at the first call and kept for the next."""

    def __init__(self, stage: Stage, base: "Base", arm: str, device: Device) -> None:
        self.stage, self.base, self.arm, self.device = stage, base, arm, device

    def __call__(self) -> "Policy":
        return self._policy

    @property
    def counted(self) -> Tokenizer | None:
        """Whose tokens likelihoods are counted in, where the arms read text in different ones."""
        return Tokenizer.load(self.base.folder) if self.base.tokens else None

    @cached_property
    def _policy(self) -> "Policy":
        from tunesmith.model.trained import load_trained

        folder = self.stage.run.stage("train").path
        device = str(choose(self.device, "evaluate.device"))
        return load_trained(folder, self.base, device=device, tuned=self.arm == "tuned")


def keep_likelihoods(
    stage: Stage,
    arm: str,
    model: "Loaded",
    rows: Sequence[Chat | Text],
    batch: int,
    advance: Callable[..., None],
) -> dict[str, Likelihood]:
    """Like `answer.keep_answers`, for likelihoods; a number that is none is kept as null."""
    path = stage.path / f"likelihoods-{arm}.jsonl"
    found = {
        line["row"]: Likelihood(
            line["row"], float("nan") if line["nll"] is None else line["nll"], line["tokens"]
        )
        for line in whole_lines(path)
    }
    missing = {row.digest: row for row in rows if row.digest not in found}
    advance(len({row.digest for row in rows}) - len(missing))
    wanted = list(missing.values())
    for each in likelihoods(model(), wanted, batch=batch, counted=model.counted) if missing else ():
        finite = each.nll if abs(each.nll) < float("inf") else None
        answer.append(path, {"row": each.row, "nll": finite, "tokens": each.tokens})
        found[each.row] = each
        advance(1)
    return found
