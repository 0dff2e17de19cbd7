"""A policy stops what it forbids with a sentence; the checklist says what nobody looked for."""

from pathlib import Path

import pytest

from tunesmith.core.disk import write_json
from tunesmith.core.errors import DataError, SettingsError
from tunesmith.core.findings import Finding
from tunesmith.data.compliance import IDENTIFIERS, checklist
from tunesmith.data.policy import Policy, enforce
from tunesmith.run import load

MAIL = Finding("warning", "rows of train with an e-mail address: 2", "a.csv:3", "", "", audit="pii",
               counts={"rows": 2, "email": 3})  # fmt: skip
PERSON = "a person decides"
LINK = Finding("info", "rows of train with a web address: 1", "a.csv:9", "", "", audit="pii",
               counts={"rows": 1, "url": 1})  # fmt: skip


def folder(path: Path, *found: Finding) -> Path:
    """A data stage's findings."""
    write_json(path / "findings.json", [each.record() for each in found])
    return path


@pytest.mark.parametrize(
    ("rule", "stops"),
    [("report", ()), ("keep", ("export",)), ("redact", ("train", "export")),
     ("refuse", ("train", "export"))],
)  # fmt: skip
def test_a_rule_stops_what_it_forbids(tmp_path: Path, rule: str, stops: tuple[str, ...]) -> None:
    data = folder(tmp_path, MAIL)
    policy = Policy.model_validate({"pii": rule})
    for act in ("train", "export"):
        if act not in stops:
            enforce(data, policy, act)  # type: ignore[arg-type]
            continue
        with pytest.raises(DataError) as raised:
            enforce(data, policy, act)  # type: ignore[arg-type]
        sentence = str(raised.value)
        assert f"policy.pii: {rule} forbids to {act}" in sentence and "a.csv:3" in sentence


def test_what_is_only_information_stops_nothing(tmp_path: Path) -> None:
    enforce(folder(tmp_path, LINK), Policy(pii="refuse", secrets="refuse"), "train")


def test_a_rule_needs_its_audit(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: {source: a.csv, audits: [quality]}\npolicy: {sensitive: refuse}\n")
    with pytest.raises(SettingsError, match="run.yaml:2:21: policy.sensitive: refuse needs the"):
        load(path)


def states(*found: Finding, audits: list[dict[str, object]]) -> dict[str, str]:
    """The checklist, by what it asks."""
    records = [each.record() for each in found]
    made = checklist(records, Policy(purpose="answer mail"), audits)
    return {item.asks: item.state for item in made}


def test_the_checklist_says_what_was_found_and_what_was_not_looked_for() -> None:
    found = states(MAIL, LINK, audits=[{"kind": "pii", "names": None}])
    assert found["F e-mail addresses"] == found["N web addresses (URLs)"] == "found"
    assert found["G social security numbers"] == "not found"
    assert found["A names"] == found["Q photographs of a face"] == "not looked for"
    assert found["security: keys and passwords in the rows"] == "not looked for"
    assert found["purpose"] == "a person decides"


def named(**counts: int) -> Finding:
    """What a model of names found, under kinds of its own."""
    return Finding("warning", "rows of train", "a.csv:3", "", "", audit="pii",
                   counts={"rows": 1, **counts})  # fmt: skip


def test_a_model_may_write_its_kinds_in_small_letters() -> None:
    found = states(named(per=2), audits=[{"kind": "pii", "names": "tagger"}])
    assert found["A names"] == "found"
    assert found["B geographic parts smaller than a state"] == "not found"


def test_kinds_that_only_the_model_knows_are_for_a_person() -> None:
    audits: list[dict[str, object]] = [{"kind": "pii", "names": "tagger"}]
    found = states(named(GIVENNAME=2, LOCATION=1), audits=audits)
    assert found["A names"] == found["B geographic parts smaller than a state"] == PERSON
    assert found["F e-mail addresses"] == "not found"
    records = [named(GIVENNAME=2, GPE=1).record()]
    items = {item.asks[0]: item for item in checklist(records, Policy(), audits)[-18:]}
    assert items["A"].state == PERSON and "givenname (2)" in items["A"].evidence
    assert items["B"].state == "found" and "givenname (2)" in items["B"].evidence


def test_labels_of_other_audits_are_no_identifiers() -> None:
    other = Finding("info", "rows", "a.csv:3", "", "", audit="sensitive", counts={"age": 1})
    found = states(other, audits=[{"kind": "pii", "names": "tagger"}, {"kind": "sensitive"}])
    assert found["C dates of a person but years, and ages above 89"] == "not found"
    assert found["A names"] == "not found"


def test_without_the_audit_nothing_was_looked_for() -> None:
    found = states(audits=[])
    assert {found[words] for words, _ in IDENTIFIERS} == {"not looked for"}


def test_hipaa_names_eighteen() -> None:
    assert len(IDENTIFIERS) == 18
