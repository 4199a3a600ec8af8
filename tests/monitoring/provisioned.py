"""What is provisioned under docker/: the dashboards' and the rules' expressions, each with where it stands."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
PROMETHEUS = DOCKER / "prometheus"
GRAFANA = DOCKER / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))

Json = dict[str, Any]

_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")
_COMPARISON = re.compile(r"(\s(?:==|!=|>=|<=|>|<))(\s)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One PromQL expression."""

    where: str
    expr: str


def load(dashboard: Path) -> Json:
    """A dashboard's JSON."""
    found: Json = json.loads(dashboard.read_text(encoding="utf-8"))
    return found


def rules() -> Iterator[Json]:
    """Every recording and alerting rule."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def dashboard_expressions(dashboard: Path) -> Iterator[Expression]:
    """Whatever a page asks Prometheus for, Grafana's variables included."""
    page = load(dashboard)
    for panel in page["panels"]:
        for target in panel.get("targets", []):
            yield Expression(f"{page['title']} / {panel['title']}", target["expr"])
    for annotation in page["annotations"]["list"]:
        yield Expression(f"{page['title']} / annotation {annotation['name']}", annotation["expr"])
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match is not None, variable
            yield Expression(
                f"{page['title']} / variable {variable['name']}", f"count by ({match['label']}) ({match['selector']})"
            )


def substituted(expression: Expression, rate_interval: str, whole_range: str) -> Expression:
    """With Grafana's variables put in, as it does when "All" is chosen."""
    expr = expression.expr.replace("$__rate_interval", rate_interval).replace("$__range", whole_range)
    return Expression(expression.where, re.sub(r"\$\{?\w+\}?", ".*", expr))


def rule_expressions() -> Iterator[Expression]:
    """Every rule's expression; comparisons as 0 or 1, since an alert that is quiet returns nothing."""
    for rule in rules():
        yield Expression(rule.get("alert") or rule["record"], _COMPARISON.sub(r"\1 bool\2", rule["expr"]))
