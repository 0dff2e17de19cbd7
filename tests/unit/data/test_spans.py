"""Personal data and secrets are found where they stand, and numbers that are neither are not."""

import random
import time

import pytest

from tunesmith.data.credentials import secret
from tunesmith.data.personal import personal
from tunesmith.data.spans import Span, apart

PERSONAL = [
    ("email", "write to ", "Jane.O'Neil+x@mail.example.org", ", please"),
    ("url", "see ", "https://example.org/a?b=c", "."),
    ("url", "at ", "www.example.de/x", "!"),
    ("url", "at ", "shop.example.com", " now"),
    ("ip", "from ", "203.0.113.7", " today"),
    ("ip", "from ", "2001:db8::8a2e:370:7334", " today"),
    ("mac", "device ", "00:1B:44:11:3a:B7", ""),
    ("iban", "to ", "GB82 WEST 1234 5698 7654 32", "."),
    ("iban", "to ", "DE89370400440532013000", "."),
    ("card", "paid ", "4111 1111 1111 1111", "."),
    ("card", "paid ", "378282246310005", "."),
    ("card", "my card ", "060455234504", "?"),
    ("ssn", "number ", "219-09-9999", "."),
    ("phone", "at ", "+49 (0)30 901820", "."),
    ("phone", "at ", "(212) 555-0187", "."),
    ("phone", "at ", "01.84.17.61.18", "?"),
    ("phone", "call me at ", "450 0840", "."),
    ("phone", "", "781 1704", " office"),
    ("birth_date", "She was born on ", "March 3, 1971", "."),
    ("birth_date", "DOB: ", "1971-03-03", "."),
    ("driver_licence", "driver's license number is ", "F255-9215-0010", "."),
    ("passport", "passport no. ", "C01200347", "."),
    ("medical_record", "MRN: ", "00482913", "."),
    ("account", "account number ", "12345678", "."),
    ("postcode", "ZIP: ", "90210", "."),
    ("age", "a ", "93", "-year-old man"),
]
QUIET = [
    "It cost $1,234,567.89, that is 1234567890123456 times 2.",
    "Between 1990-1995 and 2001-2003, on 2020-01-02 or 12/24/2021.",
    "profit of 450,000-2000 = <<9+10=90>>90 years old",
    "version 10.2.3.4 at 12:30:45, std::cout, 127.0.0.1",
    "She is 45 years old and has 100 000 000 cells.",
    "pi is 3.14159265358979 and e is 2.718281828459045",
    "order 4111 1111 1111 1112, e.g. this.",
]
SECRETS = [
    ("token", "key ", "AKIA" + "IOSFODNN7EXAMPLE", " here"),
    ("token", "use ", "ghp_" + "a1B2" * 9, "."),
    ("token", "use ", "sk-proj-" + "a1B2" * 9, "."),
    ("token", "hook ", "https://hooks.slack.com/services/T01234567/B01234567/" + "a1B2" * 6, ""),
    ("token", "Bearer ", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop", ""),
    ("password_in_url", "postgres://admin:", "s3cr3t!pw", "@db/x"),
    ("assigned", "DB_PASSWORD = '", "hunter2hunter2", "'"),
    ("assigned", "my password is ", "Tr0ub4dor&3", ""),
    (
        "private_key",
        "",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow==\n-----END RSA PRIVATE KEY-----",
        "",
    ),
]
NO_SECRETS = [
    "password = your_password_here",
    "export API_KEY=<your key>",
    "password: ********",
    "The password is important; choose a longer one.",
    "token = os.environ['TOKEN1']",
    "skip-this-and-go-on-with-the-next-paragraph",
    "https://example.org:8080/@user",
]


@pytest.mark.parametrize(("kind", "before", "value", "behind"), PERSONAL)
def test_personal_data_is_found_to_the_character(
    kind: str, before: str, value: str, behind: str
) -> None:
    (span,) = personal(before + value + behind)
    assert (span.kind, span.start, span.end) == (kind, len(before), len(before + value))


@pytest.mark.parametrize(("kind", "before", "value", "behind"), SECRETS)
def test_secrets_are_found_to_the_character(
    kind: str, before: str, value: str, behind: str
) -> None:
    (span,) = secret(before + value + behind)
    assert (span.kind, span.start, span.end) == (kind, len(before), len(before + value))


@pytest.mark.parametrize("text", QUIET)
def test_other_numbers_are_nobodys(text: str) -> None:
    assert personal(text) == []


@pytest.mark.parametrize("text", NO_SECRETS)
def test_what_documentation_writes_is_no_secret(text: str) -> None:
    assert secret(text) == []


def test_national_forms_are_of_the_regions_asked_for() -> None:
    assert personal("at 34567-89012", ()) == personal("at 98765-43210", ()) == []
    (span,) = personal("at 98765-43210", ("IN",))
    assert span.kind == "phone"


@pytest.mark.parametrize("piece", ["a", "1 ", "a@", "1.", "(11)", "a.com", "born ", "::", "sk-"])
def test_a_hostile_text_takes_no_more_time_than_its_length(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    begun = time.process_time()
    personal(text), secret(text)
    assert time.process_time() - begun < 5  # A quadratic pattern takes minutes.


def test_of_spans_that_overlap_the_first_given_stays() -> None:
    drawn = random.Random(0)
    for _ in range(300):
        starts = [drawn.randrange(40) for _ in range(12)]
        spans = [Span("x", start, start + drawn.randrange(1, 9)) for start in starts]
        kept: list[Span] = []
        for span in spans:
            if all(span.end <= other.start or other.end <= span.start for other in kept):
                kept.append(span)
        assert apart(spans) == sorted(kept, key=lambda span: span.start)


def test_many_spans_cost_no_square() -> None:
    spans = [Span("ip", 10 * place, 10 * place + 8) for place in range(100_000)]
    began = time.process_time()
    assert apart(reversed(spans)) == spans
    assert time.process_time() - began < 10  # each with each would take far longer
