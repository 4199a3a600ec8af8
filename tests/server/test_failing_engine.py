"""A decode step that throws: an error for whom it concerned, the rest goes on, or the server says that it is over."""

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.server.conftest import RunningServer, chat_body, eventually


def hold(server: RunningServer, **fields: Any) -> "tuple[threading.Thread, list[httpx.Response]]":
    """Send a request from another thread; its response comes in the list."""
    found: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: found.append(server.chat(**fields)))
    thread.start()
    return thread, found


def test_running_answers_get_an_error_and_the_queue_goes_on(start: Callable[..., RunningServer]) -> None:
    server = start(max_running=1, max_waiting=8)
    server.engine.step_seconds = 0.01
    first, failed = hold(server, max_tokens=400, ignore_eos=True)
    eventually(lambda: server.engine.num_running == 1)
    second, answered = hold(server)
    eventually(lambda: server.engine.num_waiting == 1)

    server.engine.failures = 1

    first.join()
    second.join()
    assert failed[0].status_code == 500
    assert failed[0].json()["error"]["type"] == "server_error"
    assert "injected" not in failed[0].text
    assert answered[0].status_code == 200
    assert httpx.get(f"{server.url}/ready").status_code == 200
    assert server.metric("proxy_failed_steps_total") == 1
    assert server.metric('proxy_requests_total{model="tiny",proxy="base",status="error"') == 1


def test_a_stream_ends_with_an_error_event(server: RunningServer) -> None:
    server.engine.step_seconds = 0.01
    body = chat_body(stream=True, max_tokens=400, ignore_eos=True)
    events = []
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as response:
        for line in response.iter_lines():
            events += [line.removeprefix("data: ")] if line else []
            if len(events) == 3:
                server.engine.failures = 1

    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == "internal_error"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_only_throws_is_dead(start: Callable[..., RunningServer]) -> None:
    server = start()
    server.engine.failures = 1000

    statuses = [server.chat().status_code for _ in range(3)]

    assert statuses == [500, 500, 500]
    eventually(lambda: server.server.exit_code == 1, "exit code 1")
    eventually(lambda: not server.thread.is_alive(), "the end")


def test_a_stalled_step_makes_the_server_not_ready(start: Callable[..., RunningServer]) -> None:
    server = start(stall_seconds=0.2)
    server.engine.gate.clear()
    thread, _ = hold(server)

    eventually(lambda: httpx.get(f"{server.url}/ready").status_code == 503, "not ready")

    assert httpx.get(f"{server.url}/health").json()["engine"] == "stalled"
    server.engine.gate.set()
    eventually(lambda: httpx.get(f"{server.url}/ready").status_code == 200, "ready")
    thread.join()
