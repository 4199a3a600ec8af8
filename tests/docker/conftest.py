"""The stack as `docker compose up` makes it, under a project name, ports and volumes of its own."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.docker.engine import REPOSITORY, Engine, engine, import_python, override
from tests.free_port import free_port
from tests.front_door.server_process import eventually

SERVICES = ("server", "trainer", "prometheus", "grafana")
PROJECT = "proxy-rlhf-test"


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack; `services` are those that this machine could get."""

    engine: Engine
    ports: dict[str, int]
    services: tuple[str, ...]
    files: tuple[str, ...]

    def compose(self, *command: str) -> str:
        """One `docker compose` command on this stack."""
        files = [part for file in self.files for part in ("--file", file)]
        return self.engine.run("compose", "--project-name", PROJECT, *files, *command)

    def url(self, service: str) -> str:
        """Where its port is published."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows of its container."""
        identifier = self.compose("ps", "--all", "--quiet", service).strip()
        found: list[dict[str, Any]] = json.loads(self.engine.run("inspect", identifier))
        return found[0]

    def kill(self, service: str) -> None:
        """`kill -9` of its process. The engine restarts what dies by itself, but not what it was told to kill."""
        if self.engine.is_private:
            os.kill(self.container(service)["State"]["Pid"], signal.SIGKILL)
        else:
            self.compose("kill", service)
            self.compose("start", service)

    def is_healthy(self, service: str) -> bool:
        """What its own health check says."""
        return bool(self.container(service)["State"]["Health"]["Status"] == "healthy")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of a PromQL expression now."""
        answer = httpx.get(f"{self.url('prometheus')}/api/v1/query", params={"query": expression}, timeout=30)
        result: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return result


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("docker")) as found:
        yield found


@pytest.fixture(scope="session")
def stack(docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Built, up and healthy; taken down with its volumes at the end."""
    ports = {service: free_port() for service in SERVICES}
    variables = {f"{service.upper()}_PORT": str(port) for service, port in ports.items()}
    own_engine = Engine({**docker_engine.environment, **variables}, docker_engine.is_private, docker_engine.torch_index)
    files = [str(REPOSITORY / "docker-compose.yml")]
    services: tuple[str, ...] = SERVICES
    if own_engine.is_private:
        import_python(own_engine, _python_image())
        config = json.loads(own_engine.run("compose", "--file", files[0], "config", "--format", "json"))
        extra = override(own_engine, config)
        path = tmp_path_factory.mktemp("compose") / "override.yml"
        path.write_text(json.dumps(extra))  # JSON is YAML
        files.append(str(path))
        services = tuple(name for name in SERVICES if "profiles" not in extra["services"][name])
    stack = Stack(own_engine, ports, services, tuple(files))
    stack.compose("down", "--volumes", "--remove-orphans")
    try:
        stack.compose("build")
        stack.compose("up", "--detach", "--wait", "--wait-timeout", "300")
        yield stack
    finally:
        print(stack.compose("logs", "--no-color", "--tail", "30"))
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "40")


def wait_until_healthy(stack: Stack, service: str) -> None:
    eventually(lambda: stack.is_healthy(service), f"a healthy {service}", 180)


def _python_image() -> str:
    found = re.search(r"^FROM (python:\S+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
