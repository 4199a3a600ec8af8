"""Whatever is sent: a 4xx in OpenAI's envelope that names the parameter, never a 500."""

import json
from typing import Any

import httpx
import pytest

from tests.server.conftest import RunningServer, chat_body

USER = {"role": "user", "content": "hi"}
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, llm: Any) -> Any:
    """One server for the whole table."""
    from server.settings import Settings
    from tests.server.conftest import PATIENCE_SECONDS, _start

    running = _start(llm, Settings(home=tmp_path_factory.mktemp("home"), port=0, max_body_bytes=200_000))
    yield running.url
    running.server.should_exit = True
    running.thread.join(PATIENCE_SECONDS)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str)
    assert "Traceback" not in error["message"]
    return error


def post(url: str, content: str | bytes, content_type: str = "application/json") -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", content=content, headers={"content-type": content_type})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [USER, {"role": "user", "content": None}]}, "messages[1].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
            None,
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [USER] * 2049}, "messages", "array_above_max_length"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "decimal_above_max_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 17}, "n", "integer_above_max_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 10**30}, "max_tokens", None),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", None),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"seed": -(2**63) - 1}, "seed", "integer_below_min_value"),
        ({"seed": 10**400}, "seed", "integer_above_max_value"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": ""}, "stop", "empty_string"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "integer_above_max_value"),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"min_tokens": 9}, "min_tokens", None),
        ({"stop_token_ids": [100_000]}, "stop_token_ids", None),
        ({"logit_bias": {"x": 1}}, "logit_bias", None),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value"),
        ({"presence_penalty": 3}, "presence_penalty", "decimal_above_max_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"proxy": {"p_t": 2}}, "proxy.p_t", "decimal_above_max_value"),
        ({"proxy": {"temperature": 0}}, "proxy.temperature", "decimal_below_min_value"),
        ({"proxy": {"decision": "maybe"}}, "proxy.decision", "invalid_value"),
        ({"proxy": {"target_return": 1.0}}, "proxy.target_return", "unsupported_value"),
        ({"proxy": {"colour": 1}}, "proxy.colour", "unknown_parameter"),
        ({"model": 5}, "model", "invalid_type"),
    ],
)
def test_a_wrong_field_is_named(url: str, fields: dict[str, Any], param: str, code: str | None) -> None:
    response = post(url, json.dumps(chat_body(**{"messages": [USER]} | fields)))

    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] is not None
    assert error["param"].startswith(param) if code is None else error["param"] == param
    assert code is None or error["code"] == code


@pytest.mark.parametrize("fields", [{"stop_token_ids": [5, 100_000]}, {"logit_bias": {"5": 1, "100000": 1}}])
def test_a_token_that_there_is_not_is_named(url: str, fields: dict[str, Any]) -> None:
    error = error_of(post(url, json.dumps(chat_body(**fields))))

    assert error["message"].endswith("which 100000 is not.")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"{", "cut off"),
        (b'{"model": "tiny", "messages": NaN}', "not JSON"),
        (b'{"temperature": Infinity}', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "no object"),
        (b"null", "no object"),
        (DEEP.encode(), "deep"),
        (b'{"seed": ' + b"9" * 10_000 + b"}", "more digits than Python reads"),
    ],
)
def test_what_is_no_json_object_is_refused(url: str, content: bytes, reason: str) -> None:
    response = post(url, content)

    assert response.status_code == 400, reason
    assert error_of(response)["code"] == "invalid_json"


@pytest.mark.parametrize("place", ["content", "model", "role", "extra"])
def test_half_characters_are_refused(url: str, place: str) -> None:
    half = '"\\ud800"'
    parts = {"content": '"hi"', "model": '"tiny"', "role": '"user"', "extra": '"x"'} | {place: half}
    body = (
        '{"max_tokens": 2, "model": %(model)s, "messages": [{"role": %(role)s, "content": %(content)s}], %(extra)s: 1}'
    )

    response = post(url, body % parts)

    expected = {"content": "messages[0].content", "model": "model", "role": "messages[0].role", "extra": None}
    assert (response.status_code, error_of(response)["param"]) == (400, expected[place])


def test_a_whole_character_in_two_escapes_is_fine(url: str) -> None:
    body = json.dumps(chat_body("\U0001f600", max_tokens=1))
    assert "\\ud83d" in body

    assert post(url, body).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(url: str, content_type: str) -> None:
    response = post(url, json.dumps(chat_body()), content_type)

    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_content_type"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_is_413(url: str, is_chunked: bool) -> None:
    content = json.dumps(chat_body("x" * 200_000)).encode()

    response = httpx.post(
        f"{url}/v1/chat/completions",
        content=iter([content]) if is_chunked else content,
        headers={"content-type": "application/json"},
    )

    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


def test_a_long_prompt_is_refused_with_both_numbers(url: str) -> None:
    response = post(url, json.dumps(chat_body("x" * 600)))

    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert "512 tokens" in error["message"]
    assert "605 in the messages" in error["message"]


@pytest.mark.parametrize(
    "model", ["gpt-9", "tiny:", "tiny:nobody", "tiny:helpful@7", "tiny:helpful@", "tiny:base@1", "", "tiny:../x@1"]
)
def test_an_unknown_model_is_404(url: str, model: str) -> None:
    response = post(url, json.dumps(chat_body(model=model)))

    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/%ff", 404, "unknown_url"),
        ("PUT", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-9", 404, "model_not_found"),
        ("POST", "/admin/proxies/load", 403, "admin_disabled"),
        ("GET", "/admin/proxies", 403, "admin_disabled"),
    ],
)
def test_other_statuses_have_the_envelope_too(url: str, method: str, path: str, status: int, code: str) -> None:
    response = httpx.request(method, url + path)

    assert response.status_code == status
    assert error_of(response)["code"] == code


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", "GET, POST"),
        ("/v1/chat/completions/chatcmpl-1", "DELETE, GET, POST"),
        ("/tokenize", "POST"),
        ("/", "GET, HEAD"),
    ],
)
def test_a_refused_method_is_told_all_that_the_url_has(url: str, path: str, allowed: str) -> None:
    assert httpx.put(url + path).headers["allow"] == allowed


def test_models_are_listed_and_found(server: RunningServer) -> None:
    listed = httpx.get(f"{server.url}/v1/models").json()

    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["tiny", "tiny:base"]
    assert httpx.get(f"{server.url}/v1/models/tiny:base").json() == listed["data"][1]
