"""A decode step that throws: an error for whom it concerned, the rest goes on, or the server says that it is over."""

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy_model.decoding.emit import AcceptedPosition
from proxy_model.decoding.request import Delta
from proxy_model.decoding.sequence import Sequence
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


@pytest.mark.parametrize(
    ("path", "asked"),
    [("chat/completions", chat_body()), ("chat/completions", chat_body(n=3)), ("completions", {"prompt": ["a", "b"]})],
)
def test_a_stream_ends_with_an_error_event(server: RunningServer, path: str, asked: dict[str, Any]) -> None:
    server.engine.step_seconds = 0.01
    body = {"model": "tiny", **asked, "stream": True, "max_tokens": 400, "ignore_eos": True}
    events = []
    with httpx.stream("POST", f"{server.url}/v1/{path}", json=body, timeout=60) as response:
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


def test_a_stalled_step_that_never_ends_ends_the_process_and_tells_those_who_wait(
    start: Callable[..., RunningServer],
) -> None:
    server = start(stall_seconds=0.2, give_up_seconds=0.4)
    server.engine.gate.clear()
    whole, failed = hold(server)
    eventually(lambda: server.engine.num_waiting == 1)
    streaming, stream = hold(server, stream=True)

    eventually(lambda: not server.thread.is_alive(), "the end")

    whole.join()
    streaming.join()
    assert server.server.exit_code == 1
    assert [answer.status_code for answer in (*failed, *stream)] == [500, 503]  # one was in the step, one came too late
    assert [answer.json()["error"]["type"] for answer in (*failed, *stream)] == ["server_error"] * 2


def test_a_stall_that_passes_is_forgotten(start: Callable[..., RunningServer]) -> None:
    server = start(stall_seconds=0.1, give_up_seconds=3600.0)
    for _ in range(2):
        server.engine.gate.clear()
        thread, found = hold(server)
        eventually(lambda: server.service.problem() is not None, "the stall")
        server.engine.gate.set()
        thread.join()
        assert found[0].status_code == 200

    assert server.server.exit_code == 0
    assert server.chat().status_code == 200


def break_answers_to(server: RunningServer, marker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every answer whose prompt ends with `marker` break at its third token."""
    emitter = server.engine._emitter
    accept = emitter.accept
    wanted = tuple(server.llm.tokenizer.apply_chat_template([{"role": "user", "content": marker}]))

    def accept_or_break(sequence: Sequence, position: AcceptedPosition) -> Delta:
        if sequence.request.prompt_token_ids == wanted and len(sequence.output) >= 2:
            raise RuntimeError("injected")
        return accept(sequence, position)

    monkeypatch.setattr(emitter, "accept", accept_or_break)


@pytest.mark.parametrize("stream", [True, False])
def test_one_bad_answer_breaks_alone(
    start: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    server = start()
    alone = server.chat("good", max_tokens=60, ignore_eos=True).json()["choices"][0]["message"]["content"]
    break_answers_to(server, "bad", monkeypatch)
    server.engine.gate.clear()
    before, first = hold(server, content="good", max_tokens=60, ignore_eos=True)
    eventually(lambda: server.engine.num_waiting == 1)
    bad, broken = hold(server, content="bad", max_tokens=60, ignore_eos=True, stream=stream)
    after, second = hold(server, content="good", max_tokens=60, ignore_eos=True)

    server.engine.gate.set()

    for thread in (before, bad, after):
        thread.join()
    assert [answer.json()["choices"][0]["message"]["content"] for answer in (*first, *second)] == [alone, alone]
    if stream:
        events = [line.removeprefix("data: ") for line in broken[0].text.splitlines() if line]
        assert (json.loads(events[-2])["error"]["code"], events[-1]) == ("internal_error", "[DONE]")
    else:
        assert (broken[0].status_code, broken[0].json()["error"]["code"]) == (500, "internal_error")
    assert "injected" not in broken[0].text
    assert server.metric("proxy_failed_steps_total") == 0
    eventually(lambda: not server.engine.has_work)
