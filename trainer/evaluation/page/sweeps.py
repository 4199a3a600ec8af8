"""Figures 3a and 3b: the same weights served under several p_t and temperatures."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evaluation.groups import SETTINGS, Line, Sweep
from trainer.evaluation.page.chart import BASE, Chart, draw_line, figure
from trainer.evaluation.rows import SystemRow

_LABEL_WIDTH = 0.13
"""Of the axis; the names of values that lie nearer to the last named one are left out."""


def sweep_charts(sweeps: Sequence[Sweep], labels: Sequence[str]) -> tuple[Chart, ...]:
    """A chart of each sweep's p_t and one of its temperatures, where it has several; `labels` are reward models'."""
    if not labels:
        return ()
    charts = []
    for number, sweep in enumerate(sweeps, start=1):
        if sweep.p_t:
            charts.append(_chart(f"sweep_{number}_p_t", f"p_t of {sweep.name}", sweep.p_t, labels, _p_t_axis))
        if sweep.temperature:
            title = f"Temperature of {sweep.name}"
            charts.append(_chart(f"sweep_{number}_temperature", title, sweep.temperature, labels, _temperature_axis))
    return tuple(charts)


Axis = Callable[[Axes, Sequence[Line]], Callable[[SystemRow], float]]
"""Lays out the axis for some lines; returns where a row stands on it."""


def _chart(name: str, title: str, lines: Sequence[Line], labels: Sequence[str], axis: Axis) -> Chart:
    def draw() -> Figure:
        made, panels = figure(4.3 * len(labels) + 1.8, 3.6, 1, len(labels))
        for panel, label in zip(panels, labels, strict=True):
            place_of = axis(panel, lines)
            for number, line in enumerate(lines):
                points = [(place_of(row), row.scores[label].gain) for row in line]
                draw_line(panel, points, number, _held(line, lines))
            panel.axhline(0, color=BASE, linewidth=1)
            panel.set_title(label)
        panels[0].set_ylabel("gain, deviations of the base's scores")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        return made

    return Chart(
        name=name,
        title=title,
        caption=(
            "Gain over the LLM alone when the same weights are served under other settings; "
            "bands: 95 % intervals. A line's other settings are the same all along."
        ),
        draw=draw,
    )


def _p_t_axis(panel: Axes, lines: Sequence[Line]) -> Callable[[SystemRow], float]:
    """In decades, p_t 0, which switches the mask off, left of the others."""
    values = sorted({_p_t(row) for line in lines for row in line})
    decades = [math.log10(value) for value in values if value > 0]
    off = decades[0] - max(0.5, 0.25 * (decades[-1] - decades[0]))

    def place_of(row: SystemRow) -> float:
        return math.log10(_p_t(row)) if _p_t(row) > 0 else off

    names = [f"{value:g}" if value > 0 else "off" for value in values]
    _name_ticks(panel, [off] * (values[0] == 0) + decades, names)
    panel.set_xlabel("p_t (log scale)")
    return place_of


def _temperature_axis(panel: Axes, lines: Sequence[Line]) -> Callable[[SystemRow], float]:
    values = sorted({row.temperature for line in lines for row in line})
    _name_ticks(panel, values, [f"{value:g}" for value in values])
    panel.set_xlabel("temperature")
    return lambda row: row.temperature


def _name_ticks(panel: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """A tick at each of the rising `places`, and its name where that fits."""
    shown: list[str] = []
    free = -math.inf
    for place, name in zip(places, names, strict=True):
        shown.append(name if place >= free else "")
        free = place + _LABEL_WIDTH * (places[-1] - places[0]) if shown[-1] else free
    panel.set_xticks(list(places), shown)


def _held(line: Line, lines: Sequence[Line]) -> str:
    """The settings in which the rows of `line` are alike: the one that every line has its own of, and what varies."""
    found = []
    for name in SETTINGS:
        values = {getattr(row, name) for row in line}
        varies = len({getattr(each[0], name) for each in lines}) > 1
        if len(values) == 1 and (value := values.pop()) is not None and (name in ("p_t", "temperature") or varies):
            found.append(f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}")
    return ", ".join(found)


def _p_t(row: SystemRow) -> float:
    assert row.p_t is not None
    return row.p_t
