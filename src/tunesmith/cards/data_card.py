"""The data card: where the rows are from, what was done to them and found in them, who decides."""

from pathlib import Path
from typing import Any

from tunesmith.cards import page, sections
from tunesmith.cards.card import Card, Section, keep
from tunesmith.cards.evidence import Evidence, Fact
from tunesmith.core.disk import write_text
from tunesmith.core.folders import RunFolder

ACCOUNT, FINDINGS = "data/account.json", "data/findings.json"
CHECKLIST = "cards/compliance.json"
MOODS = {"found": "warn", "not found": "good", "not looked for": "unsure",
         "a person decides": "unsure"}  # fmt: skip


def write(folder: RunFolder) -> Path:
    """Write cards/data_card.md and .json, and cards/data.html, from what the data stage left."""
    made = card(folder.path)
    keep(made, folder.path / "cards", "data_card")
    path = folder.path / "cards" / "data.html"
    write_text(path, page.filled("data.html", view(folder.path)))
    return path


def card(folder: Path) -> Card:
    """The card of the data of the run in `folder`."""
    run = Evidence(folder)
    return Card(
        name=f"{folder.name}: data",
        summary=summary(run),
        front={"pretty_name": folder.name, "tags": ["tunesmith"], **licence(run)},
        sections=[
            Section(title="Sources", facts=source_facts(run)),
            Section(
                title="What was done",
                text="Rows in are rows out and rows dropped, step by step.",
                facts=step_facts(run),
            ),
            Section(title="Parts", facts=run.facts(ACCOUNT, "parts")),
            Section(
                title="Findings",
                text="Masked: a finding says where to look, never what is written there.",
                facts=[fact for fact, _ in found(run)]
                or [Fact(label="all audits", value="nothing", source=FINDINGS)],
            ),
            Section(title="Law", text=str(run.at(f"{CHECKLIST}#/note")), facts=law_facts(run)),
        ],
    )


def summary(run: Evidence) -> str:
    """The rows and how many findings of which severity, in a sentence."""
    parts = run.at(f"{ACCOUNT}#/parts") or {}
    rows = ", ".join(f"{count:,} {part}" for part, count in parts.items())
    severities = [finding["severity"] for finding in run.read(FINDINGS) or []]
    told = ", ".join(
        f"{severities.count(each)} of severity {each}"
        for each in sections.SEVERITIES
        if each in severities
    )
    return f"Rows: {rows}. Findings: {told or 'none'}."


def licence(run: Evidence) -> dict[str, Any]:
    """The licence that a person stated, as the hub reads it."""
    for item in run.at(f"{CHECKLIST}#/items") or []:
        if item["asks"] == "licence" and item["evidence"].startswith("stated: "):
            return {"license": "other", "license_name": item["evidence"].removeprefix("stated: ")}
    return {}


def source_facts(run: Evidence) -> list[Fact]:
    """Files, their form and rows, keys not used, and digests."""
    facts = []
    for place, file in enumerate(run.at(f"{ACCOUNT}#/files") or []):
        keys = ("files", str(place))
        facts.append(run.fact(f"rows of {file['file']} ({file['format']})", ACCOUNT, *keys, "rows"))
        if file["unused"]:
            facts.append(run.fact(f"keys of {file['file']} not used", ACCOUNT, *keys, "unused"))
    return [
        *facts,
        run.fact("digest of the source", "manifest.json", "data", "source"),
        run.fact("digest of the prepared rows", "manifest.json", "data", "prepared"),
    ]


def step_facts(run: Evidence) -> list[Fact]:
    """Of each transform: rows in, kept, and dropped by reason."""
    facts = []
    for place, step in enumerate(run.at(f"{ACCOUNT}#/steps") or []):
        for key, label in (("taken", "rows in"), ("kept", "rows kept"), ("dropped", "dropped")):
            if step[key] or key != "dropped":
                facts.append(
                    run.fact(f"{step['kind']}: {label}", ACCOUNT, "steps", str(place), key)
                )
    return facts


def found(run: Evidence) -> list[tuple[Fact, dict[str, Any]]]:
    """The findings, severest first, each with where it is written."""
    listed = [
        (run.fact(f"{each['audit']} ({each['severity']})", FINDINGS, str(place), "what"), each)
        for place, each in enumerate(run.read(FINDINGS) or [])
    ]
    return sorted(listed, key=lambda pair: sections.SEVERITIES.index(pair[1]["severity"]))


def law_facts(run: Evidence) -> list[Fact]:
    """The checklist: what was found, and what a person decided or has to."""
    shows = {"a person decides": "evidence"}
    return [
        run.fact(
            f"{item['law']}: {item['asks']}",
            CHECKLIST,
            "items",
            str(place),
            shows.get(item["state"], "state"),
        )
        for place, item in enumerate(run.at(f"{CHECKLIST}#/items") or [])
    ]


def view(folder: Path) -> dict[str, Any]:
    """All that the page shows."""
    run = Evidence(folder)
    return {
        "name": folder.name,
        "summary": summary(run),
        "sources": source_facts(run),
        "account": sections.account(run),
        "parts": run.facts(ACCOUNT, "parts"),
        "findings": [{**each, "mood": page.MOODS[each["severity"]]} for _, each in found(run)],
        "note": run.at(f"{CHECKLIST}#/note"),
        "law": [
            {**item, "mood": MOODS[item["state"]]} for item in run.at(f"{CHECKLIST}#/items") or []
        ],
        "settings": page.settings(run),
    }
