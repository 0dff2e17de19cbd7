"""The evaluate stage: base and tuned answer the same held-out prompts, and are compared."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from tunesmith.core.errors import DataError, TrainError
from tunesmith.core.findings import Finding
from tunesmith.core.folders import RunFolder, Stage, write_json
from tunesmith.core.log import Log
from tunesmith.core.parts import Spec
from tunesmith.core.rows import Chat, Text
from tunesmith.core.tables import read_part
from tunesmith.evaluate import answer, compare, documents, general
from tunesmith.evaluate.likelihood import Likelihood, likelihoods
from tunesmith.evaluate.metrics.base import Judged, Metric
from tunesmith.evaluate.metrics.exact import Exact
from tunesmith.evaluate.metrics.perplexity import Perplexity
from tunesmith.evaluate.metrics.rouge import Rouge
from tunesmith.model.generate import Sampling
from tunesmith.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tunesmith.model.load import Base
    from tunesmith.model.policy import Policy

ARMS = ("base", "tuned")
LEAST_STOPPED = 0.9
"""Under this share of answers that end by themselves, a server would ramble."""
SAMPLES = 3


class Evaluate(Spec):
    """How the tuned model is measured against its base."""

    metrics: list[Metric] = Field([Exact(), Rouge(), Perplexity()], min_length=1)
    """What is measured; the first one decides the verdict."""
    part: Literal["test", "valid"] = "test"
    """Held-out rows to ask. `valid` chose the best step, so it flatters."""
    limit: int | None = Field(None, ge=1)
    """Ask only this many rows, the first ones; without it, all."""
    sampling: Sampling = Sampling()
    """How answers are generated."""
    batch: int = Field(16, ge=1)
    """Rows generated at the same time. Changes speed and memory, never an answer."""
    bootstrap: int = Field(1000, ge=100)
    """Samples of the rows that an interval is drawn from."""
    general: str | None = None
    """General text whose perplexity stands beside: `bundled`, a file of `text` records, or `none`.
    By default `bundled` for documents, else `none`."""

    @model_validator(mode="after")
    def _names_differ(self) -> "Evaluate":
        names = Counter(name for metric in self.metrics for name in metric.names())
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            raise ValueError(f"two metrics give {twice[0]!r}; name each once")
        return self


def evaluate(
    folder: RunFolder,
    spec: Evaluate,
    base: "Base",
    *,
    seed: int,
    log: Log,
    accept: Collection[str] = (),
    restart: bool = False,
) -> None:
    """Ask base and tuned the same prompts, judge the answers, write `evaluate/report.json`.

    Answers are kept as they come: a stopped evaluation goes on where it was. Raises DataError
    when there is nothing to ask, TrainError (after the report) when a measure is not a number.
    """
    folder.stage("data").manifest()
    folder.stage("train").manifest()
    stage = folder.stage("evaluate")
    found = read_part(folder.stage("data").path, spec.part)[: spec.limit]
    rows = [row for row in found if isinstance(row, Chat | Text)]
    if not rows:
        raise DataError(
            f"evaluate.part={spec.part}: the run has no {spec.part} rows, and rows it learned from "
            f"measure nothing. Set data.split.{spec.part}, or give a file as data.{spec.part}"
        )
    metrics, beside = documents.fitting(spec.metrics, rows), general.chosen(spec.general, rows)
    spec = spec.model_copy(update={"metrics": metrics, "general": beside})
    if not stage.begin(inputs(folder, spec, base, seed), accept=accept, restart=restart):
        log.say("evaluate: nothing to do, finished before with the same inputs")
        return
    arms = {arm: asked(arm, stage, spec, base, rows, seed, log) for arm in ARMS}
    report, findings = written(stage, spec, rows, arms, seed)
    for finding in findings:
        log.finding(finding)
    broken = [finding for finding in findings if finding.severity == "error"]
    if broken:
        raise TrainError("\n".join(f"{f.where}: {f.what}. {f.advice}" for f in broken))
    stage.finish(rows=len(rows), verdict=report["verdict"])
    log.say(f"evaluate: {report['verdict']}")


def inputs(folder: RunFolder, spec: Evaluate, base: "Base", seed: int) -> dict[str, Any]:
    """All that the report depends on, by the name a person would know it by."""
    settings = spec.model_dump(mode="json", exclude={"batch"})
    return {
        **{f"evaluate.{name}": value for name, value in settings.items()},
        **general.inputs(spec.general or general.NONE),
        "seed": seed,
        "digest of the data": folder.stage("data").digest,
        "digest of the training": folder.stage("train").digest,
        "digest of the base": base.digest,
    }


@dataclass(frozen=True)
class Asked:
    """What one arm made of the rows, by row digest."""

    answers: dict[str, answer.Answered]
    likelihoods: dict[str, Likelihood]
    general: dict[str, Likelihood] = field(default_factory=dict)

    def judged(self, row: Chat | Text) -> Judged:
        """One row as metrics see it."""
        said, likely = self.answers.get(row.digest), self.likelihoods.get(row.digest)
        return Judged(
            row=row.digest,
            prompt=last_prompt(row),
            answer=said.answer if said else "",
            references=references(row),
            stopped=said.stopped if said else True,
            nll=likely.nll if likely else 0.0,
            tokens=likely.tokens if likely else 0,
        )

    def facts(self) -> dict[str, float]:
        """Seconds and tokens of answering, earlier calls too; share that ended by themselves."""
        lines = self.answers.values()
        return {
            "seconds": round(sum(line.seconds for line in lines), 3),
            "tokens": sum(line.tokens for line in lines),
            "stopped": sum(line.stopped for line in lines) / max(1, len(lines)),
        }


def asked(
    arm: str,
    stage: Stage,
    spec: Evaluate,
    base: "Base",
    rows: Sequence[Chat | Text],
    seed: int,
    log: Log,
) -> Asked:
    """The arm's answers and likelihoods, as far as the metrics need them; loaded only if needed."""
    arm_model = Loaded(stage, base, arm)
    needs = {metric.needs for metric in spec.metrics}
    size = len({row.digest for row in rows})
    said: dict[str, answer.Answered] = {}
    likely: dict[str, Likelihood] = {}
    if "answers" in needs:
        with log.progress(f"{arm} answers", size) as advance:
            said = answer.keep_answers(
                stage.path / f"answers-{arm}.jsonl",
                arm_model,
                [row for row in rows if isinstance(row, Chat)],
                spec.sampling,
                batch=spec.batch,
                seed=seed,
                advance=advance,
            )
    if "likelihood" in needs:
        with log.progress(f"{arm} likelihoods", size) as advance:
            likely = keep_likelihoods(stage, arm, arm_model, rows, spec.batch, advance)
    texts = general.texts(spec.general or general.NONE)
    if not texts:
        return Asked(said, likely)
    with log.progress(f"{arm} general text", len(texts)) as advance:
        name = f"general-{arm}"
        beside = keep_likelihoods(stage, name, arm_model, texts, spec.batch, advance)
    return Asked(said, likely, beside)


class Loaded:
    """An arm's model, loaded at the first call and kept for the next."""

    def __init__(self, stage: Stage, base: "Base", arm: str) -> None:
        self.stage, self.base, self.arm = stage, base, arm

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
        return load_trained(folder, self.base, tuned=self.arm == "tuned")


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
        for line in answer.kept(path)
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


def written(
    stage: Stage, spec: Evaluate, rows: Sequence[Chat | Text], arms: dict[str, Asked], seed: int
) -> tuple[dict[str, Any], list[Finding]]:
    """`report.json` as written, and what a person should know."""
    judged = {arm: [found.judged(row) for row in rows] for arm, found in arms.items()}
    compared = compare.compare(spec.metrics, judged, draws=spec.bootstrap, seed=seed)
    beside = {arm: found.general for arm, found in arms.items()}
    compared = general.added(compared, beside, draws=spec.bootstrap, seed=seed)
    main = spec.metrics[0].names()[0]
    findings = [*not_numbers(rows, arms), *rambling(arms["tuned"])]
    report = {
        "arms": dict(compared.arms),
        "difference": compared.difference,
        "verdict": compare.verdict(compared, main, len(rows)),
        "main": main,
        "rows": len(rows),
        "part": spec.part,
        "notes": notes(spec, rows) | general.note(spec.general or general.NONE, beside),
        "answering": {arm: found.facts() for arm, found in arms.items() if found.answers},
        "samples": samples(rows, arms),
        "findings": [finding.record() for finding in findings],
    }
    write_json(stage.path / "report.json", report)
    return report, findings


def notes(spec: Evaluate, rows: Sequence[Chat | Text]) -> dict[str, str]:
    """How the numbers were made."""
    found = {metric.names()[0]: metric.note() for metric in spec.metrics if metric.note()}
    found["intervals"] = f"95 %, paired bootstrap, {spec.bootstrap} samples of {len(rows)} rows"
    if any(isinstance(row, Text) for row in rows):
        return found | {"windows": documents.NOTE}
    sizes = sorted({len(references(row)) for row in rows})
    span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return found | {"references": f"{span} a row"}


def samples(rows: Sequence[Chat | Text], arms: dict[str, Asked]) -> list[dict[str, str]]:
    """A few rows from beginning, middle and end, with what either arm made of them."""
    places = sorted({0, len(rows) // 2, len(rows) - 1})[:SAMPLES]
    return [
        {
            "prompt": last_prompt(rows[place]),
            **{arm: found.judged(rows[place]).answer for arm, found in arms.items()},
            "wanted": references(rows[place])[0],
            "row": rows[place].digest,
        }
        for place in places
        if arms["tuned"].answers
    ]


def last_prompt(row: Chat | Text) -> str:
    """What was said last before the answer; nothing asks for a document."""
    return (row.prompt().messages[-1].content or "") if isinstance(row, Chat) else ""


def references(row: Chat | Text) -> tuple[str, ...]:
    """The right answers, the row's own first; a document has none."""
    return (row.answer(), *row.references) if isinstance(row, Chat) else ()


def not_numbers(rows: Sequence[Chat | Text], arms: dict[str, Asked]) -> list[Finding]:
    """Rows whose likelihood is NaN or infinite: their measures are no numbers either."""
    origins = {row.digest: str(row.origin) for row in rows}
    return [
        Finding(
            "error",
            f"the likelihood of this row is not a number in the {arm} model",
            origins[row],
            f"nll {likely.nll}",
            "The model's numbers overflow: train with a lower train.lr, or in float32",
        )
        for arm, found in arms.items()
        for row, likely in found.likelihoods.items()
        if row in origins and not abs(likely.nll) < float("inf")
    ]


def rambling(tuned: Asked) -> list[Finding]:
    """A tuned model that does not end its answers."""
    share = tuned.facts()["stopped"]
    if not tuned.answers or share >= LEAST_STOPPED:
        return []
    return [
        Finding(
            "warning",
            f"only {share:.0%} of the tuned model's answers end by themselves",
            "evaluate",
            f"{sum(not line.stopped for line in tuned.answers.values())} ran into max_tokens",
            "Raise evaluate.sampling.max_tokens if right answers are longer; else train longer",
        )
    ]
