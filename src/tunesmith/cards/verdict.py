"""Did tuning help? One sentence, and no winner where the interval of the difference holds 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

REPORT = "evaluate/report.json"

Mood = Literal["good", "bad", "unsure"]
WORDS: dict[Mood, str] = {"good": "better", "bad": "worse", "unsure": "not proven"}


@dataclass(frozen=True)
class Score:
    """One measure of both arms, and of their difference (tuned minus base)."""

    name: str
    base: Mapping[str, float]
    tuned: Mapping[str, float]
    difference: Mapping[str, float]
    higher_is_better: bool
    percent: bool

    @property
    def mood(self) -> Mood:
        """Which way the whole interval of the difference lies."""
        low, high = self.difference.get("low"), self.difference.get("high")
        if low is None or high is None or not (low > 0 or high < 0):
            return "unsure"
        return "good" if (low > 0) == self.higher_is_better else "bad"

    def number(self, value: float | None) -> str:
        """A value in this measure's unit."""
        if value is None:
            return "not measured"
        return f"{value:.1f} %" if self.percent else f"{value:.3g}"

    def signed(self, value: float | None) -> str:
        """A difference: points of percent, with its sign."""
        if value is None:
            return "not measured"
        return f"{value:+.1f}" if self.percent else f"{value:+.3g}"

    def cells(self) -> list[tuple[str, str]]:
        """Base, tuned and difference, each as its value and its range; both as text."""
        found = []
        for values, show in (
            (self.base, self.number),
            (self.tuned, self.number),
            (self.difference, self.signed),
        ):
            low, high = values.get("low"), values.get("high")
            known = low is not None and high is not None
            spread = f"{show(low)} to {show(high)}".replace(" %", "") if known else ""
            found.append((show(values.get("value")), spread))
        return found

    @property
    def label(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ").replace(".", " ")


@dataclass(frozen=True)
class Verdict:
    """What a report says in one sentence, and the numbers behind it."""

    headline: str
    detail: str


def scores(report: Mapping[str, Any]) -> list[Score]:
    """The measures both arms have, the one that decides first."""
    arms = report.get("arms", {})
    base, tuned = arms.get("base", {}), arms.get("tuned", {})
    main = report.get("main")
    return [
        Score(
            name,
            base[name],
            tuned[name],
            report.get("difference", {}).get(name, {}),
            higher_is_better=tuned[name].get("higher_is_better", True),
            percent=tuned[name].get("percent", True),
        )
        for name in sorted(tuned, key=lambda name: (name != main, name))
        if name in base
    ]


def verdict(found: Sequence[Score], rows: int | None) -> Verdict:
    """Headline and detail from the first measure."""
    if not found:
        return Verdict(
            "Base and tuned were not compared", "Run the evaluation to see what tuning changed."
        )
    main = found[0]
    before, after = main.number(main.base.get("value")), main.number(main.tuned.get("value"))
    headline = {
        "good": f"Tuning improved {main.label} from {before} to {after}",
        "bad": f"Tuning made {main.label} worse: from {before} to {after}",
        "unsure": f"No difference is proven: {main.label} {before} before, {after} after",
    }[main.mood]
    change, spread = main.cells()[2]
    on = f"on {rows if rows is not None else 'an unknown number of'} held-out rows"
    if not spread:
        return Verdict(headline, f"Difference {change}, {on}: too few for an interval.")
    detail = f"Difference {change}, 95 % interval {spread}, {on}."
    if main.mood == "unsure":
        detail += " The interval holds 0, so neither is called better."
    return Verdict(headline, detail)
