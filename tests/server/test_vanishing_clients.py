"""A client that hangs up frees its slot within one step, wherever its answer was."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.server.conftest import RunningServer, chat_body, eventually


def ask(server: RunningServer, *, key: str = "none", **fields: Any) -> socket.socket:
    """A raw connection with a request on its way."""
    body = json.dumps(chat_body(max_tokens=400, ignore_eos=True, **fields)).encode()
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    head += f"authorization: Bearer {key}\r\n"
    connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    return connection


def is_idle(server: RunningServer) -> bool:
    return not server.engine.has_work


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_a_running_answer_ends_with_its_connection(start: Callable[..., RunningServer], stream: bool, n: int) -> None:
    server = start()
    server.engine.step_seconds = 0.02
    connection = ask(server, stream=stream, n=n)
    eventually(lambda: server.engine.num_running == n)
    if stream:
        assert connection.recv(100)

    connection.close()

    eventually(lambda: is_idle(server), "an idle engine")
    assert server.engine.num_steps < 100
    eventually(lambda: server.service.num_open == 0)
    assert server.metric('proxy_requests_total{model="tiny",proxy="base",status="abort"') == n


def test_the_slot_is_free_within_one_step(start: Callable[..., RunningServer]) -> None:
    server = start()
    server.engine.step_seconds = 0.05
    connection = ask(server, stream=True)
    eventually(lambda: server.engine.num_steps > 2)
    server.engine.gate.clear()
    connection.close()
    eventually(lambda: server.service.num_open == 0)
    steps_before = server.engine.num_steps

    server.engine.gate.set()

    eventually(lambda: is_idle(server))
    assert server.engine.num_steps <= steps_before + 1


def test_an_answer_in_the_queue_leaves_it(start: Callable[..., RunningServer]) -> None:
    server = start(max_running=1, max_waiting=4)
    server.engine.step_seconds = 0.02
    running = ask(server, stream=True)
    eventually(lambda: server.engine.num_running == 1)
    queued = ask(server, stream=True)
    eventually(lambda: server.engine.num_waiting == 1)

    queued.close()

    eventually(lambda: server.engine.num_waiting == 0)
    assert server.engine.num_running == 1
    running.close()
    eventually(lambda: is_idle(server))


def test_many_vanish_and_nothing_is_left(start: Callable[..., RunningServer]) -> None:
    server = start(max_running=4, max_waiting=64)
    server.engine.step_seconds = 0.005
    for _ in range(4):
        connections = [ask(server, stream=index % 2 == 0) for index in range(10)]
        connections[0].recv(10)
        for connection in connections:
            connection.close()

    eventually(lambda: is_idle(server) and server.service.num_open == 0)

    server.engine.step_seconds = 0.0
    assert server.chat().status_code == 200


def test_a_full_queue_is_429_with_retry_after(start: Callable[..., RunningServer]) -> None:
    server = start(max_running=1, max_waiting=0)
    server.engine.step_seconds = 0.05
    connections = [ask(server)]
    eventually(lambda: server.engine.num_running == 1)
    connections += [ask(server) for _ in range(7)]
    eventually(lambda: server.metric("admission_rejections_total") > 0)

    response = server.chat()

    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    for connection in connections:
        connection.close()
    eventually(lambda: is_idle(server))
    server.engine.step_seconds = 0.0
    assert server.chat().status_code == 200


def test_a_refused_choice_takes_the_others_with_it(start: Callable[..., RunningServer]) -> None:
    server = start(max_running=1, max_waiting=0)

    response = server.chat(n=16)

    assert response.status_code == 429
    eventually(lambda: is_idle(server))


def test_a_slow_reader_holds_nobody_up(start: Callable[..., RunningServer]) -> None:
    server = start()
    slow = ask(server, stream=True)
    eventually(lambda: server.engine.num_steps > 3)

    assert httpx.get(f"{server.url}/ready").status_code == 200
    assert server.chat().status_code == 200
    eventually(lambda: is_idle(server))
    slow.close()


def test_no_request_takes_a_thread(server: RunningServer) -> None:
    before = set(threading.enumerate())

    assert server.chat(max_tokens=3).status_code == 200
    assert httpx.get(f"{server.url}/v1/chat/completions").status_code == 200

    new = {thread.name for thread in threading.enumerate() if thread not in before}
    assert not [name for name in new if "AnyIO" in name]
