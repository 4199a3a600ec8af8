"""A real Prometheus with the provisioned rules, which scrapes what a test started every other second."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.free_port import free_port
from tests.front_door.server_process import eventually
from tests.monitoring.prometheus_tools import find_tool
from tests.monitoring.provisioned import PROMETHEUS, RULES

SCRAPE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class PrometheusProcess:
    """One that listens, and a client of it."""

    client: httpx.Client

    def query(self, expr: str) -> list[float]:
        """The values of an instant query, NaN left out. Raises `AssertionError` with Prometheus' own words."""
        answer = self.client.post("/api/v1/query", data={"query": expr})
        assert answer.status_code == 200, f"{answer.text} for {expr}"
        result = answer.json()["data"]["result"]
        values = [float(sample["value"][1]) for sample in result]
        return [value for value in values if value == value]

    def get(self, path: str) -> dict[str, Any]:
        """The data of one call of the API."""
        data: dict[str, Any] = self.client.get(f"/api/v1/{path}").raise_for_status().json()["data"]
        return data


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[PrometheusProcess]:
    """The provisioned configuration with the hosts of `targets` by job and no keys, in `folder`; killed at the end."""
    address = f"127.0.0.1:{free_port()}"
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_configuration({**targets, "prometheus": address})), encoding="utf-8")
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_tool("prometheus"), *flags], stdout=log, stderr=log, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            eventually(lambda: _is_ready(process, client, folder / "log"), "Prometheus")
            yield PrometheusProcess(client)
    finally:
        process.kill()
        process.wait()


def _configuration(targets: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    every = f"{SCRAPE_SECONDS}s"
    config["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config["rule_files"] = [str(path) for path in RULES]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        job.pop("authorization", None)
    return config


def _is_ready(process: "subprocess.Popen[bytes]", client: httpx.Client, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
