"""Curves and intervals as inline SVG: the same bytes for the same numbers, coloured by the page."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import escape

from tunesmith.core.errors import missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"ink": "#010101", "faint": "#020202", "base": "#030303", "tuned": "#040404"}
"""Stand-ins that are replaced by the page's own colours, so that dark pages and print work."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tunesmith",
    # A `$` in the name of a metric is a `$`.
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["faint"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["faint"],
    "grid.linewidth": 0.5,
    "grid.alpha": 0.5,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

Colour = Literal["ink", "faint", "base", "tuned"]
LINES: tuple[Colour, ...] = ("tuned", "base", "ink", "faint")
"""Colours of lines beside each other, in turn."""

SMOOTH = 0.9
"""Weight of the past in the smoothed training loss."""


@dataclass(frozen=True)
class Series:
    """One line of a figure: points in order, and how it is drawn."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: Colour = "tuned"
    marks: bool = False


@dataclass(frozen=True)
class Interval:
    """A value with its interval, one of a row's two; `arm` is `base` or `tuned`."""

    row: str
    arm: str
    value: float
    low: float
    high: float


def curves(name: str, series: Sequence[Series], *, title: str, across: str = "step") -> str:
    """Lines over steps as an inline SVG; `name` makes its ids unique on a page."""
    figure, axes = _figure(height=2.5)
    with _styled():
        for line in series:
            axes.plot(
                line.x,
                line.y,
                label=line.label,
                color=COLOURS[line.colour],
                linewidth=2.0 if line.colour != "faint" else 1.0,
                marker="o" if line.marks or len(line.x) == 1 else "",
                markersize=4,
            )
        axes.set_xlabel(across)
        axes.margins(x=0.02)
        if len(series) > 1:
            axes.legend(loc="best", handlelength=1.4)
    return _svg(figure, name, title)


def smoothed(values: Sequence[float]) -> list[float]:
    """A running mean that starts unbiased: early values count as much as late ones."""
    total, weight, means = 0.0, 0.0, []
    for value in values:
        total, weight = SMOOTH * total + value, SMOOTH * weight + 1
        means.append(total / weight)
    return means


def intervals(name: str, found: Sequence[Interval], *, title: str) -> str:
    """Base and tuned side by side, a dot and its interval each, a row for each metric."""
    rows = list(dict.fromkeys(interval.row for interval in found))
    figure, axes = _figure(height=0.75 + 0.5 * len(rows))
    with _styled():
        for interval in found:
            beside = 0.13 if interval.arm == "base" else -0.13
            place = len(rows) - 1 - rows.index(interval.row) + beside
            colour = COLOURS[interval.arm]
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2.5)
            axes.plot([interval.value], [place], color=colour, marker="o", markersize=7)
        axes.set_yticks(range(len(rows)), rows[::-1])
        axes.set_ylim(-0.5, len(rows) - 0.5)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    return _svg(figure, name, title)


def _figure(height: float) -> "tuple[Figure, Axes]":
    with _styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, height), layout="constrained")
        return figure, figure.add_subplot()


def _styled() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise missing("matplotlib", "eval") from error
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def _svg(figure: "Figure", name: str, title: str) -> str:
    """The drawing without header and metadata, its ids prefixed, its colours the page's."""
    with _styled():
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawing = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    drawing = re.sub(r"<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = drawing[drawing.index("<svg") :]
    # In a page the parser knows these two namespaces; an address here would look like a link.
    drawing = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawing)
    drawing = re.sub(r' (width|height)="[0-9.]+pt"', "", drawing, count=2)
    drawing = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", drawing)
    for colour, stand_in in COLOURS.items():
        drawing = drawing.replace(stand_in, f"var(--{colour})")
    return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()
