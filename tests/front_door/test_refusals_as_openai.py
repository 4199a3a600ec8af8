"""Refusals beside OpenAI's own: status, type, code and param as its API and its guide to error codes have them."""

from typing import Any

import httpx
import pytest

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess

KEY = "sk-refusals-1"
USER = {"role": "user", "content": "How do I stay calm?"}
INVALID = "invalid_request_error"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    """With a key."""
    publisher.publish()
    return start("--max-context", "512", PROXY_RLHF_API_KEYS=KEY)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": LLM, "messages": [USER], "max_tokens": 4} | fields


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("POST", CHAT, chat(model="gpt-9"), 404, "model_not_found", "model"),
        ("GET", "/v1/models/gpt-9", None, 404, "model_not_found", "model"),
        ("GET", "/v1/nothing", None, 404, "unknown_url", None),
        ("GET", COMPLETIONS, None, 405, "method_not_allowed", None),
        ("POST", CHAT, chat(messages=[]), 400, "empty_array", "messages"),
        ("POST", CHAT, {"model": LLM}, 400, "missing_required_parameter", "messages"),
        ("POST", CHAT, {"messages": [USER]}, 400, "missing_required_parameter", "model"),
        ("POST", CHAT, chat(messages="hi"), 400, "invalid_type", "messages"),
        ("POST", CHAT, chat(messages=[{"role": "king", "content": "x"}]), 400, "invalid_value", "messages[0].role"),
        ("POST", CHAT, chat(messages=[USER | {"content": "calm " * 600}]), 400, "context_length_exceeded", "messages"),
        ("POST", CHAT, chat(temperature=2.5), 400, "decimal_above_max_value", "temperature"),
        ("POST", CHAT, chat(temperature=-0.5), 400, "decimal_below_min_value", "temperature"),
        ("POST", CHAT, chat(temperature="hot"), 400, "invalid_type", "temperature"),
        ("POST", CHAT, chat(top_p=1.5), 400, "decimal_above_max_value", "top_p"),
        ("POST", CHAT, chat(n=0), 400, "integer_below_min_value", "n"),
        ("POST", CHAT, chat(n=129), 400, "integer_above_max_value", "n"),
        ("POST", CHAT, chat(max_tokens=0), 400, "integer_below_min_value", "max_tokens"),
        ("POST", CHAT, chat(presence_penalty=3), 400, "decimal_above_max_value", "presence_penalty"),
        ("POST", CHAT, chat(frequency_penalty=-2.5), 400, "decimal_below_min_value", "frequency_penalty"),
        ("POST", CHAT, chat(logprobs=True, top_logprobs=21), 400, "integer_above_max_value", "top_logprobs"),
        ("POST", CHAT, chat(stop=["a", "b", "c", "d", "e"]), 400, "array_above_max_length", "stop"),
        ("POST", CHAT, chat(seed=1 << 63), 400, "integer_above_max_value", "seed"),
        ("POST", CHAT, chat(response_format={"type": "xml"}), 400, "invalid_value", "response_format.type"),
        ("POST", COMPLETIONS, {"prompt": "a"}, 400, "missing_required_parameter", "model"),
        ("POST", COMPLETIONS, {"model": LLM, "prompt": "a", "logprobs": 6}, 400, "integer_above_max_value", "logprobs"),
        ("GET", f"{CHAT}/chatcmpl-1", None, 404, None, None),
        ("DELETE", f"{CHAT}/chatcmpl-1", None, 404, None, None),
        ("GET", "/v1/responses/resp_1", None, 404, None, None),
        ("POST", "/v1/responses", {"model": "gpt-9", "input": "a"}, 404, "model_not_found", "model"),
    ],
)  # fmt: skip
def test_a_refusal_is_openais(
    server: ServerProcess,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    status: int,
    code: str | None,
    param: str | None,
) -> None:
    response = httpx.request(
        method, server.url + path, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=60
    )

    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, INVALID)
    assert error.keys() == {"message", "type", "param", "code"}
    if code is not None:
        assert (error["code"], error["param"]) == (code, param)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_api_key"),
        ({"authorization": "Bearer sk-wrong-01"}, "invalid_api_key"),
        ({"authorization": "Basic c2s6"}, "invalid_api_key"),
    ],
)
def test_without_a_good_key_it_is_401(server: ServerProcess, headers: dict[str, str], code: str) -> None:
    response = httpx.post(server.url + CHAT, json=chat(), headers=headers)

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (401, INVALID, code)
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(b"{", "application/json"), (b"[]", "application/json"), (b"a=b", "application/x-www-form-urlencoded")],
)
def test_a_body_that_is_no_json_object_is_400(server: ServerProcess, content: bytes, content_type: str) -> None:
    headers = {"authorization": f"Bearer {KEY}", "content-type": content_type}

    response = httpx.post(server.url + CHAT, content=content, headers=headers)

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, INVALID, None)
