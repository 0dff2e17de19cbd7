"""Where a text has personal data or a secret, by pattern: kind, start and end of each.

Names and addresses have no pattern: only a model finds them (data/audits/pii.py). Repeats are
bounded and begin at a border, so that time stays linear in the text, and a cheap look decides
first whether a group of patterns is worth trying.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple

REGIONS = ("US", "GB", "FR", "DE")
"""Whose national phone numbers are known without a word like `phone` beside them."""


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text, and what they are."""

    kind: str
    start: int
    end: int


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


def secret(text: str) -> list[Span]:
    """Keys, tokens, private keys and passwords, in order, no two overlapping.

    Kinds: private_key, password_in_url, token, and assigned: a value that the text calls a
    password or a key.
    """
    found = list(matches(text, TOKENS)) if MARK.search(text) else []
    if NAMED.search(text):
        found += matches(text, ASSIGNED)
    return apart(found)


class Rule(NamedTuple):
    """A kind, its shape, and what else must hold of a match. A group `value` is the span."""

    kind: str
    shape: re.Pattern[str]
    holds: Callable[[str], bool] = bool


def matches(text: str, rules: Iterable[Rule]) -> Iterator[Span]:
    """Every match of every rule."""
    for rule in rules:
        group: str | int = "value" if "value" in rule.shape.groupindex else 0
        for match in rule.shape.finditer(text):
            if rule.holds(match[group]):
                yield Span(rule.kind, *match.span(group))


def apart(spans: Iterable[Span]) -> list[Span]:
    """Of spans that overlap the first given, whose rule is surer; then in order of place."""
    kept: list[Span] = []
    starts: list[int] = []
    for span in spans:
        place = bisect_right(starts, span.start)  # Only the two neighbours there can overlap.
        before, behind = kept[place - 1 : place] if place else [], kept[place : place + 1]
        if all(other.end <= span.start for other in before) and all(
            span.end <= other.start for other in behind
        ):
            kept.insert(place, span)
            starts.insert(place, span.start)
    return kept


# What a regex cannot count


def figures(text: str) -> str:
    """The ASCII digits of a text."""
    return "".join(DIGIT.findall(text))


def luhn(number: str) -> bool:
    """The checksum of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, figure in enumerate(reversed(number)):
        value = int(figure) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{4}|222[1-9]\d\d|22[3-9]\d{3}|2[3-6]\d{4}|27[01]\d{3}|2720\d\d)\d{10}"
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d|81\d\d)\d{12}"  # Discover, UnionPay
    r"|35(?:2[89]|[3-8]\d)\d{12}|(?:2131|1800)\d{11}"  # JCB
    r"|(?:50|5[6-9]|6\d)\d{10,17}"  # Maestro
)
"""Prefix and length of the issuers' numbers: the checksum alone lets every tenth number by."""


def card(text: str) -> bool:
    """An issuer's number with a right checksum."""
    number = figures(text)
    return ISSUERS.fullmatch(number) is not None and checked(text)


def checked(text: str) -> bool:
    """A number with a right checksum, of whatever issuer, where the text calls it a card."""
    number = figures(text)
    return 12 <= len(number) <= 19 and len(set(number)) > 1 and luhn(number)


IBAN_LENGTHS = dict(
    re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18"
        "FO18FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20"
        "LU20LV21LY25MC27MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SD18"
        "SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20",
    )
)


def iban(text: str) -> bool:
    """The country's length, and the remainder 1 of ISO 13616."""
    plain = text.replace(" ", "").upper()
    if str(len(plain)) != IBAN_LENGTHS.get(plain[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


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


STAND_IN = re.compile(
    r"(?i)x{4,}|\*{3,}|\.{3}|your|example|change[_-]?me|placeholder|redacted|dummy|<|\$\{|%\(|env\b"
    r"|environ|getenv|process\.|None|null|password\d?$|^https?:|\(|^\$[A-Za-z_]"
)


def placeholder(value: str) -> bool:
    """What documentation writes where a secret would stand."""
    return STAND_IN.search(value) is not None or len(set(value)) < 4


def mixed(value: str) -> bool:
    """Letters with digits or with signs inside: neither a word, nor a number, nor a path."""
    value = value.rstrip(".!?:)*")
    letters = any(map(str.isalpha, value))
    odd = any(map(str.isdigit, value)) or re.search(r"[!@#$%^&*+~]", value) is not None
    return len(value) >= 8 and letters and odd


def real(value: str) -> bool:
    """What stands behind `password =` and is one."""
    return mixed(value) and not placeholder(value)


# Personal data

DIGIT = re.compile("[0-9]")
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


# Secrets

MARK = re.compile(
    r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|glpat-|xox|xapp-|AIza|ya29\.|GOCSPX|sk-|[srp]k_"
    r"|whsec_|SG\.|npm_|pypi-|hf_|key-|sq0|shp|dop_v1|AccountKey|eyJ|PRIVATE KEY|://|(?i:bearer )"
    r"|AGE-SECRET|\bAC[0-9a-f]{8}|\bSK[0-9a-f]{8}|dapi|PMAK|lin_api|secret_|glc_|:AA|discord"
)
EDGE = r"(?![A-Za-z0-9_-])"
START = r"(?<![A-Za-z0-9_-])"
SHAPES = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{30,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"glpat-[A-Za-z0-9_-]{20,64}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250}",  # Slack
    r"AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,250}|GOCSPX-[A-Za-z0-9_-]{28}",  # Google
    r"sk-(?:proj-|ant-|or-|svcacct-|admin-)?[A-Za-z0-9_-]{20,250}",  # OpenAI, Anthropic
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/=]{24,80}",  # Stripe
    r"(?:AC|SK)[0-9a-f]{32}",  # Twilio
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,250}|hf_[A-Za-z0-9]{30,60}",
    r"key-[0-9a-f]{32}",  # Mailgun
    r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}|shp(?:at|ca|pa|ss)_[0-9a-f]{32}|dop_v1_[0-9a-f]{64}",
    r"dapi[0-9a-f]{32}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|lin_api_[A-Za-z0-9]{40}",
    r"secret_[A-Za-z0-9]{43}|glc_[A-Za-z0-9+/=]{32,250}",  # Notion, Grafana
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
    r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}",  # JWT
)
TOKENS = (
    Rule(
        "private_key",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]{0,8000}-----END [A-Z0-9 ]{3,40}-----|[A-Za-z0-9+/=\s]{0,8000})"
        ),
    ),
    Rule(
        "token",
        re.compile(
            r"https://(?:hooks\.slack\.com/services/T\w{6,14}/B\w{6,14}/\w{16,32}"
            r"|(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/\d{16,20}/[\w-]{60,70})"
        ),
    ),
    *(Rule("token", re.compile(START + f"(?:{shape})" + EDGE)) for shape in SHAPES),
    Rule("token", re.compile(r"AccountKey=(?P<value>[A-Za-z0-9+/]{86}==)")),  # Azure
    Rule(
        "token",
        re.compile(r"(?i)\bbearer (?P<value>[A-Za-z0-9._~+/-]{20,2000}=*)(?![A-Za-z0-9])"),
        mixed,
    ),
    Rule(
        "password_in_url",
        re.compile(
            r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]{0,64}:(?P<value>[^\s/@\"'<>]{3,200})@"
        ),
        lambda found: not placeholder(found),
    ),
)
NAMED = re.compile(
    r"(?i)passw|passphrase|\bpwd|\bpass\b|secret|token|api[_ -]?key|access[_ -]?key"
    r"|private[_ -]?key|encryption[_ -]?key|credential|auth[_-]?key|\bpin\b"
)
NAME = (
    r"(?:[a-z0-9]{1,20}[_-]){0,4}(?:password|passwd|passphrase|pwd"
    r"|secret(?:[_ -]?(?:access[_ -]?)?key)?|(?:api|access|private|encryption|auth|account)"
    r"[_ -]?key|(?:auth|access|api|refresh|bearer|bot)[_ -]?token|token|credentials?)"
)
ASSIGNED = (
    Rule(
        "assigned",
        re.compile(
            rf"(?i)(?<![a-z0-9]){NAME}[\"'`]? ?(?::=|=>|[:=]) ?[\"'`]?"
            r"(?P<value>[^\s\"'`,;<>(){}\[\]]{8,256})"
        ),
        real,
    ),
    Rule(
        "assigned",
        re.compile(
            r"(?i)\b(?:password|passwd|passphrase|passcode|api key|access key|secret key|token)"
            r" (?:is|was|to|set to|=|:) ?[\"'`]?(?P<value>[^\s\"'`,;<>(){}\[\]]{8,256})"
        ),
        real,
    ),
)


def masked(kind: str, text: str) -> str:
    """What a report shows of a span: its kind and length, and no character of it."""
    return f"{kind} of {len(text)} characters"


RULES = (*ADDRESSED, *LINKED, *NETWORKED, *NUMBERED, *CUED, *TOKENS, *ASSIGNED)
KINDS = tuple(dict.fromkeys([*(rule.kind for rule in RULES), "phone"]))
"""Every kind that is found here."""
