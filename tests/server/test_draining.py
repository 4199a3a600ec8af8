"""Between the signal and the end: not ready at once, nothing new, running answers finish up to the deadline."""

import json
import signal
import threading
from collections.abc import Callable

import httpx

from tests.server.conftest import RunningServer, chat_body, eventually


def stream(server: RunningServer, max_tokens: int) -> "tuple[threading.Thread, list[str]]":
    lines: list[str] = []
    body = chat_body(stream=True, max_tokens=max_tokens, ignore_eos=True)

    def read() -> None:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
            lines.extend(line for line in answer.iter_lines() if line)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, lines


def test_probes_say_so_and_new_requests_are_refused_while_an_answer_finishes(
    start: Callable[..., RunningServer],
) -> None:
    server = start()
    server.engine.step_seconds = 0.02
    thread, lines = stream(server, 100)
    eventually(lambda: server.engine.num_running == 1)

    server.server.handle_exit(signal.SIGTERM, None)

    ready, refused = httpx.get(f"{server.url}/ready"), server.chat()
    assert (ready.status_code, refused.status_code) == (503, 503)
    assert int(refused.headers["retry-after"]) >= 1
    thread.join()
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    eventually(lambda: not server.thread.is_alive(), "the end")
    assert server.server.exit_code == 0


def test_the_deadline_cuts_answers_off_with_an_error(start: Callable[..., RunningServer]) -> None:
    server = start(drain_seconds=0.3)
    server.engine.step_seconds = 0.05
    thread, lines = stream(server, 400)
    eventually(lambda: server.engine.num_running == 1)

    server.server.handle_exit(signal.SIGTERM, None)

    thread.join()
    assert "error" in json.loads(lines[-2].removeprefix("data: "))
    eventually(lambda: not server.thread.is_alive(), "the end")
