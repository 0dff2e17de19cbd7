"""Keys, tokens and passwords in rows: a model can recite what it was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tunesmith.core.findings import Finding
from tunesmith.core.rows import Row
from tunesmith.data.audits.base import Audit, Eye
from tunesmith.data.credentials import secret
from tunesmith.data.seen import seen
from tunesmith.data.spotted import findings, spotted


class Secrets(Audit):
    """API keys, access tokens, private keys, passwords in addresses or behind their name.

    Some twenty issuers' forms are known (data/credentials.py); a password without any word that
    calls it one is not found.
    """

    kind: Literal["secrets"] = "secrets"

    def eye(self) -> Eye:
        """The secrets of a row."""
        return lambda row: spotted(row, secret)

    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """At most one finding of each kind for each part."""
        for part, rows in parts.items():
            found = seen(rows, self)
            yield from findings(part, found, dict.fromkeys(NAMES, "error"), NAMES, ADVICE)


NAMES = {
    "private_key": "a private key",
    "token": "an access token",
    "password_in_url": "a password in a web address",
    "assigned": "what is called a password or a key",
}
ADVICE = "revoke it where it is valid, then drop the row or state data.transforms: [redact]"
