"""Numbers that prove themselves: payment cards and bank accounts, by length and checksum."""

import re

DIGIT = re.compile("[0-9]")


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
