"""Findings as a GDPR and HIPAA checklist. It fills in what was looked for, and decides nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.disk import make_folders, read_json, write_json
from tunesmith.core.folders import RunFolder
from tunesmith.core.parts import Spec
from tunesmith.data.policy import Policy

AID = "An aid, not legal advice."
State = Literal["found", "not found", "not looked for", "a person decides"]


class Item(Spec):
    """A line of the checklist."""

    law: str
    """Which rule it is of."""
    asks: str
    """What the rule asks."""
    state: State
    """What is known of it."""
    evidence: str = ""
    """Where that is written, or what is missing."""


# 45 CFR 164.514(b)(2)(i), A to R. Each: the words, and the kinds of spans that show it; none where
# no pattern can.
IDENTIFIERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("A names", ("PER", "PERSON", "NAME")),
    ("B geographic parts smaller than a state", ("postcode", "LOC", "GPE", "ADDRESS")),
    ("C dates of a person but years, and ages above 89", ("birth_date", "age")),
    ("D telephone numbers", ("phone",)),
    ("E fax numbers", ("phone",)),
    ("F e-mail addresses", ("email",)),
    ("G social security numbers", ("ssn",)),
    ("H medical record numbers", ("medical_record",)),
    ("I health plan beneficiary numbers", ("medical_record",)),
    ("J account numbers", ("account", "iban", "card")),
    ("K certificate and licence numbers", ("driver_licence", "passport")),
    ("L vehicle identifiers and plates", ()),
    ("M device identifiers and serial numbers", ("mac",)),
    ("N web addresses (URLs)", ("url",)),
    ("O internet addresses (IP)", ("ip",)),
    ("P biometric identifiers", ()),
    ("Q photographs of a face", ()),
    ("R any other unique number, mark or code", ()),
)
BY_MODEL = frozenset(("PER", "PERSON", "NAME", "LOC", "GPE", "ADDRESS"))
"""Kinds that only a model of names tells: without one they were not looked for."""
NO_PII = "add pii to data.audits"
NO_NAMES = "needs a model of names: data.audits: [{kind: pii, names: FOLDER}]"
PARTLY = frozenset(("B", "C", "H", "I", "K", "M"))
"""Identifiers of which a pattern tells a part alone."""


def write(folder: RunFolder, policy: Policy, audits: Sequence[Mapping[str, Any]]) -> Path:
    """Write cards/compliance.json from data/findings.json and what was asked of the audits."""
    found = read_json(folder.path / "data" / "findings.json")
    made = {
        "note": AID,
        "items": [item.model_dump() for item in checklist(found, policy, audits)],
    }
    path = folder.path / "cards" / "compliance.json"
    make_folders(path.parent)
    write_json(path, made)
    return path


def checklist(
    findings: Sequence[Mapping[str, Any]], policy: Policy, audits: Sequence[Mapping[str, Any]]
) -> list[Item]:
    """Every line: GDPR first, then the identifiers of HIPAA's Safe Harbor."""
    settings = {audit["kind"]: audit for audit in audits}
    of = {name: [f for f in findings if f["audit"] == name] for name in settings}
    return [
        *decisions(policy),
        looked("GDPR 4(1)", "personal data in the rows", "pii", of),
        looked(
            "GDPR 9(1)", "special categories: health, beliefs, sex life, origin", "sensitive", of
        ),
        looked("GDPR 5(1)(d)", "accuracy: rows that contradict each other", "quality", of),
        looked("GDPR 5(1)(f), 32", "security: keys and passwords in the rows", "secrets", of),
        looked("GDPR 22, recital 71", "effects on groups of people", "representation", of),
        Item(
            law="GDPR 15, 17",
            asks="access and erasure: which models were trained on a person's rows",
            state="a person decides",
            evidence="`tunesmith who-saw TEXT` lists them; a trained model cannot forget a row, "
            "so retrain without it, or withdraw the model",
        ),
        *identifiers(spans(of.get("pii", ())), settings.get("pii")),
    ]


def decisions(policy: Policy) -> list[Item]:
    """What only a person can say, with what one has said."""
    asked = (
        ("GDPR 5(1)(b)", "purpose", policy.purpose),
        ("GDPR 6, 9(2)", "basis", policy.basis),
        ("GDPR 5(1)(e)", "retention", policy.retention),
        ("copyright, contract", "licence", policy.licence),
    )
    return [
        Item(
            law=law,
            asks=name,
            state="a person decides",
            evidence=f"stated: {said}" if said else f"nothing is stated; say it in policy.{name}",
        )
        for law, name, said in asked
    ]


def looked(
    law: str, asks: str, audit: str, found: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Item:
    """What an audit found of a rule."""
    if audit not in found:
        return Item(
            law=law, asks=asks, state="not looked for", evidence=f"add {audit} to data.audits"
        )
    mine = found[audit]
    told = "; ".join(f["what"] for f in mine[:3]) + ("; ..." if len(mine) > 3 else "")
    return Item(law=law, asks=asks, state="found" if mine else "not found", evidence=told)


def spans(findings: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many spans of each kind were found, in small letters: models name kinds as they like."""
    counts: dict[str, int] = {}
    for finding in findings:
        for kind, count in finding["counts"].items():
            if kind != "rows":
                counts[kind.lower()] = counts.get(kind.lower(), 0) + count
    return counts


def identifiers(counts: Mapping[str, int], pii: Mapping[str, Any] | None) -> list[Item]:
    """The eighteen identifiers."""
    if pii is None:
        return [identifier(words, "not looked for", NO_PII) for words, _ in IDENTIFIERS]
    return [of_kinds(words, kinds, counts, bool(pii.get("names"))) for words, kinds in IDENTIFIERS]


def of_kinds(words: str, kinds: Sequence[str], counts: Mapping[str, int], names: bool) -> Item:
    """An identifier by the spans that show it; with a model of `names`, by its kinds too."""
    able = [kind for kind in kinds if names or kind not in BY_MODEL]
    if not able:
        return identifier(words, "not looked for", NO_NAMES if kinds else "no pattern tells it")
    hits = sum(counts.get(kind.lower(), 0) for kind in able)
    state: State = "found" if hits else "not found"
    evidence = [f"{hits} in the rows"] if hits else []
    if strange := unknown(counts) if BY_MODEL & set(able) else "":
        state = state if hits else "a person decides"
        evidence.append(f"the model of names found kinds that no line here knows: {strange}")
    if words[0] in PARTLY:
        evidence.append("a pattern tells a part of it alone")
    return identifier(words, state, "; ".join(evidence))


def unknown(counts: Mapping[str, int]) -> str:
    """Kinds that only a user's model can have found, and that may be names or places."""
    known = {kind.lower() for _, kinds in IDENTIFIERS for kind in kinds}
    return ", ".join(f"{k} ({counts[k]})" for k in sorted(counts.keys() - known))


def identifier(words: str, state: State, evidence: str) -> Item:
    """A line of HIPAA's."""
    return Item(law="HIPAA 164.514(b)(2)", asks=words, state=state, evidence=evidence)
