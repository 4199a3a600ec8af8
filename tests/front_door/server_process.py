"""A server as a user starts it: the installed `proxy-rlhf serve`, a home of its own, a port, and waiting for /ready."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.free_port import free_port

START_SECONDS = 120.0
VLLM_START_SECONDS = 400.0
"""vLLM's three processes import for a minute where the machine is busy."""

PATIENCE_SECONDS = 60.0
_PROGRAM = Path(sys.executable).with_name("proxy-rlhf")
_SETTINGS = "PROXY_RLHF_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A child process, where it listens and where it writes."""

    process: "subprocess.Popen[bytes]"
    url: str
    home: Path
    key: str | None

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        """One GET with `key`, or with the API key if there is one."""
        bearer = key or self.key
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx.get(self.url + path, headers=headers, timeout=PATIENCE_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of `name` that have all of `labels`; 0 when there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        series = (line.rpartition(" ") for line in self.get("/metrics").text.splitlines())
        return sum(
            float(value)
            for found, _, value in series
            if found.partition("{")[0] == name and all(label in found for label in wanted)
        )

    def said(self) -> str:
        """Its standard output so far."""
        return (self.home / "stdout").read_text()

    def log(self) -> list[dict[str, Any]]:
        """The JSON lines of its standard error so far."""
        whole_lines = (self.home / "stderr").read_text().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole_lines if line.startswith("{")]

    def kill(self) -> None:
        """`kill -9`; a process that has ended already is fine."""
        self.process.kill()
        self.process.wait()


def start_server(home: Path, *flags: str, environment: Mapping[str, str] | None = None) -> ServerProcess:
    """Start `proxy-rlhf serve` and wait until it is ready. Nothing but `environment` sets PROXY_RLHF_*."""
    settings = {"PROXY_RLHF_HOME": str(home), **(environment or {})}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    port = free_port()
    with (home / "stdout").open("ab") as out, (home / "stderr").open("ab") as err:
        process = subprocess.Popen(
            [str(_PROGRAM), "serve", "--port", str(port), *flags],
            cwd=home,
            env=inherited | quiet | settings,
            stdout=out,
            stderr=err,
        )
    key = settings.get("PROXY_RLHF_API_KEYS")
    server = ServerProcess(process=process, url=f"http://127.0.0.1:{port}", home=home, key=key)
    try:
        eventually(lambda: _is_ready(server), "readiness", VLLM_START_SECONDS if "vllm" in flags else START_SECONDS)
    except BaseException:
        server.kill()
        raise
    return server


def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came"
        time.sleep(0.02)


def _is_ready(server: ServerProcess) -> bool:
    assert server.process.poll() is None, (server.home / "stderr").read_text()
    try:
        return server.get("/ready").status_code == 200
    except httpx.ConnectError:
        return False
