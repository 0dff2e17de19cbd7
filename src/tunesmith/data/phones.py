"""Where a text has phone numbers: by country, by the national form, or by a word beside them."""

import re
from collections.abc import Iterator, Sequence

from tunesmith.data.checksums import figures
from tunesmith.data.spans import Span

REGIONS = ("US", "GB", "FR", "DE")
"""Whose national phone numbers are known without a word like `phone` beside them."""

# A number in groups: each of digits, or of digits in brackets; `(0)` as in +41 (0)71 526 99 04.
PHONE = re.compile(
    r"(?<![\w.$/#-])(?<!\d,)\+?(?:\(\+?\d{1,5}\) ?-?)?\d{1,13}+"
    r"(?:[ .-]?\(\d{1,5}\)[ .-]?\d{1,12}+|[ .-]\d{2,12}+){0,6}"
    r"(?:[ ,]{0,2}(?:x|ext\.?|extension) ?\d{1,6})?(?![\w]|[.,/:]\d|-\d| ?%)"
)
BEFORE = re.compile(
    r"(?i)(?:\b(?:tele)?phones?|\btel|\bmobile|\bcell|\bfax|\bdesk|\boffice|\bcall(?:ing)?|\bdial"
    r"|\bring|\btext(?:ing)?|\bsms|\bwhatsapp|\bcontact|\breach|\bhotline|\bhelpline|\banswering"
    r"|\bmessages?|\bnumber to (?:call|ring))\b[^\d.!?]{0,24}\Z"
)
BEHIND = re.compile(r"(?i)[\s(,-]{0,2}(?:office|fax|mobile|cell|home|desk|work)\b")
DATED = re.compile(
    r"(?:1[89]|20)\d\d[- ](?:1[89]|20)\d\d|\d{1,4}([/.-])\d{1,2}\1\d{1,4}|\d{4}-\d\d"
)
ABROAD = re.compile(r"(?:\+|00)[1-9][\d ().-]{6,20}")
NATIONAL = {
    "US": r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}([.-]))\d{3}[.-]\d{4}",
    "GB": r"\(?0(?:\d{2,4}\)? \d{3,4} ?\d{3,4}|7\d{3} ?\d{3} ?\d{3})",
    "FR": r"0[1-9](?:([ .-])\d\d\1\d\d\1\d\d\1\d\d|\d{8})",
    "DE": r"0\d{2,4}[ -]\d{3,8}(?:[ -]\d{2,6})?",
    "ES": r"[679]\d\d([ -])\d\d(?:\1?\d\1?\d\1\d\d|\d\1\d{3})",
    "IT": r"0\d{1,3}[ -]\d{5,8}|3\d\d[ -]\d{6,7}",
    "NL": r"0\d{1,3}[ -]\d{3,8}(?:[ -]\d{2,4})?",
    "SE": r"0\d{1,3}[ -]\d{2,3} ?\d{2,3} ?\d{2,3}",
    "CH": r"0\d\d \d{3} \d\d \d\d",
    "AU": r"\(?0\d\)? \d{4} \d{4}|04\d\d \d{3} \d{3}",
    "IN": r"[6-9]\d{4}[ -]\d{5}",
    "BR": r"\(\d\d\) ?9?\d{4}-\d{4}",
}
"""How numbers are written at home, so strictly that a sum or a date does not fit."""
REGION = {name: re.compile(shape) for name, shape in NATIONAL.items()}


def phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Phone numbers: see `personal`."""
    for match in PHONE.finditer(text):
        number, count = match[0], len(figures(match[0]))
        if not 7 <= count <= 20 or DATED.fullmatch(number):
            continue
        plain = re.split(r"[ ,]*(?:x|ext)", number, maxsplit=1)[0]
        if len(figures(plain)) > 15:  # ITU-T E.164
            continue
        known = ABROAD.fullmatch(plain) or any(REGION[r].fullmatch(plain) for r in regions)
        if known or told(text, match.start(), match.end()):
            yield Span("phone", match.start(), match.end())


def told(text: str, start: int, end: int) -> bool:
    """Whether the words beside a number call it one to phone."""
    before = text[max(0, start - 48) : start]
    return bool(BEFORE.search(before) or BEHIND.match(text, end))
