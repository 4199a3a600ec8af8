"""Every expression that Grafana and Prometheus are provisioned with gives data, from servers under load.

A real server takes a new stable version over, gets a canary and refuses a torn version while clients stream; a real
trainer trains; a real Prometheus scrapes both. So a metric, a label or a join that is misspelt anywhere shows here.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from proxy_model.versions.registry import ProxyRegistry
from tests.bad_checkpoints import truncated
from tests.front_door.conftest import LLM
from tests.front_door.crowd import crowd
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, eventually
from tests.monitoring.prometheus_process import SCRAPE_SECONDS, PrometheusProcess, running_prometheus
from tests.monitoring.provisioned import DASHBOARDS, Expression, dashboard_expressions, rule_expressions, substituted
from tests.trainer.service.process import TrainerProcess, start_trainer, write_job

NUM_CLIENTS = 4
DATA_SECONDS = 45.0
"""By then every expression has data: a few scrapes, and a few evaluations of rules that build on rules."""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    """One that does not end by itself and publishes every other iteration."""
    folder = tmp_path_factory.mktemp("trainer")
    trainer = start_trainer(folder / "home", write_job(folder, iterations=100_000, rounds=1))
    yield trainer
    trainer.kill()


@dataclass(slots=True)
class Operator:
    """Does to the server what operators do, and then waits until Prometheus has seen it."""

    server: ServerProcess
    publisher: RankPublisher
    prometheus: PrometheusProcess
    num_answers: int = 0
    silent: list[Expression] = field(default_factory=list)
    """Expressions that never had data."""

    def work(self) -> None:
        """Publish a canary, a stable version and a torn one; ask the canary until there is data for everything."""
        eventually(lambda: self.prometheus.query('up{job="server"}') == [1], "the first scrape")
        canary = self.publisher.publish()
        ProxyRegistry(self.publisher.root).promote("helpful", canary, alias="canary")
        stable = self.publisher.publish()
        for alias, version in (("canary", canary), ("stable", stable)):
            self._wait_for_version(alias, version)
        self.publisher.publish_bad(truncated)
        self.silent = [*all_expressions()]
        deadline = time.monotonic() + DATA_SECONDS
        while self.silent and time.monotonic() < deadline:
            self._ask_the_canary()
            time.sleep(SCRAPE_SECONDS)
            self.silent = [each for each in self.silent if not self.prometheus.query(each.expr)]

    def _wait_for_version(self, alias: str, version: int) -> None:
        labels = {"proxy": "helpful", "alias": alias, "version": str(version)}
        eventually(lambda: self.server.metric("proxy_version_info", **labels) == 1, f"{alias} {version}")

    def _ask_the_canary(self) -> None:
        body = {"model": f"{LLM}:helpful@canary", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
        answer = httpx.post(f"{self.server.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        self.num_answers += 1


def all_expressions() -> list[Expression]:
    """As Grafana would send them for the last minute, each once."""
    found = [each for path in DASHBOARDS for each in dashboard_expressions(path)] + list(rule_expressions())
    sent = [substituted(each, rate_interval=f"{15 * SCRAPE_SECONDS}s", whole_range="60s") for each in found]
    return list({each.expr: each for each in sent}.values())


def test_every_expression_of_every_dashboard_and_rule_gives_data(
    server: ServerProcess, publisher: RankPublisher, trainer: TrainerProcess, tmp_path: Path
) -> None:
    targets = {"server": server.url.partition("//")[2], "trainer": trainer.url.partition("//")[2]}

    with running_prometheus(tmp_path, targets) as prometheus:
        operator = Operator(server, publisher, prometheus)
        heard = crowd(server.url, NUM_CLIENTS, 24, operator.work)
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        scraped = prometheus.get("targets")["activeTargets"]

    assert operator.silent == []
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
    assert [target["lastError"] for target in scraped] == ["", "", ""]
    assert server.metric("proxy_requests_total") == len(heard) + operator.num_answers
