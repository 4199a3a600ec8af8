"""Refusals are worded as OpenAI words them: each message is of a form that users of its API reported."""

import json
import socket
from typing import Any

import pytest

from server.body import parse
from server.errors import ApiError
from server.schemas.chat_request import ChatRequest
from tests.server.conftest import RunningServer

USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "function": {"name": "clock"}}


def refused(fields: dict[str, Any]) -> ApiError:
    """What a chat request with `fields` is told."""
    with pytest.raises(ApiError) as found:
        parse(json.dumps({"model": "m", "messages": [USER]} | fields).encode(), ChatRequest)
    return found.value


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        (
            {"max_tokens": -678},
            "max_tokens",
            "integer_below_min_value",
            "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got -678 instead.",
        ),
        (
            {"top_logprobs": 130},
            "top_logprobs",
            "integer_above_max_value",
            "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 130 instead.",
        ),
        (
            {"top_p": 100},  # the field's kind of number, not the value's
            "top_p",
            "decimal_above_max_value",
            "Invalid 'top_p': decimal above maximum value. Expected a value <= 1, but got 100 instead.",
        ),
        (
            {"messages": [USER, {"role": "user", "content": {"text": "hi"}}]},
            "messages[1].content",
            "invalid_type",
            "Invalid type for 'messages[1].content': expected one of a string or array, but got an object instead.",
        ),
        (
            {"messages": [{"role": "user", "content": ["hi"]}]},
            "messages[0].content[0]",
            "invalid_type",
            "Invalid type for 'messages[0].content[0]': expected an object, but got a string instead.",
        ),
        (
            {"temperature": "hot"},
            "temperature",
            "invalid_type",
            "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        ),
        (
            {"max_tokens": 1.5},
            "max_tokens",
            "invalid_type",
            "Invalid type for 'max_tokens': expected an integer, but got a decimal instead.",
        ),
        (
            {"response_format": {"type": "object"}},
            "response_format.type",
            "invalid_value",
            "Invalid value: 'object'. Supported values are: 'text', 'json_object', and 'json_schema'.",
        ),
        (
            {"tools": [FUNCTION], "tool_choice": 3},
            "tool_choice",
            "invalid_type",
            "Invalid type for 'tool_choice': expected one of 'none', 'auto', 'required', or object, "
            "but got an integer instead.",
        ),
        (
            {"messages": []},
            "messages",
            "empty_array",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            {"messages": [USER | {"name": ""}]},
            "messages[0].name",
            "empty_string",
            "Invalid 'messages[0].name': empty string. Expected a string with minimum length 1, "
            "but got an empty string instead.",
        ),
        (
            {"tools": [FUNCTION] * 150},
            "tools",
            "array_above_max_length",
            "Invalid 'tools': array too long. Expected an array with maximum length 128, "
            "but got an array with length 150 instead.",
        ),
        (
            {"messages": [USER | {"name": "n" * 116}]},
            "messages[0].name",
            "string_above_max_length",
            "Invalid 'messages[0].name': string too long. Expected a string with maximum length 64, "
            "but got a string with length 116 instead.",
        ),
        (
            {"metadata": {f"key{number}": "value" for number in range(24)}},
            "metadata",
            "object_above_max_properties",
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            "but got an object with 24 properties instead.",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "get_/whoami"}}]},
            "tools[0].function.name",
            "invalid_value",
            "Invalid 'tools[0].function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
            "messages[0].content[0].type",
            "missing_required_parameter",
            "Missing required parameter: 'messages[0].content[0].type'.",
        ),
        (
            {"proxy": {"colour": "red"}},
            "proxy.colour",
            "unknown_parameter",
            "Unknown parameter: 'proxy.colour'.",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_what_openai_says(fields: dict[str, Any], param: str, code: str, message: str) -> None:
    error = refused(fields)

    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.param, error.code, error.message) == (param, code, message)


def test_a_long_value_is_not_repeated_whole() -> None:
    error = refused({"messages": [{"role": "k" * 5000, "content": "hi"}]})

    assert error.param == "messages[0].role"
    assert f"Invalid value: '{'k' * 64}'." in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize(
    "sent",
    [b"this is no HTTP\r\n\r\n", b"GET /health HTTP/1.1\r\nbad header\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"],
    ids=["words", "header", "TLS"],
)
def test_what_is_no_http_gets_the_envelope_and_a_closed_connection(server: RunningServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body)["error"] == {
        "message": "Invalid HTTP request received.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_http",
    }
