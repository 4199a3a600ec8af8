"""What the log tells of a request, and what it never does."""

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy_model.json_log import JsonFormatter
from server.telemetry.request_log import TextFormatter
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import picky_policy, publish
from tests.server.test_reload import serves

SECRET = "my-secret-prompt"


def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:
    """The lines of `count` requests, once they are there."""
    found: list[dict[str, Any]] = []

    def are_there() -> bool:
        found[:] = [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.message == "request"]
        return len(found) == count

    eventually(are_there, f"{count} lines")
    return found


def test_a_line_tells_who_what_and_how_much(
    start: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start(api_keys=("alice:sk-alice-0001",))
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: serves(server, 1))
    headers = {"authorization": "Bearer sk-alice-0001", "x-request-id": "mine-7"}

    with caplog.at_level(logging.INFO):
        answer = httpx.post(
            f"{server.url}/v1/chat/completions",
            json=chat_body(SECRET, max_tokens=5, ignore_eos=True, stream=True),
            headers=headers,
            timeout=60,
        )
        refused = httpx.post(
            f"{server.url}/v1/chat/completions", json=chat_body(SECRET, model="gpt-9"), headers=headers
        )
        logged, also_logged = lines(caplog, 2)

    assert answer.headers["x-request-id"] == refused.headers["x-request-id"] == "mine-7"
    assert {name: logged[name] for name in ("request_id", "key", "method", "route", "status", "level")} == {
        "request_id": "mine-7",
        "key": "alice",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "level": "info",
    }
    assert {name: logged[name] for name in ("model", "proxy", "version", "completion_tokens", "rejections")} == {
        "model": "tiny",
        "proxy": "helpful",
        "version": 1,
        "completion_tokens": 5,
        "rejections": 10,  # two of three candidates may be rejected, and this proxy does
    }
    assert logged["prompt_tokens"] > len(SECRET)
    assert 0 < logged["seconds"] < 60
    assert (also_logged["status"], also_logged["code"]) == (404, "model_not_found")
    assert SECRET not in caplog.text
    assert "sk-alice" not in caplog.text


def test_a_line_tells_why_whoever_refused(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for path in ("/v1/nothing", "/v1/completions", "/v1/files?limit=many"):
            httpx.get(server.url + path)
        told = {each["code"]: each["status"] for each in lines(caplog, 3)}

    assert told == {"unknown_url": 404, "method_not_allowed": 405, "invalid_type": 400}


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "new\u00e9", "<script>"])
def test_an_id_that_could_do_harm_is_replaced(server: RunningServer, given: str) -> None:
    answer = httpx.get(f"{server.url}/v1/models", headers={b"x-request-id": given.encode()})

    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-request-id"] != httpx.get(f"{server.url}/v1/models").headers["x-request-id"]


def test_text_for_people_is_one_line_without_tricks() -> None:
    record = logging.LogRecord("server.requests", logging.INFO, "", 0, "request", (), None)
    record.__dict__.update(route="/v1/x", status=200, key=None, note='a "b"\nc')

    text = TextFormatter().format(record)

    assert text.endswith(" INFO request route=/v1/x status=200 note='a \"b\"\\nc'")
    assert "\n" not in text
