"""What the pattern audits find and miss, counted: on annotated sentences, a planted corpus, and
real rows in which there is nothing to find."""

import json
import random
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from bench.mislabelled import flipped, shots
from tests.planted import edited, text
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.rows import Chat, Labelled, Message, Row, Text
from tunesmith.data.audits.leakage import Leakage
from tunesmith.data.audits.quality import Quality
from tunesmith.data.audits.representation import Representation
from tunesmith.data.checksums import luhn
from tunesmith.data.credentials import secret
from tunesmith.data.doubts import doubts
from tunesmith.data.fix import fix
from tunesmith.data.personal import personal
from tunesmith.data.source import Reading, rows
from tunesmith.data.spans import Span
from tunesmith.data.stage import Data, prepare

DATA = next(
    (p / "shared/data" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None
)
beside = pytest.mark.skipif(
    DATA is None, reason="the data sets of the project (shared/data) are not beside this checkout"
)
NAMED = {
    "CREDIT_CARD": "card", "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email", "DOMAIN_NAME": "url",
    "IBAN_CODE": "iban", "US_SSN": "ssn", "IP_ADDRESS": "ip",
}  # fmt: skip
"""What the annotations call what has a pattern. The others are names, places and words."""


@beside
def test_annotated_sentences() -> None:
    """The bars of the audit on 1,500 sentences; a span counts when it is covered whole."""
    assert DATA is not None
    there: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    found: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    with (DATA / "audit_probes/pii_1500.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            gold = [(s, e, NAMED[kind]) for s, e, kind in record["spans"] if kind in NAMED]
            mine = [span for span in personal(record["text"]) if span.kind in NAMED.values()]
            there.update(kind for *_, kind in gold)
            hits.update(k for s, e, k in gold if any(covers(m, s, e, k) for m in mine))
            found.update(span.kind for span in mine)
            wrong.update(m.kind for m in mine if not any(touches(m, *each) for each in gold))
    recall = {kind: hits[kind] / there[kind] for kind in there}
    assert there.total() == 365 and sum(hits.values()) / there.total() >= 0.99
    assert 1 - wrong.total() / found.total() >= 0.99
    assert recall.pop("card") >= 0.98 and recall.pop("phone") >= 0.95
    assert min(recall.values()) == 1.0


def covers(span: Span, start: int, end: int, kind: str) -> bool:
    """Whether a span is of a kind and hides all of a stretch."""
    return span.kind == kind and span.start <= start and span.end >= end


def touches(span: Span, start: int, end: int, kind: str) -> bool:
    """Whether a span is of a kind and overlaps a stretch."""
    return span.kind == kind and span.start < end and start < span.end


def checked(digits: str) -> str:
    """The digits with their Luhn digit."""
    return next(digits + last for last in string.digits if luhn(digits + last))


def letters(draw: random.Random, count: int, of: str = string.ascii_letters + string.digits) -> str:
    """So many characters, a letter and a digit among them."""
    found = draw.choices(of, k=count - 2) + [draw.choice("abcdef"), draw.choice(string.digits)]
    draw.shuffle(found)
    return "".join(found)


def numbers(draw: random.Random, *sizes: int, by: str = "-") -> str:
    """Groups of digits, none of which begins with 0."""
    return by.join(str(draw.randrange(10 ** (n - 1), 10**n)) for n in sizes)


def iban(draw: random.Random) -> str:
    """A German or French account number with its check digits."""
    country, size = draw.choice([("DE", 18), ("FR", 23)])
    body = "".join(draw.choices(string.digits, k=size))
    total = int(body + "".join(str(int(c, 36)) for c in country) + "00")
    plain = f"{country}{98 - total % 97:02d}{body}"
    return (
        " ".join(plain[i : i + 4] for i in range(0, len(plain), 4))
        if draw.random() < 0.5
        else plain
    )


def card(draw: random.Random) -> str:
    """A card of one of four issuers, in one piece or in groups."""
    start = draw.choice(["4", "51", "34", "6011"])
    number = checked(
        start + "".join(draw.choices(string.digits, k=(14 if start == "34" else 15) - len(start)))
    )
    grouped = " ".join(number[i : i + 4] for i in range(0, 16, 4))
    return grouped if len(number) == 16 and draw.random() < 0.5 else number


ENDINGS = ["org", "co.uk", "de"]
PERSONAL: dict[str, Callable[[random.Random], str]] = {
    "email": lambda d: f"{letters(d, 8).lower()}@{letters(d, 6).lower()}.{d.choice(ENDINGS)}",
    "phone": lambda d: d.choice([
        f"+49 {numbers(d, 3, 7, by=' ')}", f"({numbers(d, 3)}) {numbers(d, 3, 4)}",
        f"call {numbers(d, 3, 4)}", f"0{numbers(d, 1)} {numbers(d, 2, 2, 2, 2, by=' ')}",
    ]),
    "card": card,
    "iban": iban,
    "ssn": lambda d: f"{d.randrange(100, 600)}-{d.randrange(10, 99)}-{numbers(d, 4)}",
    "ip": lambda d: ".".join(str(d.randrange(11, 120)) for _ in range(4)),
    "url": lambda d: f"https://{letters(d, 7).lower()}.com/{letters(d, 5)}",
}  # fmt: skip
SCHEMES, KEY = ["postgres", "https", "redis"], "PRIVATE KEY-----"
SECRET: dict[str, Callable[[random.Random], str]] = {
    "token": lambda d: d.choice([
        f"AKIA{letters(d, 16, string.ascii_uppercase + string.digits).upper()}",
        f"ghp_{letters(d, 36)}", f"sk-proj-{letters(d, 40)}", f"AIza{letters(d, 35)}",
        f"xoxb-{numbers(d, 11, 11)}-{letters(d, 24)}", f"hf_{letters(d, 34)}",
        f"eyJ{letters(d, 20)}.eyJ{letters(d, 40)}.{letters(d, 30)}",
    ]),
    "assigned": lambda d: f"{d.choice(['password', 'DB_SECRET', 'api_key'])}={letters(d, 14)}",
    "password_in_url": lambda d: f"{d.choice(SCHEMES)}://admin:{letters(d, 12)}@host.example/db",
    "private_key": lambda d: f"-----BEGIN {KEY}\n{letters(d, 64)}\n-----END {KEY}",
}  # fmt: skip


def test_a_planted_corpus() -> None:
    """5,000 rows of two to five sentences with numbers in them; 200 hold one of each class."""
    draw = random.Random(20261127)
    planted: list[tuple[str, str]] = []
    for classes in (PERSONAL, SECRET):
        for kind, make in classes.items():
            planted += [(kind, f"{text(draw)} {make(draw)} {text(draw)}") for _ in range(200)]
    planted += [("", text(draw)) for _ in range(5000 - len(planted))]
    draw.shuffle(planted)
    hits, found = Counter[str](), Counter[str]()
    for kind, words in planted:
        for look, classes in ((personal, PERSONAL), (secret, SECRET)):
            kinds = {span.kind for span in look(words)}
            # A password in a web address stands in a web address.
            kinds -= {"url"} if kind == "password_in_url" else set()
            found.update(kinds & classes.keys())
            found.update("other" for _ in kinds - classes.keys())
            hits[kind] += kind in kinds
    for kind in (*PERSONAL, *SECRET):
        assert hits[kind] / 200 >= 0.95, kind
        assert hits[kind] / found[kind] >= 0.90, kind
    assert found["other"] / found.total() <= 0.01


@beside
def test_sums_are_no_cards_and_no_phones() -> None:
    assert DATA is not None
    wrong = []
    for name in ("gsm8k_train_2000", "gsm8k_test", "svamp_train", "svamp_test"):
        for line in (DATA / f"math_verifiable/{name}.jsonl").read_text("utf-8").split("\n")[:-1]:
            texts = [value for value in json.loads(line).values() if isinstance(value, str)]
            spans = [span for each in texts for span in personal(each)]
            wrong += [span for span in spans if span.kind not in ("url", "age")]
    assert wrong == []


CLEAN = (
    "banking77/train",
    "clinc150/train",
    "e2e_nlg/train",
    "persona_prefs/persona_train",
    "instruct_1100/sft_train",
    "oasst_sample/threads",
    "medquad_medical/docs_train",
    "audit_probes/hatecheck",
    "math_verifiable/gsm8k_train_2000",
)


@beside
def test_rows_without_secrets_have_none() -> None:
    """One false alarm in 1,000 clean rows is the bar; there is none in all of these."""
    assert DATA is not None
    looked = wrong = 0
    for name in CLEAN:
        for line in (DATA / f"{name}.jsonl").read_text("utf-8").split("\n")[:-1]:
            looked += 1
            wrong += bool(secret(line))
    assert looked > 40_000 and wrong == 0


@beside
@pytest.mark.parametrize("part", ["prefs_train"])
def test_pairs_that_prefer_an_answer_to_itself(part: str) -> None:
    assert DATA is not None
    found = [row for _, row in rows(Reading(DATA / f"instruct_1100/{part}.jsonl", None))]
    (first, *_) = Quality().inspect({"train": found})
    assert first.severity == "error" and first.what.endswith("prefer an answer to itself: 6")


@beside
def test_the_length_of_preferred_answers() -> None:
    """People of OASST liked longer answers: the README of the set says so."""
    from tunesmith.core.rows import Pair, turns_of

    assert DATA is not None
    pairs: list[Row] = []
    for line in (DATA / "oasst_sample/rankings.jsonl").read_text("utf-8").split("\n")[:-1]:
        record = json.loads(line)
        ranked = [(Message("assistant", text),) for text in record["ranked_responses"]]
        asked = turns_of(record["messages"])
        pairs += [Pair(asked, ranked[0], ranked[-1])]
    told = [f.what for f in Quality().inspect({"train": pairs})]
    assert any("prefer the longer answer, 8" in what for what in told)


@beside
def test_labels_changed_at_random() -> None:
    """Ten examples of each of 77 intents, a tenth with another label (bench/mislabelled.py)."""
    assert DATA is not None
    changed, wrong = flipped(shots(DATA / "banking77"), 5)
    told = {each.row.origin.line for each in doubts(changed, Quality().sure)}
    assert len(told & wrong) / len(wrong) >= 0.7 and len(told & wrong) / len(told) >= 0.7


def leaking(draw: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]], set[int]]:
    """5,000 rows to train on, 500 to test with, and the places of the 50 that leak: as they are,
    in capitals and with spaces, nearly, and of a ticket that the test has."""

    def asked(ticket: int) -> str:
        return f"{text(draw)} This is ticket-{ticket}."

    def row(question: str) -> dict[str, Any]:
        return {"prompt": question, "completion": text(draw, 2)}

    test = [row(asked(number)) for number in range(500)]
    taken = [each["prompt"] for each in draw.sample(test, 50)]
    again = taken[:12]
    again += [f"  {words.upper()}".replace(" ", "  ") for words in taken[12:24]]
    again += [edited(words, (0.8, 0.85), draw) for words in taken[24:37]]
    again += [f"{text(draw)} This is {words.split()[-1]}" for words in taken[37:]]
    made = [(row(words), True) for words in again]
    made += [(row(asked(1000 + number)), False) for number in range(4950)]
    draw.shuffle(made)
    return [each for each, _ in made], test, {place for place, (_, bad) in enumerate(made) if bad}


def test_all_planted_leaks_are_found_and_gone_after_a_fix(tmp_path: Path) -> None:
    train, test, planted = leaking(random.Random(20261128))
    for name, found in (("train", train), ("test", test)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(record)}\n" for record in found))
    audit = Leakage(near=0.8, by="ticket-[0-9]+")
    one, other = (
        [row for _, row in rows(Reading(tmp_path / f"{name}.jsonl", None))]
        for name in ("train", "test")
    )
    told = {way.why: {place for place, _ in leaks} for way, leaks in audit.leaks(one, other)}
    assert set.union(*told.values()) == planted and len(planted) == 50
    assert [finding.counts["rows"] for finding in audit.inspect({"train": one, "test": other})] == [
        *map(len, told.values())
    ]

    def prepared(name: str, source: Path, leaks: Literal["refuse", "drop"]) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / name)
        folder.create()
        spec = Data(
            source=str(source),
            test=str(tmp_path / "test.jsonl"),
            split="none",
            audits=(audit,),
            leaks=leaks,
        )
        prepare(folder, spec, seed=0, log=Log(quiet=True))
        if leaks == "drop":
            fix(folder, spec, seed=0, log=Log(quiet=True))
        return folder

    first = prepared("first", tmp_path / "train.jsonl", "drop")
    account = json.loads((first.path / "data/account.json").read_text())
    assert sum(account["steps"][-1]["dropped"].values()) == 50
    left = first.path / "fixed/rows/train.jsonl"
    kept = [json.loads(line) for line in left.read_text().splitlines()]
    assert kept == [row for place, row in enumerate(train) if place not in planted]
    again = prepared("again", left, "refuse")
    assert json.loads((again.path / "data/findings.json").read_text()) == []


def people(odds: float, seed: int, *, shuffled: bool = False) -> list[Row]:
    """1,000 rows with two labels, 200 of them about women, whose odds of one label are `odds` times
    those of the others."""
    draw = random.Random(seed)
    women = round(200 * odds / (1 + odds))
    labels = ["refuse"] * women + ["grant"] * (200 - women) + ["refuse", "grant"] * 400
    if shuffled:
        draw.shuffle(labels)
    asking = [f"{'She' if i < 200 else 'The clerk'} asks for loan {i}." for i in range(1000)]
    made: list[Row] = [
        Labelled((f"{asks} {text(draw, 2)}",), (label,))
        for asks, label in zip(asking, labels, strict=True)
    ]
    draw.shuffle(made)
    return made


def associations(found: list[Row]) -> list[str]:
    """What the audit says of groups and outcomes."""
    told = Representation().inspect({"train": found})
    return [finding.what for finding in told if "association" in finding.counts]


@pytest.mark.parametrize("odds", [2.0, 3.0, 5.0])
def test_a_planted_skew_is_found(odds: float) -> None:
    found = [associations(people(odds, seed)) for seed in range(5)]
    assert all(any("women" in what and "label" in what for what in each) for each in found)


def test_shuffled_labels_raise_no_alarm() -> None:
    assert [associations(people(3.0, seed, shuffled=True)) for seed in range(20)] == [[]] * 20


def test_documents_and_chats_are_looked_at_too() -> None:
    chats = [
        Chat((Message("user", f"He is {i}"), Message("assistant", "terrible"))) for i in range(60)
    ]
    texts = [Text(f"The tree {i} is green") for i in range(200)]
    assert any("men have bad words" in what for what in associations([*chats, *texts]))
