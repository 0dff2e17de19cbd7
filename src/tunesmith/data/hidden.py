"""Where a text holds what its reader does not see or a model obeys: by kind, start and end."""

import base64
import binascii
import re
from collections.abc import Iterator

from tunesmith.data.spans import Rule, Span, apart, matches

# Zero-width space, joiners, word joiner, marks that change direction, Hangul and Khmer fillers.
# A joiner between signs that need it (emoji, Indic, Arabic) is part of the writing.
INVISIBLE = re.compile(
    "(?:[\u200b\u2060-\u2064\u180e\u3164\uffa0\u115f\u1160\u17b4\u17b5]"
    "|(?<![\u0600-\u0dff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
    "|(?<=[^\n])\ufeff)+"
)
DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]+")
# Tag characters spell ASCII that nothing shows; in flags they follow U+1F3F4.
TAGS = re.compile(
    "(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0001\U000e0020-\U000e007f]{2,}|[\U000e0100-\U000e01ef]+"
)
CONTROL = re.compile(
    r"<\|(?:[a-z]{2,20}_)?[a-z]{2,20}(?:_[a-z]{1,20})?\|>|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_turn>|<\uff5c[^<>\n]{2,40}\uff5c>|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS)\]"
)
BASE64 = re.compile(r"(?<![\w+/=.:-])[A-Za-z0-9+/]{40,20000}={0,2}(?![\w+/=])")
WORD = re.compile(r"[^\W\d_]{2,40}")
ODD = re.compile(r"[\u0370-\u03ff\u0400-\u04ff\u0500-\u052f]")
LATIN = re.compile(r"[A-Za-z]")
LOOKALIKE = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u0410\u0412\u0415\u041a"
    "\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c"
    "\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03bd"
)
"""Cyrillic and Greek letters that look like Latin ones."""


def blob(text: str) -> bool:
    """Base64 of something, not a long word, a number in hex or a path."""
    body = text.rstrip("=")
    varied = all(re.search(kind, body) for kind in ("[A-Z]", "[a-z]", "[0-9]"))
    if not varied or len(text) % 4 or body.count("/") > len(body) / 8:
        return False
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


RULES = (
    Rule("invisible", INVISIBLE),
    Rule("direction", DIRECTION),
    Rule("tags", TAGS),
    Rule("control_token", CONTROL),
    Rule("base64", BASE64, blob),
)


def hidden(text: str) -> list[Span]:
    """What is hidden in a text, in order.

    Kinds: invisible, direction (marks that reorder the text shown), tags, lookalike (a word of
    Latin letters with a Cyrillic or Greek one among them), control_token, base64.
    """
    found = [*matches(text, RULES)]
    if ODD.search(text):
        found += lookalikes(text)
    return apart(found)


def lookalikes(text: str) -> Iterator[Span]:
    """Words of two alphabets whose odd letters look like the others."""
    for match in WORD.finditer(text):
        odd = ODD.findall(match[0])
        latin = LATIN.findall(match[0])
        if odd and len(latin) >= 2 and all(letter in LOOKALIKE for letter in odd):
            yield Span("lookalike", *match.span())
