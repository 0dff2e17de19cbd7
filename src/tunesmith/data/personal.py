"""Where a text has personal data, by pattern: kind, start and end of each.

Names and addresses have no pattern: only a model finds them (data/audits/pii.py). Repeats are
bounded and begin at a border, so that time stays linear in the text, and a cheap look decides
first whether a group of patterns is worth trying.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address

from tunesmith.data.checksums import DIGIT, card, checked, iban
from tunesmith.data.phones import REGIONS, phones
from tunesmith.data.spans import Rule, Span, apart, matches


def personal(text: str, regions: Sequence[str] = REGIONS) -> list[Span]:
    """Personal data that has a pattern, in order, no two overlapping.

    Kinds: email, url, iban, card, ssn, ip, mac, phone, birth_date, driver_licence, passport,
    medical_record, account, postcode, age (above 89, as HIPAA counts). A phone number is known by
    its country (`+`, 00), by the national form of one of `regions`, or by a word beside it.
    """
    found: list[Span] = []
    if "@" in text:
        found += matches(text, ADDRESSED)
    if "." in text:
        found += matches(text, LINKED)
    if ":" in text or "-" in text:
        found += matches(text, NETWORKED)
    if DIGIT.search(text):
        found += matches(text, NUMBERED)
        if CUE.search(text):
            found += matches(text, CUED)
        found += phones(text, regions)
    return apart(found)


def address6(text: str) -> bool:
    """An IPv6 address that says more than `::1`."""
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return sum(bool(part) for part in text.split(":")) >= 3


def numbered(text: str) -> bool:
    """An identifier, not the next word of the sentence."""
    return DIGIT.search(text) is not None


REST = r"[^\s<>\"'|\\^`{}]"  # of a web address
FINISHED = r"(?<![.,;:!?)\]*])"  # the sentence's own marks are not the address's

ADDRESSED = (
    # With a name and a password in it, which read like an e-mail address.
    Rule(
        "url",
        re.compile(
            rf"(?i)\b[a-z][a-z0-9+.-]{{1,20}}://[^\s/@]{{1,200}}@{REST}{{1,2000}}{FINISHED}"
        ),
    ),
    Rule(
        "email",
        re.compile(r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}(?![\w@])"),
    ),
)
LINKED = (
    Rule("url", re.compile(rf"(?i)\b(?:https?|ftp)://{REST}{{1,2000}}{FINISHED}")),
    Rule("url", re.compile(rf"(?i)(?<![\w@./-])www\.[a-z0-9-]{{1,63}}\.{REST}{{2,200}}{FINISHED}")),
    Rule(
        "url",
        re.compile(
            r"(?<![\w@./-])(?:[A-Za-z0-9-]{2,63}\.){1,4}(?:com|org|net|edu|gov|info|biz|co\.uk|eu)"
            rf"(?![\w@-]|\.\w)(?:/{REST}{{0,200}}{FINISHED})?"
        ),
    ),
)
IP4 = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
NETWORKED = (
    Rule(
        "mac",
        re.compile(r"(?i)(?<![\w:-])[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}(?![\w:-])"),
    ),
    Rule(
        "ip",
        re.compile(r"(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])"),
        address6,
    ),
)
# In groups of four, as American Express or Diners print them, or in one.
CARD = (
    r"(?<![\w.-])(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?"
    r"|\d{4}[ -]\d{6}[ -]\d{4,5})(?![\w-]|\.\d)"
)
NUMBERED = (
    Rule(
        "ip",
        re.compile(rf"(?i)(?<![\w.])(?<!version )(?<!\bv ){IP4}(?:\.{IP4}){{3}}(?!\w|\.\d)"),
        lambda found: not found.startswith(("127.", "0.", "255.")),  # nobody's address
    ),
    Rule(
        "iban",
        re.compile(
            r"(?i)(?<![\w-])[A-Z]{2}\d\d"
            r"(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)(?!\w)"
        ),
        iban,
    ),
    Rule("card", re.compile(CARD), card),
    Rule(
        "ssn",
        re.compile(r"(?<![\w.-])(?!000|666)\d{3}([ -])(?!00)\d\d\1(?!0000)\d{4}(?![\w-]|\.\d)"),
    ),
    Rule(
        "age",
        re.compile(r"(?i)(?<![>=.,])\b(?P<value>9\d|1[012]\d)[ -]years?[ -]old\b"),
    ),
)

MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
DATE = (
    r"(?:\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {MONTH},? \d{{4}}"
    rf"|{MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})"
)
NUMBER_OF = r"(?:(?: ?(?:number|no\.?|nr\.?|id|code)\b\.?)?(?: is\b|:| ?=| ?#| -)?) ?#?"
CUE = re.compile(
    r"(?i)\b(?:born|birth|d\.?o\.?b|licen[cs]e|passport|patient|medical|mrn|chart|account|insurance"
    r"|policy|member|beneficiary|ssn|social security|card|zip|post ?code|postal|age)"
)
CUED = (
    Rule(
        "birth_date",
        re.compile(
            rf"(?i)\b(?:born|birth|birthday|d\.?o\.?b)\b[^\n\d]{{0,24}}(?P<value>{DATE})(?!\d)"
        ),
    ),
    Rule("card", re.compile(r"(?i)\bcard\b[^\n\d]{0,24}(?P<value>\d{12,19})(?!\d)"), checked),
    Rule(
        "ssn",
        re.compile(
            r"(?i)\b(?:ssn|social security)\b[^\n\d]{0,24}(?P<value>\d{3}-?\d\d-?\d{4})(?!\d)"
        ),
    ),
    Rule(
        "driver_licence",
        re.compile(
            r"(?i)\b(?:driv(?:er'?s?'?|ing) |dl )licen[cs]e"
            rf"{NUMBER_OF}(?P<value>[a-z0-9-]{{5,20}})\b"
        ),
        numbered,
    ),
    Rule(
        "driver_licence",
        re.compile(r"(?i)\blicen[cs]e (?:number|no\.?)(?: is|:)? ?(?P<value>[a-z0-9-]{5,20})\b"),
        numbered,
    ),
    Rule(
        "passport",
        re.compile(rf"(?i)\bpassport{NUMBER_OF}(?P<value>[a-z]{{0,2}}\d{{6,9}})\b"),
    ),
    Rule(
        "medical_record",
        re.compile(
            r"(?i)\b(?:mrn|medical record|patient|chart|health plan|insurance|policy|member"
            rf"|beneficiary){NUMBER_OF}(?P<value>[a-z]{{0,4}}-?\d[\d-]{{4,15}})\b"
        ),
        numbered,
    ),
    Rule(
        "account",
        re.compile(
            r"(?i)\baccount (?:number|no\.?|nr\.?)(?: is|:| ?#)? ?(?P<value>\d[\d -]{4,18}\d)\b"
        ),
    ),
    Rule(
        "postcode",
        re.compile(
            r"(?i)\b(?:zip|post ?code|postal code)(?: code)?(?: is|:)?\s{0,3}"
            r"(?P<value>\d{3,6}(?:-\d{3,4})?|[a-z]{1,2}\d[a-z\d]? ?\d[a-z]{2})\b"
        ),
    ),
)

RULES = (*ADDRESSED, *LINKED, *NETWORKED, *NUMBERED, *CUED)
KINDS = (*dict.fromkeys(rule.kind for rule in RULES), "phone")
"""Every kind of personal data that is found here."""
