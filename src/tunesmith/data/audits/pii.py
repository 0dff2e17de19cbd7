"""Personal data in rows: what has a pattern, and names where a model for them is given."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from tunesmith.core.findings import Finding, Severity
from tunesmith.core.rows import Row
from tunesmith.data.audits.base import Audit, Eye
from tunesmith.data.personal import personal
from tunesmith.data.phones import NATIONAL, REGIONS
from tunesmith.data.seen import seen
from tunesmith.data.spans import Span, apart
from tunesmith.data.spotted import findings, spotted


class Pii(Audit):
    """E-mail addresses, phone, card and account numbers, addresses of machines, dates of birth,
    and numbers of passports, licences and patients.

    Names, places and street addresses have no pattern and are missed without `names`: a clean
    report says nothing about them. Measured on 1,500 sentences: docs/guides/audit.md.
    """

    kind: Literal["pii"] = "pii"
    regions: tuple[str, ...] = REGIONS
    """Whose national phone numbers are known without a word like `phone` beside them."""
    names: str | None = None
    """A folder with a token-classification model (safetensors) that finds names; no name is
    looked for without one."""

    @field_validator("regions")
    @classmethod
    def _known(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [region for region in regions if region not in NATIONAL]:
            raise ValueError(
                f"no form of phone number is known for {unknown[0]!r}; known: {', '.join(NATIONAL)}"
            )
        return regions

    def files(self) -> tuple[str, ...]:
        """What is read of the model that finds names."""
        if self.names is None:
            return ()
        found = [path for end in READ for path in Path(self.names).glob(end) if path.is_file()]
        return tuple(map(str, found))

    def eye(self) -> Eye:
        """The personal data of a row: what has a pattern, and names where a model finds them."""
        if self.names is None:
            return lambda row: spotted(row, lambda text: personal(text, self.regions))
        from tunesmith.model.tagger import Tagger

        tagger = Tagger(Path(self.names))

        def look(text: str) -> list[Span]:
            named = (Span(*each) for each in tagger.spans(text))
            return apart([*personal(text, self.regions), *named])

        return lambda row: spotted(row, look)

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each kind for each part."""
        for part, rows in parts.items():
            found = seen(rows, self)
            named = {kind: f"{kind} (by model)" for (kind,) in found if kind not in NAMES}
            names = NAMES | named
            severities = {kind: SEVERITIES.get(kind, "warning") for kind in names}
            yield from findings(part, found, severities, names, ADVICE)


READ = ("*.json", "*.safetensors")
"""Of a model's folder; a missing folder is told when the model is read."""
NAMES = {
    "card": "a payment card's number",
    "ssn": "a US social security number",
    "iban": "a bank account's IBAN",
    "account": "an account number",
    "passport": "a passport's number",
    "driver_licence": "a driving licence's number",
    "medical_record": "a patient's or member's number",
    "birth_date": "a date of birth",
    "age": "an age above 89",
    "email": "an e-mail address",
    "phone": "a phone number",
    "ip": "an address of a machine (IP)",
    "mac": "an address of a device (MAC)",
    "postcode": "a postal code",
    "url": "a web address",
}
SEVERITIES: Mapping[str, Severity] = {
    "card": "error",
    "ssn": "error",
    "url": "info",
    "postcode": "info",
}
"""Of the others: warning. A web address is one of HIPAA's identifiers and mostly nobody's."""
ADVICE = "state data.transforms: [redact], or keep them on purpose and say so in policy.pii"
