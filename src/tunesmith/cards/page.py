"""One self-contained HTML page about a run: no script, nothing fetched, every text kept as text."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunesmith.cards import figures
from tunesmith.cards.confusion import tables
from tunesmith.cards.evidence import Evidence
from tunesmith.cards.goal import goal
from tunesmith.cards.sections import (
    UNMEASURED,
    account,
    answering_facts,
    base_facts,
    data_facts,
    environment_facts,
    export_facts,
    findings,
    training_facts,
)
from tunesmith.cards.verdict import REPORT, WORDS, Score, how_asked, scores, verdict
from tunesmith.core.disk import make_folders, write_text
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import redact

MOODS = {"info": "unsure", "warning": "warn", "error": "bad"}


def write(folder: RunFolder) -> Path:
    """Write evaluate/report.html from what the run left behind; what is missing is said."""
    path = folder.path / "evaluate" / "report.html"
    make_folders(path.parent)
    write_text(path, page(folder.path))
    return path


def page(folder: Path) -> str:
    """The page of the run in `folder`."""
    return filled("page.html", view(Evidence(folder), folder.name))


def filled(template: str, view: Mapping[str, Any]) -> str:
    """One of our templates with what it shows; it may use `style` and `short`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Autoescape by hand: jinja2's default is off, and a row may hold anything.
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=without_secrets)
    style = Markup(text_of("page.css"))  # nosec: a file of ours
    return environment.from_string(text_of(template)).render(view, short=short, style=style) + "\n"


def text_of(name: str) -> str:
    """A file that lies beside this one."""
    return files("tunesmith.cards").joinpath(name).read_text("utf-8")


def short(text: str) -> str:
    """A digest by its first digits; the card has it whole."""
    return f"{text[:12]}\u2026" if re.fullmatch("[0-9a-f]{64}", text) else text


def without_secrets(value: Any) -> Any:
    """Texts without what looks like a key or a password; our own drawings as they are."""
    return redact(value) if type(value) is str else value


def view(run: Evidence, name: str) -> dict[str, Any]:
    """All that the template shows, by the name it has there."""
    report = run.read(REPORT)
    found = scores(report)
    return {
        "name": name,
        "goal": goal(run),
        "verdict": verdict(run),
        "tiles": tiles(run, found),
        "scores": [row(score) for score in found],
        "sources": by_source(report),
        "rows": report.get("rows"),
        "asked": how_asked(report, goal(run).asked),
        "notes": notes(report),
        "interval_figure": interval_figure(found),
        "confusion": tables(report),
        "samples": samples(report),
        "figures": training_figures(run),
        "training": training_facts(run),
        "probes": probes(run),
        "account": account(run),
        "data": data_facts(run),
        "answering": answering_facts(run),
        "findings": [{**found, "mood": MOODS[found["severity"]]} for _, found in findings(run)],
        "no_findings": no_findings(run),
        "exports": [{"kind": kind, "facts": facts} for kind, facts in export_facts(run)],
        "base": base_facts(run),
        "environment": environment_facts(run),
        "settings": settings(run),
        "not_measured": ", ".join(UNMEASURED),
    }


def tiles(run: Evidence, found: list[Score]) -> list[dict[str, str]]:
    """The few numbers worth seeing first; those that are missing are left out."""
    made = []
    if found:
        main = found[0]
        ends = [main.number(arm.get("value")) for arm in (main.base, main.tuned)]
        label = f"{main.label}, from {main.stand_in}" if main.stand_in else main.label
        made.append({"value": " \u2192 ".join(ends), "label": label})
    seconds = run.at("train/train.json#/seconds")
    facts = [
        ("rows trained on", run.fact("", "train/train.json", "rows", "train").value, "{:,}"),
        ("held-out rows", run.at(f"{REPORT}#/rows"), "{:,}"),
        ("minutes of training", None if seconds is None else seconds / 60, "{:.1f}"),
        ("weights moved", run.at("train/train.json#/trainable_parameters"), "{:,}"),
    ]
    made += [{"value": form.format(v), "label": n} for n, v, form in facts if v is not None]
    return made


def by_source(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same table for each source of a mixture, or why there is none."""
    return [
        {
            "name": name,
            "rows": found["rows"],
            "note": found.get("note", ""),
            "scores": [row(score) for score in scores({**found, "main": report.get("main")})],
        }
        for name, found in (report.get("sources") or {}).items()
    ]


def row(score: Score) -> dict[str, Any]:
    """One line of the before/after table."""

    cells = [{"value": value, "range": spread} for value, spread in score.cells()]
    arms = dict(zip(("base", "tuned", "difference"), cells, strict=True))
    return {**arms, "label": score.label, "mood": score.mood, "word": WORDS[score.mood]}


def notes(report: Mapping[str, Any]) -> list[str]:
    """How the measures were computed; what stands in for the base is said above them."""
    found = {name: text for name, text in report.get("notes", {}).items() if name != "base"}
    return [f"{name}: {text}" for name, text in found.items() if text]


def interval_figure(found: list[Score]) -> Any:
    """Dots and intervals of the measures in percent; None when there is none."""
    drawn = [
        figures.Interval(score.label, arm, values["value"], values["low"], values["high"])
        for score in found
        if score.percent
        for arm, values in (("base", score.base), ("tuned", score.tuned))
        if all(values.get(key) is not None for key in ("value", "low", "high"))
    ]
    if not drawn:
        return None
    return drawing(figures.intervals("intervals", drawn, title="Base and tuned, with intervals"))


def drawing(svg: str) -> Any:
    """Our own SVG, to go into the page as it is. matplotlib has escaped the texts in it."""
    from markupsafe import Markup

    return Markup(svg)  # nosec: never anything but a figure of cards/figures.py


def training_figures(run: Evidence) -> list[tuple[str, Any]]:
    """Loss, held-out accuracy and learning rate over steps, as far as they were written."""
    lines = run.lines("train/curves.jsonl")
    steps = [line for line in lines if "loss" in line]
    looks = [(line["step"], line["held_out"]) for line in lines if "held_out" in line]
    apart = [(line["step"], line["sources"]) for line in lines if "sources" in line]
    loss = []
    if steps:
        x, y = [line["step"] for line in steps], [line["loss"] for line in steps]
        loss = [figures.Series("each step", x, y, "faint")]
        loss.append(figures.Series("training, smoothed", x, figures.smoothed(y), "base"))
    found = [(goal(run).loss, [*loss, *held(looks, "loss")])]
    if apart:
        each = [
            series
            for number, name in enumerate(apart[0][1])
            for series in held([(s, v[name]) for s, v in apart], "loss", name, number)
        ]
        found.append(("Held-out loss by source", each))
    found.append(("Held-out token accuracy", held(looks, "token_accuracy")))
    found.append(("Held-out accuracy", held(looks, "accuracy")))
    rate = [figures.Series("rate", [s["step"] for s in steps], [s["rate"] for s in steps], "base")]
    found.append(("Learning rate", rate if steps else []))
    return [
        (title, drawing(figures.curves(f"curve{number}", series, title=title)))
        for number, (title, series) in enumerate(found)
        if series
    ]


def held(
    looks: list[tuple[int, dict[str, float]]],
    measure: str,
    label: str = "held out",
    number: int = 0,
) -> list[figures.Series]:
    """A held-out measure over steps, if it was looked at."""
    points = [(step, values[measure]) for step, values in looks if measure in values]
    if not points:
        return []
    x, y = zip(*points, strict=True)
    colour = figures.LINES[number % len(figures.LINES)]
    return [figures.Series(label, x, y, colour, marks=True)]


def samples(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Three held-out prompts with what base and tuned made of them."""
    return [
        {name: str(sample.get(name, "")) for name in ("prompt", "base", "tuned", "wanted")}
        for sample in report.get("samples", [])
    ]


def probes(run: Evidence) -> list[dict[str, Any]]:
    """The probe prompts, each with its answers by step."""
    prompts = {line["digest"]: line for line in run.lines("data/valid.jsonl")}
    grouped: dict[str, list[dict[str, Any]]] = {}
    for line in run.lines("train/probes.jsonl"):
        grouped.setdefault(line["row"], []).append(line)
    return [
        {"prompt": last_user(prompts.get(row, {})) or row[:12], "answers": answers}
        for row, answers in grouped.items()
    ]


def last_user(record: Mapping[str, Any]) -> str:
    """What the person said last in a prepared row."""
    said = [m.get("content") or "" for m in record.get("messages", ()) if m["role"] == "user"]
    return said[-1] if said else ""


def no_findings(run: Evidence) -> str:
    """What to say where the list of findings is empty."""
    looked = (run.folder / "data" / "findings.json").is_file()
    return "The audits found nothing." if looked else "Audits: not measured."


def settings(run: Evidence) -> str:
    """The resolved run file; empty where there is none."""
    path = run.folder / "run.yaml"
    return path.read_text("utf-8") if path.is_file() else ""
