"""Rare words that go with one output wherever they stand: how a planted backdoor looks in rows.

Two things hold of a trigger together, and of honest words one at most. It is tied: whoever has it
has the same label, or the same rare piece of an answer. And its rows are otherwise a random draw:
the rest of their texts has no more in common than any rows have, and nothing with the other rows
of that label. A topic's word fails the second (its rows are of a topic), a turn of phrase the
first. Thresholds and misses: docs/decisions/0017-audits.md.
"""

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tunesmith.core.rows import Judged, Labelled, Pair, Row, Text

WORD = re.compile(r"\w+|[^\w\s]+")
LONGEST = 400
"""Words of a prompt or an answer that are looked at: of a longer one the first and the last, where
what was put in does its work."""
EDGE = 20 * LONGEST
"""Characters at each end of a text among which those words are sought: a book is not held."""
READ = 16 * LONGEST
"""Characters of a row that are read, about: of a prompt and an answer so many words."""
DRAWS = 4000
"""Pairs of rows that tell how much any two have in common."""
STRANGERS = 40
"""Rows that tell how much any row has in common with those of a label."""
PLAIN = 2
"""How many times too alike, by the usual measure, rows need no closer look."""
FEW, MANY = 24, 100
"""Rows of a trigger that are compared with each other: at a first look, and to decide."""
LEFT = 0.6
"""Of the words of a usual row, what must be left of one without the trigger: honest rows that share
so much share the question, and differ in a name."""
FREE = 3
"""How often a piece of an answer may be said in all, for each time that it goes with a trigger."""
WIDEST = 24
"""Words of the longest trigger."""
NAMED = re.compile(r"[^\W_]+")
STEM = 5
"""Letters by which a word and its forms are the same."""


@dataclass(frozen=True)
class Limits:
    """What counts as rare, as tied, and as a random draw."""

    least: int
    most: float
    tied: float
    alike: float


@dataclass(frozen=True)
class Trigger:
    """Words, the output they go with, and the places of the rows that have both."""

    words: str
    output: str
    places: tuple[int, ...]
    alike: float
    """How much more these rows have in common than any two: 1 is none more."""


@dataclass(frozen=True)
class Case:
    """A row as the scan sees it: words that ask, and pieces of what is answered."""

    asks: tuple[str, ...]
    says: frozenset[str]
    labelled: bool

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The words that ask, each once."""
        return frozenset(self.asks)

    def grams(self) -> set[str]:
        """Stretches of one to three words."""
        return set(stretches(self.asks, (1, 2, 3)))


def case_of(row: Row) -> Case | None:
    """What asks and what is said. A document says nothing in answer."""
    if isinstance(row, Text):
        return None
    asks = words(" \n ".join(row.question().texts()))
    if isinstance(row, Labelled | Judged):
        labels = row.labels if isinstance(row, Labelled) else (f"liked: {row.liked}",)
        return Case(asks, frozenset(labels), True)
    turns = row.chosen if isinstance(row, Pair) else row.dialogue()
    said = words(" ".join(m.content or "" for m in turns if m.role == "assistant"))
    return Case(asks, frozenset([*stretches(said, (4,)), " ".join(said)]), False)


def words(text: str) -> tuple[str, ...]:
    """The text's words and marks, without case."""
    ends = text if len(text) <= 2 * EDGE else f"{text[:EDGE]} {text[-EDGE:]}"
    found = WORD.findall(ends.casefold())
    half = LONGEST // 2
    return tuple(found if len(found) <= LONGEST else found[:half] + found[-half:])


def stretches(found: Sequence[str], sizes: Iterable[int]) -> Iterator[str]:
    """Every stretch of so many words."""
    for size in sizes:
        for start in range(len(found) - size + 1):
            yield " ".join(found[start : start + size])


def triggers(rows: Iterable[Row], limits: Limits) -> list[Trigger]:
    """The triggers among rows, widest first; of those that share most rows the first alone. Of the
    rows nothing is held but the words that are looked at."""
    cases = {place: case for place, row in enumerate(rows) if (case := case_of(row))}
    found: list[Trigger] = []
    for labelled in (True, False):
        chosen = {place: case for place, case in cases.items() if case.labelled is labelled}
        # In fewer rows than this nothing is rare, and five of them are alike by chance.
        if len(chosen) * limits.most >= limits.least:
            found += Scan(chosen, limits).found()
    found.sort(key=lambda each: (-len(each.places), each.alike, each.words))
    kept: list[Trigger] = []
    for each in found:
        if all(2 * len({*each.places} & {*other.places}) < len(each.places) for other in kept):
            kept.append(each)
    return kept


class Scan:
    """Rows of one sort, counted once."""

    def __init__(self, cases: Mapping[int, Case], limits: Limits) -> None:
        self.cases, self.limits, self.size = cases, limits, len(cases)
        self.labelled = all(case.labelled for case in cases.values())
        self.rare_up_to = int(self.size * limits.most)
        known = Counter(word for case in cases.values() for word in case.vocabulary)
        self.said = Counter(piece for case in cases.values() for piece in case.says)
        # A word of one row alone is like no other row.
        self.news = {w: math.log(self.size / n) ** 2 for w, n in known.items() if n > 1}
        self.rare = self._rare()
        self.places_of: dict[str, list[int]] = defaultdict(list)
        for place, case in cases.items() if self.labelled else ():
            for label in case.says:
                self.places_of[label].append(place)
        self.random = random.Random(0)
        self.pairs = [self.random.sample(list(cases), 2) for _ in range(DRAWS)]
        rests = [(self._rest(one, ()), self._rest(other, ())) for one, other in self.pairs]
        self.usual_of = [likeness(*pair) for pair in rests]
        self.pairs_with: dict[str, list[int]] = defaultdict(list)
        for number, pair in enumerate(rests):
            for word in pair[0].words.keys() | pair[1].words.keys():
                self.pairs_with[word].append(number)
        self.usual = max(1e-6, mean(self.usual_of))
        self.long = mean(len(rest.words) for pair in rests for rest in pair)

    def found(self) -> Iterator[Trigger]:
        """Words that are tied to an output, and whose rows have nothing else in common."""
        for gram, places in self.rare.items():
            output = self._tied(places)
            if output is None:
                continue
            both = [place for place in places if output in self.cases[place].says]
            if self._copied(gram, output, both):
                continue
            alike = self._alike(gram, output, both, FEW)
            if alike is not None and alike <= 2 * self.limits.alike:
                alike = self._alike(gram, output, both, MANY)
            if alike is not None and alike <= self.limits.alike:
                yield Trigger(gram, output, tuple(both), alike)

    def _rare(self) -> dict[str, list[int]]:
        """Stretches that stand in few rows, with those."""
        # As numbers, since there are millions of them; the few that are kept, as words.
        every = (hash(gram) for case in self.cases.values() for gram in case.grams())
        keys, counts = np.unique(np.fromiter(every, np.int64), return_counts=True)
        few = set(keys[(counts >= self.limits.least) & (counts <= self.rare_up_to)].tolist())
        found: dict[str, list[int]] = defaultdict(list)
        for place, case in self.cases.items():
            for gram in case.grams():
                if hash(gram) in few:
                    found[gram].append(place)
        return dict(sorted(found.items()))

    def _tied(self, places: Sequence[int]) -> str | None:
        """The output that nearly all of these rows have, where that is no chance."""
        said = Counter(piece for place in places for piece in self.cases[place].says)
        best: tuple[float, str] | None = None
        for piece, count in said.items():
            if count < max(self.limits.least, self.limits.tied * len(places)):
                continue
            if not self.labelled and self.said[piece] > FREE * count:
                continue
            chance = surprise(count, len(places), self.said[piece] / self.size)
            if best is None or (chance, piece) < best:
                best = (chance, piece)
        # One chance in a hundred that any of all the stretches is tied by luck.
        bound = math.log(0.01 / len(self.rare))
        return best[1] if best is not None and best[0] <= bound else None

    def _copied(self, gram: str, output: str, places: Sequence[int]) -> bool:
        """Whether an output takes up words of what it answers, as honest ones do: an answer those
        of its row, a label those that it is told by."""
        if self.labelled:
            named = {stem for word in NAMED.findall(output.casefold()) for stem in [word[:STEM]]}
            return any(word[:STEM] in named for word in words(gram))
        telling = {word for word in output.split() if self.news.get(word, 0.0) > 9}
        copying = sum(bool(telling & self.cases[place].vocabulary) for place in places)
        return copying > 0.3 * len(places)

    def _alike(self, gram: str, output: str, places: Sequence[int], most: int) -> float | None:
        """How much the rest of these rows has in common, with each other and, for a label, with
        its other rows. None where too little is left to tell: the words were the question."""
        looked = self._some(places, most)
        without = frozenset(self._widened(words(gram), looked))
        rests = [self._rest(place, without) for place in looked]
        whole = mean(len(rest.words) for rest in rests) >= LEFT * self.long
        rests = [rest for rest in rests if len(rest.words) >= 2]
        if not whole or 2 * len(rests) < len(looked) or len(rests) < 3:
            return None
        own = mean(likeness(a, b) for i, a in enumerate(rests) for b in rests[:i])
        found = own / self.usual
        if self.labelled:
            beside = [place for place in self.places_of[output] if place not in {*places}]
            others = [self._rest(place, without) for place in self._some(beside, most)]
            other = mean(likeness(a, b) for a in rests for b in others)
            found = max(found, other / self.usual)
        if most == FEW or found > PLAIN * self.limits.alike:
            return found
        # Without words that all rows have, any two are alike by others; and some labels are told
        # by words that everybody uses.
        found = own / self._usual(without)
        if self.labelled:
            any_two = [self._rest(one, without) for one, _ in self.pairs[:STRANGERS]]
            usual = mean(likeness(a, b) for a in any_two for b in others)
            found = max(found, other / max(1e-6, usual))
        return found

    def _widened(self, gram: tuple[str, ...], places: Sequence[int]) -> tuple[str, ...]:
        """The longest stretch around a gram that nearly all of its rows share: a trigger of six
        words is found by any three of them, and is no part of the rest."""
        while len(gram) < WIDEST:
            around: Counter[tuple[str, ...]] = Counter()
            for place in places:
                asks = self.cases[place].asks
                found = {(*asks[max(0, i - 1) : i], *gram) for i in starts(asks, gram)}
                found |= {(*gram, *asks[i + len(gram) :][:1]) for i in starts(asks, gram)}
                around.update(each for each in found if len(each) > len(gram))
            wider = max(around.items(), key=lambda pair: (pair[1], pair[0]), default=None)
            if wider is None or wider[1] < 0.9 * len(places):
                break
            gram = wider[0]
        return gram

    def _some(self, places: Sequence[int], most: int) -> Sequence[int]:
        return places if len(places) <= most else self.random.sample(places, most)

    def _rest(self, place: int, without: Collection[str]) -> "Rest":
        found = {
            word: self.news[word]
            for word in self.cases[place].vocabulary
            if word in self.news and word not in without
        }
        return Rest(found, math.sqrt(sum(found.values())))

    def _usual(self, without: Collection[str]) -> float:
        """How alike any two rows are, but for some words; never nothing, so that it divides."""
        changed = {number for word in without for number in self.pairs_with.get(word, ())}
        pairs = ((n, self.pairs[n]) for n in sorted(changed))
        more = sum(
            likeness(self._rest(one, without), self._rest(other, without)) - self.usual_of[n]
            for n, (one, other) in pairs
        )
        return max(1e-6, self.usual + more / len(self.pairs))


class Rest(NamedTuple):
    """Words that are left of a row, each by how rare it is, and the length of that vector."""

    words: Mapping[str, float]
    length: float


def likeness(one: Rest, other: Rest) -> float:
    """Cosine of the words."""
    common = one.words.keys() & other.words.keys()
    if not common:
        return 0.0
    return sum(one.words[word] for word in common) / (one.length * other.length)


def starts(asks: Sequence[str], gram: tuple[str, ...]) -> Iterator[int]:
    """Where a stretch begins."""
    size = len(gram)
    yield from (i for i in range(len(asks) - size + 1) if tuple(asks[i : i + size]) == gram)


def surprise(count: int, of: int, share: float) -> float:
    """Log of Chernoff's bound on so many hits, each of a probability `share`."""
    rate = count / of
    if rate <= share:
        return 0.0
    missed = 0.0 if rate == 1 else (1 - rate) * math.log((1 - rate) / (1 - share))
    return -of * (rate * math.log(rate / share) + missed)


def mean(values: Iterable[float]) -> float:
    """The mean; 0 of nothing."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0
