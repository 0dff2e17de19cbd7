"""The evaluate stage: base and tuned get the same held-out rows, and are compared."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from tunesmith.core.disk import write_json
from tunesmith.core.errors import TrainError
from tunesmith.core.findings import Finding
from tunesmith.core.folders import RunFolder, Stage
from tunesmith.core.log import Log
from tunesmith.core.parts import Spec
from tunesmith.core.rows import Chat, Text
from tunesmith.evaluate import compare, documents, general, sources
from tunesmith.evaluate.arms import ARMS, Outcome, ask, prompt_of
from tunesmith.evaluate.confusion import confusion
from tunesmith.evaluate.metrics.base import Metric
from tunesmith.evaluate.questions import HeldOut, Questions, questions
from tunesmith.model import heads
from tunesmith.model.devices import Device
from tunesmith.model.generate import Sampling

if TYPE_CHECKING:
    from tunesmith.model.bases import Base

LEAST_STOPPED = 0.9
"""Under this share of answers that end by themselves, a server would ramble."""
SAMPLES = 3


class Evaluate(Spec):
    """How the tuned model is measured against its base."""

    metrics: list[Metric] = []
    """What is measured; the first one decides the verdict. Where none is named: exact, rouge and
    perplexity for conversations; accuracy, f1 and calibration for rows with labels."""
    part: Literal["test", "valid"] = "test"
    """Held-out rows to ask. `valid` chose the best step, so it flatters."""
    limit: int | None = Field(None, ge=1)
    """Ask only this many rows, the first ones; without it, all."""
    by: Literal["generation", "likelihood"] = "generation"
    """How a model without a head gives a label: it writes it, or it is asked how likely it finds
    each one as the answer and the likeliest counts. The second gives probabilities too, and costs
    one pass over prompt and labels for each row."""
    unknown: str | None = None
    """The label of rows that are none of the others. Where no training row has it, it is given
    below a threshold on the largest probability: the one that is right most often on valid rows."""
    sampling: Sampling = Sampling()
    """How answers are generated."""
    batch: int = Field(32, ge=1)
    """Rows generated at the same time. Changes speed and memory, never an answer."""
    device: Device = "auto"
    """Where answers are made, those of `predict` and `chat` too: as `train.device`."""
    bootstrap: int = Field(1000, ge=100)
    """Samples of the rows that an interval is drawn from."""
    general: str | None = None
    """General text whose perplexity stands beside: `bundled`, a file of `text` records, or `none`.
    By default `bundled` for documents and beside replay, else `none`."""

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
    """Ask base and tuned the same, judge what they say, write `evaluate/report.json`.

    Answers are kept as they come: a stopped evaluation goes on where it was. Raises DataError
    when there is nothing to ask, TrainError (after the report) when a measure is not a number.
    """
    folder.stage("data").manifest()
    folder.stage("train").manifest()
    stage = folder.stage("evaluate")
    head = heads.meaning_of(folder.stage("train").path)
    asked = questions(folder.stage("data").path, spec, seed=seed, head=head)
    wanted = inputs(folder, spec, base, asked)
    if not stage.begin(wanted, accept=accept, restart=restart, say=log.say):
        log.say("evaluate: nothing to do, finished before with the same inputs")
        return
    with stage.unbegun_if_refused(lambda: stage.resumed):
        arms = {arm: ask(arm, stage, base, asked, log=log) for arm in ARMS}
    report, findings = written(stage, spec, asked, arms)
    for finding in findings:
        log.finding(finding)
    broken = [finding for finding in findings if finding.severity == "error"]
    if broken:
        raise TrainError("\n".join(f"{f.where}: {f.what}. {f.advice}" for f in broken))
    said = report["verdict"]
    stage.finish(rows=len(asked.rows), verdict=said["headline"])
    log.say(f"evaluate: {said['headline']}. {said['detail']}")


def inputs(folder: RunFolder, spec: Evaluate, base: "Base", asked: Questions) -> dict[str, Any]:
    """All that the report depends on, by the name a person would know it by."""
    settings = spec.model_dump(mode="json", exclude={"batch"})
    return {
        **{f"evaluate.{name}": value for name, value in settings.items()},
        **general.inputs(asked.general),
        "seed": asked.seed,
        "digest of the data": folder.stage("data").digest,
        "digest of the training": folder.stage("train").digest,
        "digest of the base": base.digest,
    }


def written(
    stage: Stage, spec: Evaluate, asked: Questions, arms: Mapping[str, Outcome]
) -> tuple[dict[str, Any], list[Finding]]:
    """`report.json` as written, and what a person should know."""
    judged = {arm: [found.judged(row) for row in asked.rows] for arm, found in arms.items()}
    compared = compare.compare(asked.metrics, judged, draws=spec.bootstrap, seed=asked.seed)
    stand_ins = {arm: found.stand_in.word for arm, found in arms.items() if found.stand_in}
    compared = compare.stood_in(compared, stand_ins)
    beside = {arm: found.general for arm, found in arms.items()}
    compared = general.added(compared, beside, draws=spec.bootstrap, seed=asked.seed)
    main = asked.metrics[0].names()[0]
    findings = [*not_numbers(asked.rows, arms), *rambling(arms["tuned"])]
    by_source = sources.apart(
        asked.rows,
        judged,
        asked.metrics,
        known=sources.tasks_of(stage.run.stage("data").path),
        labels=asked.labels,
        draws=spec.bootstrap,
        seed=asked.seed,
    )
    report = {
        "arms": dict(compared.arms),
        "difference": compared.difference,
        "sources": by_source,
        "verdict": compare.verdict(compared, main, len(asked.rows)),
        "main": main,
        "rows": len(asked.rows),
        "part": spec.part,
        "by": "head" if asked.headed else spec.by,
        "unknown": spec.unknown,
        "thresholds": {arm: found.threshold for arm, found in arms.items()},
        "notes": notes(spec, asked, arms) | general.note(asked.general, beside),
        "answering": {arm: found.facts() for arm, found in arms.items() if found.said},
        "labels": confusion(judged) if asked.labels is not None else None,
        "samples": samples(asked.rows, arms),
        "findings": [finding.record() for finding in findings],
    }
    write_json(stage.path / "report.json", report)
    return report, findings


def notes(spec: Evaluate, asked: Questions, arms: Mapping[str, Outcome]) -> dict[str, str]:
    """How the numbers were made."""
    rows = asked.rows
    found = {metric.names()[0]: metric.note() for metric in asked.metrics if metric.note()}
    found["intervals"] = (
        f"95 %, paired bootstrap, {spec.bootstrap} samples of {len(rows)} rows; where all came "
        "out alike, exact (Clopper-Pearson) for a mean over rows, and none for other measures"
    )
    if any(isinstance(row, Text) for row in rows):
        found["windows"] = documents.NOTE
    sizes = sorted({1 + len(row.references) for row in rows if isinstance(row, Chat)})
    if sizes:
        span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        found["references"] = f"{span} a row"
    for arm, each in arms.items():
        if each.stand_in:
            found[arm] = each.stand_in.reason
        if each.threshold is not None:
            found[f"threshold, {arm}"] = (
                f"{spec.unknown} where the largest probability is under {each.threshold:.4f}, "
                f"chosen on {len(asked.valid)} valid rows"
            )
    return found


def samples(rows: Sequence[HeldOut], arms: Mapping[str, Outcome]) -> list[dict[str, str]]:
    """A few rows from beginning, middle and end, with what either arm made of them."""
    places = sorted({0, len(rows) // 2, len(rows) - 1})[:SAMPLES]
    return [
        {
            "prompt": prompt_of(rows[place]),
            **{arm: found.judged(rows[place]).answer for arm, found in arms.items()},
            "wanted": arms["tuned"].references(rows[place])[0],
            "row": rows[place].digest,
        }
        for place in places
        if arms["tuned"].said
    ]


def not_numbers(rows: Sequence[HeldOut], arms: Mapping[str, Outcome]) -> list[Finding]:
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


def rambling(tuned: Outcome) -> list[Finding]:
    """A tuned model that does not end its answers."""
    share = tuned.facts().get("stopped", 1.0)
    if share >= LEAST_STOPPED:
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
