"""A server on a real socket in this process, over the tiny LLM."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM
from server.app import create_app
from server.backends.local import LocalBackend
from server.drain import DrainingServer
from server.service import Service
from server.settings import Settings
from tests.server.fakes import CONTEXT, PacedEngine, tiny_llm

PATIENCE_SECONDS = 60.0


@dataclass
class RunningServer:
    """What a test needs to know about one."""

    url: str
    port: int
    metrics_url: str
    service: Service
    engine: PacedEngine
    llm: FrozenLLM
    proxies: Path
    server: DrainingServer
    thread: threading.Thread

    def chat(self, content: str = "hello", **fields: Any) -> httpx.Response:
        """One chat request."""
        return httpx.post(f"{self.url}/v1/chat/completions", json=chat_body(content, **fields), timeout=60)

    def metric(self, line_start: str) -> float:
        """The value of the series whose line starts so; 0 when there is none."""
        lines = httpx.get(self.metrics_url).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(line_start))


def chat_body(content: str = "hello", **fields: Any) -> dict[str, Any]:
    """The JSON of a short request; a field given as None is left out."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 8} | fields
    return {name: value for name, value in body.items() if value is not None}


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until `condition` holds; fail after a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def llm() -> FrozenLLM:
    """Shared: it is frozen."""
    return tiny_llm()


@pytest.fixture
def start(tmp_path: Path, llm: FrozenLLM) -> Iterator[Callable[..., RunningServer]]:
    """Start a server with other settings than the default ones; all are stopped at the end."""
    running: list[RunningServer] = []

    def start_one(**settings: Any) -> RunningServer:
        running.append(_start(llm, replace(Settings(home=tmp_path, port=0, reload_seconds=0.05), **settings)))
        return running[-1]

    yield start_one
    for one in running:
        one.engine.gate.set()
        one.engine.step_seconds = 0.0
        one.server.should_exit = True
        one.thread.join(PATIENCE_SECONDS)
        assert not one.thread.is_alive()


@pytest.fixture
def server(start: Callable[..., RunningServer]) -> RunningServer:
    """One with the default settings and no proxies."""
    return start()


def _start(llm: FrozenLLM, settings: Settings) -> RunningServer:
    config = EngineConfig(
        max_running=settings.max_running,
        max_waiting=settings.max_waiting,
        max_context=CONTEXT,
        num_staging=2,
        prefix_cache_tokens=settings.prefix_cache_tokens,
        draft_tokens=settings.draft_tokens,
    )
    engine = PacedEngine(llm, config)
    backend = LocalBackend(
        lambda: engine,
        stall_seconds=settings.stall_seconds,
        max_unread=settings.max_unread_tokens,
        line_limits=settings.line_limits,
    )
    metrics_listener = None if settings.metrics_port is None else socket.create_server(("127.0.0.1", 0))
    app = create_app(backend, settings, metrics_listener)
    service: Service = app.state.service
    server = DrainingServer(uvicorn.Config(app, settings.host, 0, log_config=None, access_log=False), service)
    backend.on_death = lambda error: server.fail()
    service.on_stuck = server.fail
    listener = server.config.bind_socket()
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    url = f"http://127.0.0.1:{port}"
    metrics_port = port if metrics_listener is None else metrics_listener.getsockname()[1]
    running = RunningServer(
        url=url,
        port=port,
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
        service=service,
        engine=engine,
        llm=llm,
        proxies=settings.proxies_root,
        server=server,
        thread=thread,
    )
    eventually(lambda: server.started and service.problem() is None, "readiness")
    return running
