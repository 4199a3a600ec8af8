"""Answers that must call tools do, by the tools' schemas, on a real server whose chat template has tools."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from proxy_model.llm.frozen_llm import FrozenLLM
from server.settings import Settings
from tests.server.conftest import PATIENCE_SECONDS, RunningServer, _start
from tests.server.fakes import tiny_model
from tests.tool_templates import HERMES

PICK = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {
            "type": "object",
            "properties": {"n": {"$ref": "#/$defs/digit"}},
            "required": ["n"],
            "additionalProperties": False,
            "$defs": {"digit": {"enum": [3, 7]}},
        },
    },
}
STOP = {"type": "function", "function": {"name": "stop"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    model, tokenizer = tiny_model()
    tokenizer.chat_template = HERMES.replace("(tool | tojson)", "tool.function.name")  # one byte is one token here
    running = _start(FrozenLLM(model, tokenizer, "tiny"), Settings(home=tmp_path_factory.mktemp("home"), port=0))
    yield running
    running.server.should_exit = True
    running.thread.join(PATIENCE_SECONDS)


def ask(server: RunningServer, **fields: Any) -> dict[str, Any]:
    response = server.chat("hi", tools=[PICK, STOP], **{"max_tokens": 150, "temperature": 1.2, "seed": 1} | fields)
    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    found: dict[str, Any] = choice
    return found


def calls(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_named_tool_is_called_once_by_its_schema(server: RunningServer, seed: int) -> None:
    choice = ask(server, tool_choice={"type": "function", "function": {"name": "pick"}}, seed=seed)

    [(name, arguments)] = calls(choice)
    assert name == "pick"
    assert arguments in ({"n": 3}, {"n": 7})
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_a_tool_without_parameters_gets_none(server: RunningServer) -> None:
    choice = ask(server, tool_choice={"type": "function", "function": {"name": "stop"}})

    assert calls(choice) == [("stop", {})]


def biased_to(server: RunningServer, text: str) -> dict[str, int]:
    """Lets the tiny LLM prefer a character where the grammar leaves it a choice."""
    return {str(token): 80 for token in server.llm.tokenizer.encode(text)}


@pytest.mark.parametrize("name", ["pick", "stop"])
def test_some_tool_is_called_where_one_is_required(server: RunningServer, name: str) -> None:
    fields: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}
    choice = ask(server, logit_bias=biased_to(server, name[0]), **fields)

    assert [called for called, _ in calls(choice)] == [name]
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("name", ["pick", "stop"])
def test_of_the_allowed_tools_one_is_called_whatever_the_llm_prefers(server: RunningServer, name: str) -> None:
    other = {"pick": "s", "stop": "p"}[name]
    named = {"type": "function", "function": {"name": name}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}

    answer = ask(server, tool_choice=choice, parallel_tool_calls=False, logit_bias=biased_to(server, other))

    assert [called for called, _ in calls(answer)] == [name]


def test_several_calls_in_a_row_are_each_by_a_schema(server: RunningServer) -> None:
    choice = ask(server, tool_choice="required", max_tokens=250, logit_bias=biased_to(server, "\n"))

    found = calls(choice)
    assert len(found) > 2
    assert all(arguments in ({"n": 3}, {"n": 7}) if name == "pick" else not arguments for name, arguments in found)


def test_streamed_is_not_streamed_and_the_sdk_understands_it(server: RunningServer) -> None:
    fields: dict[str, Any] = {"max_tokens": 150, "temperature": 1.2, "seed": 2, "tool_choice": "required"}
    fields["parallel_tool_calls"] = False
    expected = calls(ask(server, **fields))

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        tools: Any = [PICK, STOP]
        with client.chat.completions.stream(model="tiny", messages=messages, tools=tools, **fields) as stream:
            completion = stream.get_final_completion()

    message = completion.choices[0].message
    found = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    assert found == expected
    assert completion.choices[0].finish_reason == "tool_calls"


def test_an_answer_and_its_tools_results_go_on(server: RunningServer) -> None:
    choice = ask(server, tool_choice={"type": "function", "function": {"name": "stop"}})
    [call] = choice["message"]["tool_calls"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"}]

    messages = [{"role": "user", "content": "hi"}, choice["message"], *results]
    response = server.chat(messages=messages, tools=[STOP])

    assert response.status_code == 200, response.text
    assert isinstance(response.json()["choices"][0]["message"]["content"], str)


def test_without_force_an_answer_is_text_and_strictness_is_not_promised(server: RunningServer) -> None:
    strict = {"type": "function", "function": STOP["function"] | {"strict": True}}  # type: ignore[operator]

    response = server.chat("hi", tools=[strict])

    assert response.json()["choices"][0]["message"]["tool_calls"] is None
    assert response.headers["x-ignored-fields"] == "tools.function.strict"
    forced = server.chat("hi", tools=[strict], tool_choice="required", max_tokens=150)
    assert "x-ignored-fields" not in forced.headers


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        (
            {
                "tool_choice": "required",
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {"type": "object", "properties": {"x": {"type": "wrong"}}},
                        },
                    }
                ],
            },
            "tools",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused(server: RunningServer, fields: dict[str, Any], param: str) -> None:
    response = server.chat("as json", **{"tools": [STOP]} | fields)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text


def test_the_older_words_are_refused_by_name(server: RunningServer) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "functions": [{"name": "f"}]}
    error = httpx.post(f"{server.url}/v1/chat/completions", json=body).json()["error"]

    assert (error["param"], error["code"]) == ("functions", "unsupported_value")
