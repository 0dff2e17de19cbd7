"""The model card: what the model is for, how it was trained and judged. Measurements only."""

from pathlib import Path
from typing import Any

from tunesmith.cards import sections
from tunesmith.cards.card import Card, Section, keep
from tunesmith.cards.confusion import tables
from tunesmith.cards.evidence import Evidence, Fact
from tunesmith.cards.goal import TRAIN, goal
from tunesmith.cards.verdict import REPORT, WORDS, how_asked, scores, verdict
from tunesmith.core.folders import RunFolder


def write(folder: RunFolder) -> Path:
    """Write cards/model_card.md and cards/model_card.json from what the run left behind."""
    return keep(card(folder.path), folder.path / "cards", "model_card")


def card(folder: Path) -> Card:
    """The card of the run in `folder`."""
    run = Evidence(folder)
    judged = verdict(run)
    return Card(
        name=folder.name,
        summary=f"{judged['headline']}. {judged['detail']}",
        front=front(run),
        sections=[
            purpose(run),
            base(run),
            data(run),
            Section(title="Training", facts=sections.training_facts(run)),
            evaluation(run),
            *confused(run),
            limits(run),
            exports(run),
            Section(title="Environment", facts=sections.environment_facts(run)),
        ],
    )


def front(run: Evidence) -> dict[str, Any]:
    """Base, library and results in the hub's own words."""
    method = run.at(f"{TRAIN}#/method/kind")
    values = {
        "base_model": run.at(f"{TRAIN}#/base/source"),
        "library_name": "peft" if "adapter" in run.read(sections.VERIFIED) else "transformers",
        "pipeline_tag": task(run),
        "tags": ["tunesmith", *([method] if method else [])],
    }
    results = [
        {"type": score.name, "value": score.tuned["value"], "name": f"{score.label} (tuned)"}
        for score in scores(run.read(REPORT))
        if score.tuned["value"] is not None
    ]
    if results:
        data = {"name": "held-out rows of the run", "type": "private"}
        entry = {"task": {"type": task(run)}, "dataset": data, "metrics": results}
        values["model-index"] = [{"name": run.folder.name, "results": [entry]}]
    return {name: value for name, value in values.items() if value is not None}


def task(run: Evidence) -> str:
    """The hub's name for what the model does."""
    classifies = run.at(f"{TRAIN}#/objective/kind") == "classify"
    return "text-classification" if classifies else "text-generation"


def purpose(run: Evidence) -> Section:
    """What the rows taught it, and nothing beyond."""
    facts = [
        run.fact("base", TRAIN, "base", "source"),
        run.fact("objective", TRAIN, "objective", "kind"),
        run.fact("rows trained on", TRAIN, "rows", "train"),
    ]
    measured = "Only rows like those were measured; for any other use, measure first."
    if not run.read(REPORT):
        measured = "Nothing was measured, of such rows or of others: measure before any use."
    text = f"{goal(run).purpose} {measured}"
    return Section(title="What it is for", text=text, facts=facts)


def base(run: Evidence) -> Section:
    """What was tuned, and how coarse its numbers were: before this run, and during it."""
    said = []
    if note := run.at(f"{TRAIN}#/base/note"):
        said.append(f"The base itself was {note}: its numbers had been rounded before this run.")
    if bits := run.at(f"{TRAIN}#/base/bits"):
        how = run.at(f"{TRAIN}#/base/held_as")
        said.append(
            f"While it was tuned, the linear layers of its blocks were held in {bits} bits "
            f"({how}); every measure of base and tuned is of models held so."
        )
    return Section(title="Base model", text=" ".join(said), facts=sections.base_facts(run))


def data(run: Evidence) -> Section:
    """The rows, and what was found about them."""
    found = [fact for fact, _ in sections.findings(run)]
    return Section(title="Data", facts=[*sections.data_facts(run), *found])


def evaluation(run: Evidence) -> Section:
    """Every measure of both arms and of their difference, with its interval."""
    found = scores(run.read(REPORT))
    header = ["measure", "base", "tuned", "difference", "verdict"]
    rows = [
        [score.label, *(f"{value} ({spread})" if spread else value for value, spread in cells)]
        + [WORDS[score.mood]]
        for score in found
        for cells in [score.cells()]
    ]
    places = (("arms", "base"), ("arms", "tuned"), ("difference",))
    behind = [
        run.fact(f"{score.label}, {place[-1]}, {key}", REPORT, *place, score.name, key)
        for score in found
        for place in places
        for key in ("value", "low", "high")
    ]
    asked = f"{how_asked(run.read(REPORT), goal(run).asked)} In brackets: 95 % intervals."
    return Section(
        title="Evaluation",
        text=asked if found else f"{verdict(run)['headline']}.",
        table=[header, *rows] if rows else [],
        behind=behind,
        facts=[*sections.source_facts(run), *sections.answering_facts(run)],
    )


def confused(run: Evidence) -> list[Section]:
    """Where labels were confused, if the run has labels."""
    return [
        Section(
            title=found.title,
            table=[list(found.header), *map(list, found.rows)],
            behind=[run.fact(" ".join(keys[2:]), REPORT, *keys) for keys in found.keys],
        )
        for found in tables(run.read(REPORT))
    ]


def limits(run: Evidence) -> Section:
    """What nobody looked at."""
    facts = [run.fact(name, REPORT, "checks", name) for name in sections.UNMEASURED]
    text = "What was not measured is not known to be good."
    return Section(title="Limits", text=text, facts=facts)


def exports(run: Evidence) -> Section:
    """The reload of each export, measured."""
    facts = [
        Fact(label=f"{kind}: {fact.label}", value=fact.value, source=fact.source)
        for kind, listed in sections.export_facts(run)
        for fact in listed
    ]
    text = "Each was reloaded in a fresh process and compared with the trained model."
    return Section(title="Exports verified", text=text, facts=facts)
