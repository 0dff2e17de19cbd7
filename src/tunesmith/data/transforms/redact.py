"""Replace personal data and secrets in texts, or drop the rows that hold them."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tunesmith.core import disk
from tunesmith.core.errors import DataError
from tunesmith.core.quote import visible
from tunesmith.core.rows import Chat, Judged, Pair, Row
from tunesmith.data import credentials, personal
from tunesmith.data.found import turns
from tunesmith.data.nested import texts_in
from tunesmith.data.phones import NATIONAL, REGIONS
from tunesmith.data.spans import Span, apart
from tunesmith.data.transforms.base import Account, Transform

KEY = 32
"""Bytes of a key."""
LETTERS = "abcdefghijklmnop"
"""What a pseudonym is written in: digits would look like a number again."""
LENGTH = 8
"""Letters of a pseudonym: two values share one by accident in one of 2**32 pairs."""


class Redact(Transform):
    """Take out what has the form of personal data or of a secret: e-mail addresses, numbers of
    phones, cards and accounts, keys, passwords.

    `mask` writes `[EMAIL]`. `pseudonym` writes `[EMAIL-kbdaoccf]`, the same for the same value in
    every file that is done with the same key, so that rows can still be joined; who has the key can
    test a guess, and nobody can read a value out of it. `drop` drops the row. Labels, roles and
    calls of tools stay as they are: rows that hold something in a call, or in a tool that they
    offer, are dropped. Names and places have no form and are not found.
    """

    kind: Literal["redact"] = "redact"
    alone: ClassVar[bool] = True
    find: tuple[Literal["personal", "secrets"], ...] = ("personal", "secrets")
    """What is looked for."""
    how: Literal["mask", "pseudonym", "drop"] = "mask"
    """What becomes of it."""
    spare: tuple[str, ...] = ()
    """Kinds that stay, such as url."""
    regions: tuple[str, ...] = REGIONS
    """Countries whose way to write a phone number is known."""
    key: str | None = Field(default=None, min_length=1)
    """For pseudonyms: a file with the key. It is made where there is none, and is no part of the
    run: keep it apart, or remove it when nothing more is to be joined."""

    @model_validator(mode="after")
    def key_goes_with_pseudonyms(self) -> "Redact":
        """A pseudonym without a key could be guessed."""
        if (self.how == "pseudonym") != (self.key is not None):
            raise ValueError("key goes with how: pseudonym, such as {how: pseudonym, key: my.key}")
        return self

    @model_validator(mode="after")
    def names_are_known(self) -> "Redact":
        """A region without a form, or a kind that nothing finds, was meant otherwise."""
        kinds = (*personal.KINDS, *credentials.KINDS)
        for given, known in ((self.regions, NATIONAL), (self.spare, kinds)):
            if unknown := [each for each in given if each not in known]:
                raise ValueError(f"{unknown[0]!r} is not known here; known: {', '.join(known)}")
        return self

    def for_texts(self) -> "Redact":
        """Where a row would be dropped, a text is masked."""
        return self.model_copy(update={"how": "mask"}) if self.how == "drop" else self

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows without what was found."""
        secret_key = b"" if self.key is None else key_in(Path(self.key))
        for row in rows:
            account.taken += 1
            kinds: dict[str, None] = {}
            after = row.mapped(partial(self.replaced, key=secret_key, kinds=kinds))
            beside = self.beside(row)
            if beside or (kinds and self.how == "drop"):
                account.drop(f"holds {', '.join(beside or kinds)}", row)
                continue
            account.kept += 1
            if kinds:
                account.change(row, ", ".join(kinds))
            yield after if kinds else row

    def found(self, text: str) -> list[Span]:
        """What stands in a text, in order, none over another; secrets first."""
        secrets_first = credentials.secret(text) if "secrets" in self.find else []
        behind = personal.personal(text, self.regions) if "personal" in self.find else []
        found = apart([*secrets_first, *behind])
        return [each for each in found if each.kind not in self.spare]

    def replaced(self, text: str, *, key: bytes, kinds: dict[str, None]) -> str:
        """The text with names of kinds in the place of values; `kinds` hears them."""
        parts, done = [], 0
        for span in self.found(text):
            kinds[span.kind] = None
            value = text[span.start : span.end]
            parts += [text[done : span.start], self.name_of(span.kind, value, key)]
            done = span.end
        return "".join([*parts, text[done:]])

    def name_of(self, kind: str, value: str, key: bytes) -> str:
        """What is written instead of a value."""
        if self.how != "pseudonym":
            return f"[{kind.upper()}]"
        bare = "".join(value.casefold().split())
        found = hmac.new(key, f"{kind}:{bare}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        halves = found.hexdigest()[:LENGTH]
        return f"[{kind.upper()}-{''.join(LETTERS[int(each, 16)] for each in halves)}]"

    def beside(self, row: Row) -> dict[str, None]:
        """Kinds that stand where nothing is replaced: in the calls of all turns, and in tools."""
        tools = row.tools if isinstance(row, Chat | Judged | Pair) else ()
        hidden = [turn.extra for turn in turns(row)]
        texts = [text for each in (*hidden, *tools) for text in texts_in(dict(each))]
        return dict.fromkeys(span.kind for text in texts for span in self.found(text))


@cache
def key_in(path: Path) -> bytes:
    """The key in a file, which is made, for its owner alone, where there is none."""
    if not path.exists():
        # Where another process was faster, its key is as good.
        disk.write_once(path, secrets.token_hex(KEY).encode() + b"\n")
    with disk.disk_errors(path, "read the key"):
        found = path.read_bytes().strip()
    if len(found) < KEY:
        raise DataError(f"{visible(path)}: a key of at least {KEY} characters is needed here")
    return found
