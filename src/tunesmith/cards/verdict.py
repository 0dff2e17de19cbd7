"""Did tuning help? What the report says of it, measure by measure and in a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.cards.evidence import Evidence
from tunesmith.core import screen

REPORT = "evaluate/report.json"
WITHOUT_ROWS = (
    "No test rows were held out to measure by: hold some out by data.split, or name a file as "
    "data.test."
)
WITHOUT_REPORT = "Run the evaluation to see what tuning changed."

Mood = Literal["good", "bad", "unsure"]
MOODS: dict[str | None, Mood] = {"tuned": "good", "base": "bad", None: "unsure"}
WORDS: dict[Mood, str] = {"good": "better", "bad": "worse", "unsure": "not proven"}


@dataclass(frozen=True)
class Score:
    """One measure of both arms, and of their difference (tuned minus base)."""

    name: str
    base: Mapping[str, Any]
    tuned: Mapping[str, Any]
    difference: Mapping[str, Any]
    percent: bool

    @property
    def mood(self) -> Mood:
        """Which arm the report found better, if it is proven."""
        return MOODS[self.difference.get("better")]

    @property
    def stand_in(self) -> str:
        """What answered in the place of the base, which could not; else nothing."""
        return str(self.base.get("stand_in", ""))

    def number(self, value: float | None) -> str:
        """A value in this measure's unit."""
        if value is None:
            return "not measured"
        return screen.figure(value, percent=self.percent)

    def signed(self, value: float | None) -> str:
        """A difference: points of percent, with its sign."""
        if value is None:
            return "not measured"
        return screen.signed(value, percent=self.percent)

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
        return named(self.name)


def named(name: str) -> str:
    """A measure's name in words."""
    return name.replace("_", " ").replace(".", " ")


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
            percent=tuned[name].get("percent", True),
        )
        for name in sorted(tuned, key=lambda name: (name != main, name))
        if name in base
    ]


def verdict(run: Evidence) -> dict[str, str]:
    """The report's headline and detail; without a report, that nothing is known."""
    found: dict[str, str] | None = run.read(REPORT).get("verdict")
    if found:
        return found
    parts = run.at("data/account.json#/parts") or {}
    return {
        "headline": "Nothing was measured: whether tuning helped or harmed is not known",
        "detail": WITHOUT_REPORT if parts.get("test") else WITHOUT_ROWS,
    }


def how_asked(report: Mapping[str, Any], plainly: str) -> str:
    """What base and tuned had in common, said `plainly`, or what stood in for the base."""
    stand_in = report.get("notes", {}).get("base")
    if stand_in:
        return f"{stand_in[:1].upper()}{stand_in[1:]}. Both were judged on the same rows."
    return plainly
