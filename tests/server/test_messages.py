"""The messages of a conversation: what OpenAI allows, what chat templates get of it, and what is refused."""

from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from server.schemas.messages import ChatMessage, to_template
from tests.server.conftest import RunningServer, chat_body

USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "5 degrees"}


def as_template(message: dict[str, Any]) -> dict[str, Any]:
    return to_template(TypeAdapter(ChatMessage).validate_python(message))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
        (USER | {"name": "Ann"}, {"role": "user", "content": "hi", "name": "Ann"}),
        ({"role": "function", "name": "f", "content": None}, {"role": "tool", "name": "f", "content": ""}),
        (RESULT, {"role": "tool", "tool_call_id": "call_1", "content": "5 degrees"}),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
            {"role": "assistant", "content": "ab"},
        ),
        ({"role": "assistant", "refusal": "no"}, {"role": "assistant", "content": "no"}),
    ],
)
def test_a_template_gets_text_in_a_role_that_it_knows(message: dict[str, Any], expected: dict[str, Any]) -> None:
    assert as_template(message) == expected


def test_a_template_gets_arguments_as_what_they_are_written_as() -> None:
    function = {"name": "weather", "arguments": {"city": "Bern"}}
    assert as_template(CALLING)["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]
    old = {"role": "assistant", "function_call": CALL["function"]}
    assert as_template(old)["tool_calls"] == [{"type": "function", "function": function}]

    broken = {"name": "weather", "arguments": "{city"}
    call = CALL | {"function": broken}
    assert as_template(CALLING | {"tool_calls": [call]})["tool_calls"][0]["function"] == broken


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([USER, {"role": "assistant"}], "messages[1].content", "invalid_type"),
        ([USER, {"role": "assistant", "content": []}], "messages[1].content", "empty_array"),
        ([USER, RESULT], "messages[1].role", "invalid_value"),
        ([USER, CALLING], "messages[1].role", "invalid_value"),
        ([USER, CALLING, USER], "messages[2].role", "invalid_value"),
        ([USER, CALLING, RESULT, RESULT], "messages[3].role", "invalid_value"),
        ([CALLING | {"tool_calls": []}], "messages[0].tool_calls", "empty_array"),
        ([CALLING | {"tool_calls": [CALL | {"type": "custom"}]}], "messages[0].tool_calls[0].type", "invalid_value"),
        (
            [CALLING | {"tool_calls": [CALL | {"function": {"name": "f"}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "missing_required_parameter",
        ),
        ([{"role": "function", "content": "x"}], "messages[0].name", "missing_required_parameter"),
        ([USER | {"name": ""}], "messages[0].name", "empty_string"),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        ([USER | {"content": [{"type": "text", "text": "x"}] * 257}], "messages[0].content", "array_above_max_length"),
    ],
)
def test_a_conversation_that_cannot_be_is_refused_by_its_place(
    server: RunningServer, messages: list[dict[str, Any]], param: str, code: str
) -> None:
    response = server.chat(messages=messages)

    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_media_are_refused_in_plain_words(server: RunningServer, kind: str) -> None:
    content = [{"type": "text", "text": "what is this?"}, {"type": kind, kind: {"url": "data:,x"}}]

    error = server.chat(messages=[{"role": "user", "content": content}]).json()["error"]

    assert (error["param"], error["code"]) == ("messages[0].content[1].type", "unsupported_value")
    assert f"no parts of type '{kind}'" in error["message"]


@pytest.mark.parametrize("depth", [62, 63])
def test_a_body_has_sixty_four_levels_at_most(server: RunningServer, depth: int) -> None:
    nested: Any = 1
    for _ in range(depth + 1):
        nested = [nested]

    response = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(extra=nested), timeout=60)

    assert response.status_code == (200 if depth == 62 else 400)
    assert depth == 62 or response.json()["error"]["code"] == "invalid_json"
