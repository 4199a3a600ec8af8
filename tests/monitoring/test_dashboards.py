"""Grafana can load what it is provisioned with. Whether every chart shows data is for `test_live_expressions`."""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring.provisioned import DASHBOARDS, GRAFANA, Json, dashboard_expressions, load

_OF_PROMETHEUS = re.compile(r"\.annotations\.list\[\d+\]\.titleFormat")
"""The Prometheus data source's own settings of an annotation are no part of the dashboard's schema."""

each_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where `theirs` lacks or changes something of `ours`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from differences(value, theirs.get(key, "nothing"), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for index, (left, right) in enumerate(itertools.zip_longest(ours, theirs)):
            yield from differences(left, right, f"{path}[{index}]")
    elif ours != theirs:
        yield path


def panels(path: Path) -> list[Json]:
    found: list[Json] = load(path)["panels"]
    return found


def test_the_files_are_what_their_descriptions_build() -> None:
    done = subprocess.run([sys.executable, str(GRAFANA / "build.py"), "--check"], capture_output=True, text=True)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@each_dashboard
def test_grafana_11_knows_every_field(path: Path) -> None:
    register_default_plugins()
    page = load(path)

    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(page)))

    assert [where for where in differences(page, understood) if not _OF_PROMETHEUS.fullmatch(where)] == []
    assert page["schemaVersion"] >= 39


@each_dashboard
def test_ids_are_unique_and_panels_fill_the_grid_without_overlapping(path: Path) -> None:
    ids = [panel["id"] for panel in panels(path)]
    taken: dict[tuple[int, int], int] = {}
    for panel in panels(path):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in itertools.product(range(place["w"]), range(place["h"])):
            corner = (place["x"] + cell[0], place["y"] + cell[1])
            assert taken.setdefault(corner, panel["id"]) == panel["id"]

    assert len(set(ids)) == len(ids)


@each_dashboard
def test_every_query_asks_the_chosen_source_with_variables_that_exist(path: Path) -> None:
    defined = {variable["name"] for variable in load(path)["templating"]["list"]} | {"__rate_interval", "__range"}
    targets = [target for panel in panels(path) for target in panel.get("targets", [])]

    used = {name for each in dashboard_expressions(path) for name in re.findall(r"\$\{?(\w+)", each.expr)}

    assert used <= defined
    assert {target["datasource"]["uid"] for target in targets} == {"${datasource}"}
    assert not [target["expr"] for target in targets if re.search(r"\[\d", target["expr"])]


@each_dashboard
def test_every_chart_says_what_it_shows(path: Path) -> None:
    charts = [panel for panel in panels(path) if panel["type"] != "row"]

    assert not [chart["title"] for chart in charts if not chart["description"] or not chart["targets"]]


def test_pages_have_addresses_of_their_own_and_start_with_the_provisioned_source() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    providers = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "dashboards.yml").read_text(encoding="utf-8"))
    pages = [load(path) for path in DASHBOARDS]
    chosen = {page["templating"]["list"][0]["current"]["value"] for page in pages}

    assert len({page["uid"] for page in pages}) == len(pages)
    assert chosen == {source["uid"] for source in sources["datasources"]}
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    assert [provider["type"] for provider in providers["providers"]] == ["file"]
