"""What a run may not be trained on, or not leave with; and why the data may be used at all."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from tunesmith.core.disk import read_json
from tunesmith.core.errors import DataError
from tunesmith.core.parts import Spec

Rule = Literal["report", "keep", "redact", "refuse"]
"""report: go on. keep: train, and refuse to export. redact, refuse: do not train while anything
is found; they differ in the advice."""


class Policy(Spec):
    """What must not be in the prepared rows, by audit.

    Findings of severity warning or error count; what is `info` never stops a run. `report` goes
    on, `keep` trains and refuses to export, `redact` refuses to train until a `redact` transform
    has left nothing, `refuse` refuses to train. A rule needs its audit in `data.audits`: what was
    not looked for was not found.

    The texts below are what a person decides; the compliance page repeats them and decides nothing.
    """

    pii: Rule = "report"
    """Personal data by pattern, and names where a model finds them."""
    secrets: Rule = "report"
    """Keys, tokens and passwords."""
    sensitive: Rule = "report"
    """Health, beliefs, sex life, origin, minors, abuse."""
    poisoning: Rule = "report"
    """Signs of planted rows."""
    leakage: Rule = "report"
    """Held-out rows that training has answered."""
    quality: Rule = "report"
    """Empty, repeated, contradicting or mislabelled rows."""
    representation: Rule = "report"
    """Groups and labels that are few, or that go together."""
    purpose: str = ""
    """What the model is for (GDPR article 5(1)(b)): written by a person."""
    basis: str = ""
    """The lawful basis for using the data (GDPR article 6, and 9 where it is sensitive)."""
    retention: str = ""
    """How long rows, runs and models are kept, and who removes them."""
    licence: str = ""
    """Under which licence or permission the rows may be used."""

    def rules(self) -> dict[str, Rule]:
        """The rule of each audit."""
        return {name: getattr(self, name) for name in AUDITS}

    def unheard(self, audits: set[str]) -> Iterator[tuple[str, Rule]]:
        """Rules whose audit is not among those that look."""
        yield from (
            (name, rule)
            for name, rule in self.rules().items()
            if rule != "report" and name not in audits
        )


AUDITS = ("pii", "secrets", "sensitive", "poisoning", "leakage", "quality", "representation")
ACTS: Mapping[str, tuple[Rule, ...]] = {
    "train": ("redact", "refuse"),
    "export": ("keep", "redact", "refuse"),
}
ADVICE: Mapping[Rule, str] = {
    "redact": "state data.transforms: [redact] behind the others",
    "refuse": "drop or change these rows",
    "keep": "the model may be used here and must not leave",
}


def enforce(data: Path, policy: Policy, act: Literal["train", "export"]) -> None:
    """Refuse to `train` or `export` while the prepared rows in `data` break the policy.

    Raises DataError with every rule that is broken, a sentence each.
    """
    stopping = {name: rule for name, rule in policy.rules().items() if rule in ACTS[act]}
    if not stopping:
        return
    found: list[dict[str, Any]] = read_json(data / "findings.json")
    broken = [
        sentence(name, rule, mine, act)
        for name, rule in stopping.items()
        if (mine := [f for f in found if f["audit"] == name and f["severity"] != "info"])
    ]
    if broken:
        raise DataError("\n".join(broken))


def sentence(name: str, rule: Rule, found: list[dict[str, Any]], act: str) -> str:
    """What stands against the act, and what to do."""
    more = f" and {len(found) - 1} findings more" if len(found) > 1 else ""
    return (
        f"policy.{name}: {rule} forbids to {act}: {found[0]['what']} (the first is "
        f"{found[0]['where']}){more}; {ADVICE[rule]}, or state policy.{name}: report"
    )
