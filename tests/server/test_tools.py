"""Tools: what a template is shown of them, how calls leave whole and in chunks, and what is refused."""

import asyncio
import json
from typing import Any

import pytest

from proxy_model.llm.tokenizer import ChatTokenizer
from server.chat.answer import whole_answer
from server.chat.order import check_chat, prompt_of
from server.chat.stream import stream_answer
from server.chat.tools import ToolUse, tool_use
from server.errors import ApiError
from server.routes.tokens import token_ids
from server.schemas.chat_request import ChatRequest
from server.schemas.tokens import TokenizeRequest
from tests.proxy_model.llm.test_tool_format import tokenizer_with
from tests.server.conftest import RunningServer
from tests.server.scripted_run import ScriptedAnswer, scripted_run
from tests.tool_templates import CHATML, HERMES, MISTRAL

USER = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
BERN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "5 degrees"}


@pytest.fixture(scope="module")
def hermes() -> ChatTokenizer:
    return tokenizer_with(HERMES)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "tiny", "messages": [USER], "tools": [WEATHER, CLOCK]} | fields)


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def use_of(request: ChatRequest, tokenizer: ChatTokenizer) -> ToolUse:
    use = tool_use(request, tokenizer)
    assert use is not None
    return use


def whole(tokenizer: ChatTokenizer, *answers: ScriptedAnswer, **fields: Any) -> list[dict[str, Any]]:
    request = chat(**fields)
    run = scripted_run(request, tool_use(request, tokenizer), *answers)
    return [choice.model_dump() for choice in asyncio.run(whole_answer(run)).choices]


def chunks(tokenizer: ChatTokenizer, *answers: ScriptedAnswer, **fields: Any) -> list[dict[str, Any]]:
    request = chat(stream=True, **fields)
    run = scripted_run(request, tool_use(request, tokenizer), *answers)

    async def collect() -> list[bytes]:
        return [event async for event in stream_answer(run)]

    events = asyncio.run(collect())
    assert events[-1] == b"data: [DONE]\n\n"
    return [choice for event in events[:-1] for choice in json.loads(event.removeprefix(b"data: "))["choices"]]


def functions(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = choice["message"]["tool_calls"] or []
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(call["id"].startswith("call_") and call["type"] == "function" for call in calls)
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def test_a_call_takes_the_place_of_the_text(hermes: ChatTokenizer) -> None:
    [choice] = whole(hermes, ScriptedAnswer([BERN[:9], BERN[9:]]))

    assert choice["message"]["content"] is None
    assert functions(choice) == [("weather", {"city": "Bern"})]
    assert choice["finish_reason"] == "tool_calls"


def test_text_and_calls_may_come_together_and_text_alone_is_an_answer(hermes: ChatTokenizer) -> None:
    both, text = whole(hermes, ScriptedAnswer([f"One moment.\n{BERN}\n", NOW]), ScriptedAnswer(["It is late."]))

    assert both["message"]["content"] == "One moment."
    assert functions(both) == [("weather", {"city": "Bern"}), ("clock", {})]
    assert (text["message"]["content"], text["message"]["tool_calls"]) == ("It is late.", None)
    assert text["finish_reason"] == "stop"


def test_without_parallel_calls_only_the_first_one_counts(hermes: ChatTokenizer) -> None:
    [choice] = whole(hermes, ScriptedAnswer([BERN, "\n", NOW]), parallel_tool_calls=False)

    assert functions(choice) == [("weather", {"city": "Bern"})]


def test_a_call_that_is_cut_off_is_text(hermes: ChatTokenizer) -> None:
    [choice] = whole(hermes, ScriptedAnswer([BERN[:30]], "length"))

    assert (choice["message"]["content"].startswith("<tool_call>"), choice["finish_reason"]) == (True, "length")
    assert choice["message"]["tool_calls"] is None


def test_with_no_tool_choice_the_answer_is_text_whatever_it_says(hermes: ChatTokenizer) -> None:
    [choice] = whole(hermes, ScriptedAnswer([BERN]), tool_choice="none")

    assert (choice["message"]["content"], choice["finish_reason"]) == (BERN, "stop")


def test_a_stream_tells_a_call_in_openais_grammar(hermes: ChatTokenizer) -> None:
    parts = list(f"Hm.\n{BERN}\n{NOW}")

    found = chunks(hermes, ScriptedAnswer(parts))

    deltas = [choice["delta"] for choice in found]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hm."
    calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
    assert [call["index"] for call in calls] == [0, 0, 1, 1]
    assert calls[0]["function"] == {"name": "weather", "arguments": ""}
    assert calls[1].keys() == {"index", "function"}
    assert json.loads(calls[1]["function"]["arguments"]) == {"city": "Bern"}
    assert calls[2]["id"] != calls[0]["id"]
    assert (found[-1]["delta"], found[-1]["finish_reason"]) == ({}, "tool_calls")
    assert [choice["finish_reason"] for choice in found[:-1]] == [None] * (len(found) - 1)
    [at_once] = whole(hermes, ScriptedAnswer(parts))
    assert [call["id"] for call in at_once["message"]["tool_calls"]] == [calls[0]["id"], calls[2]["id"]]


def test_another_templates_calls_are_found_too() -> None:
    [choice] = whole(tokenizer_with(MISTRAL), ScriptedAnswer([' [{"name": "clock", "arguments": {}}]']))

    assert functions(choice) == [("clock", {})]


def test_the_template_is_shown_the_tools_and_the_calls_before(hermes: ChatTokenizer) -> None:
    request = chat(messages=[USER, CALLING, RESULT])
    use = use_of(request, hermes)

    text = "".join(hermes.spell(prompt_of(hermes, request, use).token_ids))
    assert json.dumps(use.shown[0]) in text
    assert '"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}' in text
    assert BERN in text
    assert "<tool_response>\n5 degrees\n</tool_response>" in text
    assert text.endswith("<|im_start|>assistant\n")
    untold = chat(messages=[USER, CALLING, RESULT], tool_choice="none")
    assert tool_use(untold, hermes) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [({}, "tools"), ({"tools": None, "messages": [USER, CALLING, RESULT]}, "messages[1].tool_calls")],
)
def test_a_template_without_tools_refuses_them(fields: dict[str, Any], param: str) -> None:
    request = chat(**fields)

    with pytest.raises(ApiError) as refused:
        tool_use(request, tokenizer_with(CHATML))

    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, "unsupported_value")
    assert tool_use(chat(tool_choice="none"), tokenizer_with(CHATML)) is None


def test_tokenize_reads_tools_as_the_answer_to_them_does(hermes: ChatTokenizer) -> None:
    asked = TokenizeRequest.model_validate({"messages": [USER], "tools": [WEATHER, CLOCK]})

    found = token_ids(hermes, asked)

    assert tuple(found) == prompt_of(hermes, chat(), use_of(chat(), hermes)).token_ids
    assert "The weather of a city." in hermes.decode(found)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": None, "tool_choice": "required"}, "tool_choice", None),
        ({"tools": None, "tool_choice": "auto"}, "tool_choice", None),  # OpenAI refuses even these two
        ({"tools": None, "tool_choice": "none"}, "tool_choice", None),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "invalid_value"),
        ({"tool_choice": allowed("auto", "clock", "x")}, "tool_choice", "invalid_value"),
        ({"tools": None, "tool_choice": allowed("auto", "clock")}, "tool_choice", None),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_value"),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
            "tools[0].function.parameters",
            "invalid_function_parameters",
        ),
        (
            {
                "tools": [
                    CLOCK,
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"type": "object", "x": "y" * 70_000}},
                    },
                ]
            },
            "tools[1].function.parameters",
            "string_above_max_length",
        ),
    ],
)
def test_tools_that_contradict_each_other_are_refused(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_chat(chat(**fields))

    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [WEATHER]}, "tools", "unsupported_value"),
        ({"tools": []}, "tools", "empty_array"),
        ({"tools": [CLOCK] * 129}, "tools", "array_above_max_length"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "custom", "custom": {"name": "x"}}},
            "tool_choice.type",
            "invalid_value",
        ),
        ({"tools": [WEATHER], "tool_choice": allowed("never", "x")}, "tool_choice.allowed_tools.mode", "invalid_value"),
        ({"tools": [WEATHER], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools", "empty_array"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls", "invalid_type"),
    ],
)
def test_wrong_tools_are_named(server: RunningServer, fields: dict[str, Any], param: str, code: str) -> None:
    response = server.chat(**fields)

    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
