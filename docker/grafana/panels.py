"""What Grafana calls a dashboard, a row and a panel, in as few words as ours need.

A chart is a title, its queries and a unit; everything else that Grafana's JSON asks for is the same for all of them and
is written here once. Written for Grafana 11 (schema 39); newer ones migrate it when they load it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "heatmap", "table", "state-timeline"]

SCHEMA_VERSION = 39
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart. `about` says what is seen and how it is computed."""

    title: str
    about: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    is_stacked: bool = False
    minimum: float | None = 0
    upper: float | None = None
    """Ends of the axis, where they are known."""

    steps: Sequence[tuple[float | None, str]] = ((None, "green"),)
    """Colours of a stat, from each value upwards."""


@dataclass(frozen=True, slots=True)
class Row:
    """A headline and its charts, left to right."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    about: str
    rows: Sequence[Row]
    variables: Sequence[tuple[str, str]]
    """Name and `label_values(...)` of what can be chosen on the page."""

    annotations: Sequence[Query] = field(default=())


def to_json(dashboard: Dashboard) -> Json:
    """As Grafana loads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["proxy-rlhf"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [_other_dashboards()],
        "annotations": {"list": [_annotation(query) for query in dashboard.annotations]},
        "templating": {"list": [_datasource(), *(_variable(name, query) for name, query in dashboard.variables)]},
        "panels": _place(dashboard.rows),
    }


def _place(rows: Sequence[Row]) -> list[Json]:
    """Every row and its panels, left to right, wrapped where they do not fit, with ids from 1."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        placed.append(_row(row.title, {"h": 1, "w": _WIDTH, "x": 0, "y": y}))
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y, height = 0, y + height, 0
            placed.append(_panel(panel, {"h": panel.height, "w": panel.width, "x": x, "y": y}))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return [{"id": number, **panel} for number, panel in enumerate(placed, start=1)]


def _row(title: str, place: Json) -> Json:
    return {"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, place: Json) -> Json:
    options, custom = _LOOKS[panel.kind]
    defaults: Json = {
        "unit": panel.unit,
        "min": panel.minimum if panel.kind == "timeseries" else None,
        "max": panel.upper,
    }
    defaults["thresholds"] = {
        "mode": "absolute",
        "steps": [{"value": value, "color": color} for value, color in panel.steps],
    }
    defaults["custom"] = custom | ({"stacking": {"mode": "normal", "group": "A"}} if panel.is_stacked else {})
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {k: v for k, v in defaults.items() if v not in (None, {})}, "overrides": []},
        "options": options,
        "targets": [_target(panel.kind, number, query) for number, query in enumerate(panel.queries)],
        **({"transformations": [_ORGANIZE]} if panel.kind == "table" else {}),
    }


def _target(kind: Kind, number: int, query: Query) -> Json:
    return {
        "refId": chr(ord("A") + number),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": kind if kind in ("heatmap", "table") else "time_series",
        "instant": kind == "table",
        "range": kind != "table",
    }


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _datasource() -> Json:
    chosen = {"text": "Prometheus", "value": "prometheus"}
    return {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus", "current": chosen}


def _annotation(query: Query) -> Json:
    return {
        "name": query.legend,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "purple",
        "expr": query.expr,
        "titleFormat": query.legend,
    }


def _other_dashboards() -> Json:
    return {
        "title": "proxy-rlhf",
        "type": "dashboards",
        "tags": ["proxy-rlhf"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "",
        "tooltip": "",
    }


_LOOKS: dict[Kind, tuple[Json, Json]] = {
    "timeseries": (
        {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto", "spanNulls": False},
    ),
    "stat": (
        {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        {},
    ),
    "heatmap": (
        {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left"},
        },
        {},
    ),
    "table": ({"showHeader": True, "cellHeight": "sm"}, {}),
    "state-timeline": (
        {
            "alignValue": "left",
            "mergeValues": True,
            "rowHeight": 0.9,
            "showValue": "never",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        {"lineWidth": 0, "fillOpacity": 70},
    ),
}
"""Options and custom field settings of each kind of panel."""

_ORGANIZE = {
    "id": "organize",
    "options": {"excludeByName": dict.fromkeys(("Time", "Value", "__name__", "instance", "job"), True)},
}
