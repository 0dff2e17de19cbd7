"""The demo: the bundled model learns the example task; its table before and after."""

from pathlib import Path
from typing import Any

from tunesmith.core import screen
from tunesmith.core.disk import read_json
from tunesmith.job import Job
from tunesmith.pipeline import result as result_of

RUN = Path(__file__).parent / "examples" / "support.yaml"
SHOWN = 220
"""Characters of a text that a cell of the table holds."""


def result(job: Job) -> dict[str, Any]:
    """What the run left behind, with its report."""
    return result_of(job) | {"report": read_json(job.folder.path / "evaluate" / "report.json")}


def picture(found: dict[str, Any]) -> str:
    """The table before/after, three answers side by side, and where the report is."""
    report = found["report"]
    tables = screen.drawn(scores(report), *map(answers, report["samples"][:3]))
    return f"{tables}\nreport: {found['page']}"


def scores(report: dict[str, Any]) -> Any:
    """Each measurement of base and tuned, and the interval of their difference."""
    from rich.table import Table

    table = Table(title=f"before and after, {report['rows']} held-out rows")
    for heading in ("", "base", "tuned", "difference (95 %)"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, tuned in report["arms"]["tuned"].items():
        base, change = report["arms"]["base"].get(name), report["difference"].get(name)
        table.add_row(name, value(base), value(tuned), interval(change))
    return table


def value(score: dict[str, float] | None) -> str:
    """A score with two places."""
    return "-" if not score or score.get("value") is None else f"{score['value']:.2f}"


def interval(change: dict[str, float] | None) -> str:
    """A difference with its interval, signed."""
    if not change or None in (change.get("value"), change.get("low"), change.get("high")):
        return "-"
    return f"{change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]"


def answers(sample: dict[str, Any]) -> Any:
    """One prompt with both answers and the right one."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=True, expand=True)
    table.add_column("asked", ratio=3, overflow="fold")
    for heading in ("base", "tuned", "wanted"):
        table.add_column(heading, ratio=4, overflow="fold")
    said = (sample["prompt"], sample["base"], sample["tuned"], sample["wanted"])
    table.add_row(*(Text(beginning(str(text))) for text in said))
    return table


def beginning(text: str) -> str:
    """As much of a text as a cell holds."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()} ..."
