"""Mend texts: wrong encodings, Unicode forms, spaces, and where asked quotes and markup."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.errors import missing
from tunesmith.core.rows import Row
from tunesmith.data.markup import plain
from tunesmith.data.transforms.base import Account, Transform

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

Mend = Literal["encoding", "markup", "unicode", "quotes", "spaces"]

QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)
INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
"""Marks that show nothing. Joiners stay: emojis and several scripts need them."""
SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
"""What opens and closes a block of code."""
MOST_PASSES = 8
"""Mending one fault can lay open another, such as an encoding that went wrong twice."""


class Normalise(Transform):
    """Mend the texts of every row; labels and calls of tools stay as they are.

    `encoding`: text that was decoded wrongly is decoded rightly (ftfy), control characters go.
    `unicode`: one form of composed characters (NFC). `spaces`: odd spaces become plain ones, runs
    of them inside a line one, three and more line ends two; indents and blocks between ``` stay.
    `quotes`: curly quotes become straight. `markup`: HTML becomes text. Rows of which an answer or
    a text is empty afterwards are dropped.
    """

    kind: Literal["normalise"] = "normalise"
    alone: ClassVar[bool] = True
    mend: tuple[Mend, ...] = ("encoding", "unicode", "spaces")
    """What is mended, of encoding, markup, unicode, quotes and spaces; always in that order."""

    def apply(self, rows: Iterable[Row], account: Account, seed: int) -> Iterator[Row]:
        """The rows with their texts mended."""
        for row in rows:
            account.taken += 1
            done: dict[str, None] = {}
            after = row.mapped(partial(mended, mend=self.mend, done=done))
            if any(a and not b for a, b in zip(row.texts(), after.texts(), strict=True)):
                account.drop("nothing is left of a text", row)
                continue
            account.kept += 1
            if done:
                account.change(row, ", ".join(done))
            yield after if done else row


def mended(text: str, mend: tuple[Mend, ...], done: dict[str, None]) -> str:
    """The text after as many passes as change it; `done` hears what was mended."""
    for _ in range(MOST_PASSES):
        before = text
        for name in ORDER:
            if name in mend and (after := ORDER[name](text)) != text:
                text = after
                done[name] = None
        if text == before:
            break
    return text


def encoding(text: str) -> str:
    """Text that was read in the wrong encoding, read in the right one."""
    if text.isascii() and text.isprintable():
        return text
    try:
        from ftfy import fix_text
    except ImportError:
        raise missing("ftfy", "data") from None
    return fix_text(text, fixing())


@cache
def fixing() -> "TextFixerConfig":
    """Only encodings and control characters: all else has its own name here."""
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        normalization=None,
        explain=False,
    )


def composed(text: str) -> str:
    """One form for characters that can be written in two ways."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def straight(text: str) -> str:
    """Straight quotes for curly ones."""
    return text.translate(QUOTES)


def spaced(text: str) -> str:
    """Plain, single spaces, and no more than one empty line; blocks of code keep theirs."""
    text = SPACES.sub(" ", INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    if not FENCE.search(text):
        return single(text).strip()
    parts, inside = re.split(r"(?m)^([ \t]*```.*)$", text), False
    for index, part in enumerate(parts):
        if index % 2:
            inside = not inside
        elif not inside:
            parts[index] = single(part)
    return "".join(parts).strip()


def single(text: str) -> str:
    """Lines without spaces at their ends and double ones inside, and no two empty lines."""
    text = re.sub(r"(?<=\S)[ \t]{2,}(?=\S)", " ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+(?=\n|\Z)", "", text))


ORDER = {
    "encoding": encoding,
    "markup": plain,
    "unicode": composed,
    "quotes": straight,
    "spaces": spaced,
}
"""What mends, in the order in which it is done."""
