"""One chart in two shapes: a PNG for slides, and SVG that takes the page's colours in light and dark."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evaluation.statistics import Interval

INK, MUTED, LINE, SURFACE = "#1c1b19", "#615d55", "#dcd8cf", "#fefefe"
SERIES = ("#0f7a74", "#c85f1f", "#3d6fb0", "#8b4a8b", "#8a7410", "#b03a4a", "#4d7c2f", "#5b5fc7")
BASE = "#8a867c"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    SURFACE: "var(--surface)",
    BASE: "var(--series-base)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES)},
}
"""What stands in the page's stylesheet for each colour of the PNG."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture with what it says in words."""

    name: str
    """Of its PNG file, without the ending."""

    title: str
    caption: str
    draw: Callable[[], Figure]

    def write_png(self, folder: Path) -> None:
        """`<name>.png` on white, 2,000 pixels or so wide."""
        with _style():
            self.draw().savefig(folder / f"{self.name}.png", dpi=200, facecolor="white", bbox_inches="tight")

    def svg(self) -> str:
        """An <svg> element without any reference out of it, in the page's colours."""
        with _style():
            buffer = io.StringIO()
            self.draw().savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        return _inlined(buffer.getvalue(), self.name, f"{self.title}. {self.caption}")


def figure(width: float, height: float, num_rows: int = 1, num_columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure in inches with a grid of axes, row by row."""
    made = Figure(figsize=(width, height), layout="constrained")
    axes = made.subplots(num_rows, num_columns, squeeze=False)
    return made, [each for row in axes for each in row]


def color_of(number: int) -> str:
    """The colour of the n-th series; after the last it starts again, with another marker."""
    return SERIES[number % len(SERIES)]


def marker_of(number: int) -> str:
    """Its marker, so that colour alone never tells series apart."""
    return MARKERS[number % len(MARKERS)]


def draw_line(panel: Axes, points: Sequence[tuple[float, Interval]], number: int, label: str) -> None:
    """A line of estimates in the band of their intervals."""
    places, gains = [place for place, _ in points], [gain for _, gain in points]
    low, high = [each.low for each in gains], [each.high for each in gains]
    panel.fill_between(places, low, high, color=color_of(number), alpha=0.13, linewidth=0)
    panel.plot(places, [each.estimate for each in gains], color=color_of(number), marker=marker_of(number), label=label)


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def _inlined(document: str, name: str, label: str) -> str:
    """The SVG document as an element: own ids, no metadata, colours by variable, its size left to the page."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = svg.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    svg = re.sub(r' width="([\d.]+)pt" height="[\d.]+pt"', r' style="--points: \1"', svg, count=1)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1).strip()
