"""More than the engine can take: honest refusals, deadlines, and a reader that does not keep up."""

import json
import socket
import time
from collections.abc import Callable

import httpx
import pytest

from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.errors import EngineFull
from server.backends.waiting_line import LineLimits, WaitingLine
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.test_failing_engine import hold
from tests.server.test_vanishing_clients import ask, is_idle

DEADLINE = "x-envoy-expected-rq-timeout-ms"


def request(name: str, num_prompt: int = 10, max_tokens: int = 90) -> GenerationRequest:
    return GenerationRequest(
        id=name, prompt_token_ids=tuple(range(num_prompt)), params=SamplingParams(max_tokens=max_tokens)
    )


def test_the_line_is_bounded_by_tokens_of_those_who_wait() -> None:
    line = WaitingLine(LineLimits(max_tokens=250, num_slots=1))
    line.check(request("huge", max_tokens=900), now=0.0)  # nobody waits
    for name in ("a", "b", "c"):
        line.join(request(name), now=0.0)

    with pytest.raises(EngineFull) as full:
        line.check(request("d"), now=0.0)
    line.move_up(1, now=1.0)
    line.leave("b", now=1.0)

    assert "300 of at most 250 tokens" in str(full.value)
    line.check(request("d", max_tokens=140), now=1.0)
    with pytest.raises(EngineFull):
        line.check(request("d", max_tokens=141), now=1.0)


def test_the_wait_is_measured_by_the_time_that_answers_hold_a_slot() -> None:
    line = WaitingLine(LineLimits(num_slots=2))
    for name in "abcdefg":
        line.join(request(name), now=0.0)
    line.move_up(2, now=10.0)
    before_any_ended = line.seconds_to_serve(now=13.0)

    line.leave("a", now=14.0)  # 4 s in its slot
    line.leave("b", now=18.0)  # 8 s
    line.move_up(2, now=18.0)

    assert before_any_ended == (5 + 1) * 3.0 / 2
    assert line.seconds_to_serve(now=18.0) == (3 + 1) * 6.0 / 2


def test_who_has_waited_too_long_is_known_and_who_holds_a_slot_is_not_meant() -> None:
    line = WaitingLine(LineLimits(max_seconds=5.0, num_slots=1))
    line.join(request("a"), now=0.0)
    line.join(request("b"), now=1.0)
    line.join(request("c"), now=4.0)
    line.move_up(1, now=1.0)

    assert line.overdue(now=5.9) == []
    assert line.overdue(now=6.1) == ["b"]
    assert line.overdue(now=9.1) == ["b", "c"]


def test_a_queue_full_of_tokens_is_429_with_the_measured_wait(start: Callable[..., RunningServer]) -> None:
    server = start(max_running=1, max_waiting_tokens=900)
    server.engine.step_seconds = 0.02
    assert server.chat(max_tokens=100, ignore_eos=True).status_code == 200  # 2 s and more in its slot
    connections = [ask(server)]  # 410 tokens each; one runs, two wait
    eventually(lambda: server.engine.num_running == 1)
    connections += [ask(server) for _ in range(3)]
    eventually(lambda: server.metric('admission_rejections_total{model="tiny",reason="queue_full"') == 1)

    refused = server.chat(max_tokens=400)

    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "tokens" in refused.json()["error"]["message"]
    assert 6 <= int(refused.headers["retry-after"]) <= 60  # (2 + 1) answers of 2 s at least
    for connection in connections:
        connection.close()
    eventually(lambda: is_idle(server))


@pytest.mark.parametrize("stream", [True, False])
def test_who_waits_too_long_for_a_slot_gets_503_and_leaves_the_queue(
    start: Callable[..., RunningServer], stream: bool
) -> None:
    server = start(max_running=1, max_queue_seconds=0.3)
    server.engine.step_seconds = 0.02
    running = ask(server, stream=True)
    eventually(lambda: server.engine.num_running == 1)

    refused = server.chat(stream=stream)

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "queue_timeout"
    assert int(refused.headers["retry-after"]) >= 1
    assert (server.engine.num_waiting, server.engine.num_running) == (0, 1)
    assert server.metric('admission_rejections_total{model="tiny",reason="queue_timeout"') == 1
    running.close()
    eventually(lambda: is_idle(server))
    assert server.chat().status_code == 200


def test_a_deadline_ends_an_answer_and_frees_its_slot(start: Callable[..., RunningServer]) -> None:
    server = start(deadline_seconds=30.0)
    server.engine.step_seconds = 0.02
    body = chat_body(max_tokens=400, ignore_eos=True)

    whole = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers={DEADLINE: "400"}, timeout=60)
    stream = httpx.post(
        f"{server.url}/v1/chat/completions", json=body | {"stream": True}, headers={DEADLINE: "1500"}, timeout=60
    )

    eventually(lambda: is_idle(server))
    assert (whole.status_code, whole.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert stream.status_code == 200
    events = [line.removeprefix("data: ") for line in stream.text.splitlines() if line]
    assert json.loads(events[-2])["error"]["code"] == "deadline_exceeded"
    assert events[-1] == "[DONE]"
    assert server.engine.num_steps < 200


def test_a_deadline_of_the_settings_counts_and_a_header_cannot_stretch_it(start: Callable[..., RunningServer]) -> None:
    server = start(deadline_seconds=0.3)
    server.engine.step_seconds = 0.02
    body = chat_body(max_tokens=400, ignore_eos=True)

    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers={DEADLINE: "60000"}, timeout=60)

    assert answer.status_code == 504


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", ""])
def test_a_deadline_that_is_none_is_refused(server: RunningServer, value: str) -> None:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(), headers={DEADLINE: value})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, DEADLINE)


def test_a_reader_of_a_byte_a_second_loses_its_answer_and_nobody_else_waits(
    start: Callable[..., RunningServer],
) -> None:
    server = start(max_unread_tokens=20, write_seconds=1.0, max_running=5)
    connection = slow_connection(server)
    eventually(lambda: server.engine.num_running == 4)
    connection.settimeout(10)
    num_answered = 0
    while server.service.num_open and num_answered < 20:
        connection.recv(1)
        assert server.chat(max_tokens=2).status_code == 200
        num_answered += 1
        time.sleep(1)

    assert 1 <= num_answered < 20
    eventually(lambda: is_idle(server) and server.service.num_open == 0, "the end of the slow reader")
    assert server.metric('proxy_requests_total{model="tiny",proxy="base",status="abort"') == 4
    connection.close()


def slow_connection(server: RunningServer) -> socket.socket:
    """A stream of a long answer with 20 log-probabilities a token, into the smallest window that there is."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect(("127.0.0.1", server.port))
    body = json.dumps(
        chat_body(max_tokens=490, ignore_eos=True, stream=True, logprobs=True, top_logprobs=20, n=4)
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    return connection


def test_an_answer_that_nobody_reads_is_given_up_with_a_word(start: Callable[..., RunningServer]) -> None:
    server = start(max_unread_tokens=5, write_seconds=30.0)
    thread, found = hold(server, max_tokens=3)
    thread.join()
    assert found[0].status_code == 200

    connection = slow_connection(server)
    eventually(lambda: server.engine.num_steps > 3)
    eventually(lambda: is_idle(server), "an engine that has given up")
    connection.settimeout(30)
    text = b""
    while b"[DONE]" not in text:
        text += connection.recv(1 << 16)

    assert b"slow_reader" in text
    eventually(lambda: server.service.num_open == 0)
    connection.close()
