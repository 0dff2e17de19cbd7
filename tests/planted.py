"""A seeded corpus with planted faults: what is nearly the same, what leaks, what is dirty.

Sentences are drawn from the grammar below, so that two of them are alike by accident only as often
as in a real file of questions and answers; what was planted is known by line.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.similar import jaccard, shingles

WHO = [
    "customer",
    "courier",
    "clerk",
    "supplier",
    "manager",
    "driver",
    "teacher",
    "nurse",
    "farmer",
    "printer",
]
DOES = [
    "asks",
    "writes",
    "orders",
    "returns",
    "delivers",
    "repairs",
    "forgets",
    "finds",
    "sells",
    "measures",
]
WHAT = [
    "lamp",
    "parcel",
    "invoice",
    "ticket",
    "bicycle",
    "window",
    "engine",
    "letter",
    "battery",
    "kettle",
]
WHERE = ["Paris", "Lima", "Oslo", "Cairo", "Quito", "Delhi", "Sydney", "Boston", "Turin", "Zagreb"]
WHEN = [
    "today",
    "yesterday",
    "twice",
    "rarely",
    "soon",
    "never",
    "again",
    "later",
    "monthly",
    "early",
]


def sentence(draw: random.Random) -> str:
    """One of about a hundred million sentences."""
    return (
        f"The {draw.choice(WHO)} {draw.randrange(1000)} {draw.choice(DOES)} the "
        f"{draw.choice(WHAT)} {draw.randrange(100)} in {draw.choice(WHERE)} {draw.choice(WHEN)}."
    )


def text(draw: random.Random, most: int = 5) -> str:
    """A few sentences."""
    return " ".join(sentence(draw) for _ in range(draw.randint(2, most)))


def edited(words: str, wanted: tuple[float, float], draw: random.Random) -> str:
    """The text with words changed until the Jaccard index of both lies between two numbers."""
    low, high = wanted
    while True:
        found = words.split(" ")
        while (like := jaccard(shingles(words), shingles(" ".join(found)))) > high:
            found[draw.randrange(len(found))] = "".join(draw.choices("abcdefghijklmnop", k=5))
        if low <= like:
            return " ".join(found)


@dataclass
class Planted:
    """Records, and the lines (from 1) of what was planted in them."""

    train: list[dict[str, Any]] = field(default_factory=list)
    test: list[dict[str, Any]] = field(default_factory=list)
    near: set[int] = field(default_factory=set)
    """Rows of train that are nearly an earlier one, at a Jaccard index of 0.8 to 0.82."""
    below: set[int] = field(default_factory=set)
    """Rows that are like an earlier one at 0.70 to 0.75: not the same."""
    exact: set[int] = field(default_factory=set)
    leaks: set[int] = field(default_factory=set)
    dirty: set[int] = field(default_factory=set)


SPOILT: list[Callable[[str], str]] = [
    lambda words: (words + " \u00e9\u00e0\u20ac").encode().decode("cp1252"),
    lambda words: words.replace(" ", "\u00a0", 3),
    lambda words: words.replace(" ", "   ", 2) + " \n\n\n\n ",
    lambda words: words.replace("e", "e\u0301", 1),
    lambda words: "\ufeff" + words + "\u200b",
]


def corpus(rows: int = 5000, each: int = 200, leaks: int = 50, seed: int = 0) -> Planted:
    """`rows` rows of documents, of which `each` of every fault and `leaks` that stand in test."""
    draw = random.Random(seed)
    found = Planted()
    clean = rows - 4 * each - leaks
    base = [text(draw) for _ in range(clean)]
    made: list[tuple[str, str]] = []
    originals = draw.sample(base, 3 * each)
    made += [("near", edited(words, (0.8, 0.82), draw)) for words in originals[:each]]
    made += [("below", edited(words, (0.7, 0.75), draw)) for words in originals[each : 2 * each]]
    made += [("exact", words) for words in originals[2 * each :]]
    made += [("dirty", SPOILT[i % len(SPOILT)](text(draw))) for i in range(each)]
    held = [text(draw) for _ in range(4 * leaks)]
    made += [("leaks", words) for words in held[:leaks]]
    draw.shuffle(made)
    lines = [("", words) for words in base] + made
    for number, (kind, words) in enumerate(lines, 1):
        found.train.append({"text": words})
        if kind:
            getattr(found, kind).add(number)
    found.test = [{"text": words} for words in held]
    return found


def stream(rows: int, seed: int = 0, near: float = 0.1) -> Iterator[dict[str, Any]]:
    """Conversations of about 500 bytes, of which a share is nearly one of the last thousand."""
    draw = random.Random(seed)
    last: list[str] = []
    for _ in range(rows):
        again = last and draw.random() < near
        words = draw.choice(last) if again else text(draw, 13)
        if again:
            place = draw.randrange(len(words))
            words = words[:place] + draw.choice("abc") + words[place + 1 :]
        last = [*last[-999:], words] if len(last) < 1000 else replaced(last, words, draw)
        yield {"prompt": f"What happens? {words}", "completion": words.partition(".")[0] + "  ."}


def replaced(last: list[str], words: str, draw: random.Random) -> list[str]:
    """A full memory with one text exchanged."""
    last[draw.randrange(len(last))] = words
    return last
