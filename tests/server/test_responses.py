"""/v1/responses through the OpenAI SDK: whole and streamed, continued, stored, listed, deleted; and what is refused."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from proxy_model.paths import store_file
from store.completions import Completions
from store.database import Database, owner_of
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import picky_policy, publish

Start = Callable[..., RunningServer]
MINE, YOURS = "sk-mine-1111", "sk-yours-2222"
ASK: dict[str, Any] = {"model": "tiny", "input": "hello", "max_output_tokens": 8}


def sdk(server: RunningServer, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with sdk(server) as client:
        yield client


def post(server: RunningServer, **fields: Any) -> httpx.Response:
    body = {name: value for name, value in (ASK | fields).items() if value is not None}
    return httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)


def events(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    """Every event of a stream; its name on the wire is its type."""
    found = []
    for block in post(server, stream=True, **fields).text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def chat_text(server: RunningServer, messages: list[dict[str, Any]], **fields: Any) -> str:
    content: str = server.chat(messages=messages, **fields).json()["choices"][0]["message"]["content"]
    return content


def test_a_response_is_the_chat_answer_in_other_words(client: openai.OpenAI, server: RunningServer) -> None:
    response = client.responses.create(**ASK)

    assert response.output_text == chat_text(server, [{"role": "user", "content": "hello"}])
    assert (response.status, response.object, response.model) == ("incomplete", "response", "tiny")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (10, 8, 18)
    assert response.id.startswith("resp_")
    assert (response.max_output_tokens, response.error, response.tools) == (8, None, [])


def test_an_answer_that_ends_by_itself_is_completed(client: openai.OpenAI, server: RunningServer) -> None:
    stop = client.responses.create(**ASK).output_text[3:5]

    response = client.responses.create(**ASK, extra_body={"stop": stop})

    assert (response.status, response.incomplete_details) == ("completed", None)
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    assert client.responses.retrieve(response.id) == response


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ({"input": "hi"}, [("user", "hi")]),
        ({"input": "hi", "instructions": "Be short."}, [("system", "Be short."), ("user", "hi")]),
        (
            {
                "input": [
                    {"role": "developer", "content": "Be brief."},
                    {
                        "role": "user",
                        "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
                    },
                    {
                        "id": "msg_1",
                        "type": "message",
                        "role": "assistant",
                        "status": "completed",
                        "content": [{"type": "output_text", "text": "c", "annotations": [], "logprobs": []}],
                    },
                    {"type": "message", "role": "user", "content": "d"},
                ]
            },
            [("system", "Be brief."), ("user", "ab"), ("assistant", "c"), ("user", "d")],
        ),
    ],
)
def test_input_is_read_as_a_conversation(
    server: RunningServer, given: dict[str, Any], messages: list[tuple[str, str]]
) -> None:
    response = post(server, temperature=0.8, seed=5, **given).json()

    spoken = [{"role": role, "content": text} for role, text in messages]
    assert response["output"][0]["content"][0]["text"] == chat_text(server, spoken, temperature=0.8, seed=5)


def test_a_stream_follows_the_grammar(server: RunningServer) -> None:
    heard = events(server, metadata={"a": "b"})

    deltas = [event for event in heard if event["type"] == "response.output_text.delta"]
    assert [event["type"] for event in heard if event not in deltas] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event["sequence_number"] for event in heard] == list(range(len(heard)))
    text = "".join(event["delta"] for event in deltas)
    assert len(deltas) > 1
    created, added, done, last = heard[0], heard[2], heard[-2], heard[-1]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    assert (added["item"]["status"], added["item"]["content"]) == ("in_progress", [])
    assert heard[-4]["text"] == heard[-3]["part"]["text"] == done["item"]["content"][0]["text"] == text
    assert last["response"]["output"] == [done["item"]]
    assert {event["item_id"] for event in deltas} == {added["item"]["id"], done["item"]["id"]}
    assert httpx.get(f"{server.url}/v1/responses/{last['response']['id']}").json() == last["response"]


@pytest.mark.parametrize("fields", [{}, {"temperature": 1.3, "seed": 3, "top_p": 0.9}, {"max_output_tokens": 40}])
def test_streamed_is_not_streamed(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    seed = {"extra_body": {"seed": fields["seed"]}} if "seed" in fields else {}
    settings = ASK | {name: value for name, value in fields.items() if name != "seed"} | seed
    whole = client.responses.create(**settings)

    with client.responses.stream(**settings) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
    streamed = list(client.responses.create(**settings, stream=True))[-1]

    assert snapshots[-1] == whole.output_text
    assert streamed.type == "response.incomplete"
    assert streamed.response.output_text == whole.output_text
    assert streamed.response.usage is not None
    assert whole.usage is not None
    assert streamed.response.usage.total_tokens == whole.usage.total_tokens
    assert streamed.response.temperature == whole.temperature


def test_the_sdk_helper_gathers_the_final_response(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ASK)

    with client.responses.stream(**ASK, extra_body={"stop": whole.output_text[4:6]}) as stream:
        final = stream.get_final_response()

    assert final.status == "completed"
    assert whole.output_text.startswith(final.output_text)
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_the_sdk_helper_shows_how_a_response_that_was_cut_ended(client: openai.OpenAI) -> None:
    """OpenAI ends such a stream with `response.incomplete`; `get_final_response` of the SDK only knows `completed`."""
    whole = client.responses.create(**ASK)

    with client.responses.stream(**ASK) as stream:
        last = list(stream)[-1]
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            stream.get_final_response()

    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.usage is not None
    assert whole.usage is not None
    assert last.response.usage.total_tokens == whole.usage.total_tokens
    assert last.response.output_text == whole.output_text
    assert client.responses.retrieve(last.response.id).status == "incomplete"


class Figure(BaseModel):
    """What `SCHEMA` says."""

    n: Literal[4, 17]


def test_the_sdk_helper_parses_what_it_streams(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tiny", input="hello", text_format=Figure) as stream:
        final = stream.get_final_response()

    assert final.output_parsed is not None
    assert final.output_parsed.n in (4, 17)


def test_a_conversation_goes_on_without_the_old_instructions(client: openai.OpenAI, server: RunningServer) -> None:
    first = client.responses.create(**ASK, instructions="Shout.")
    second = client.responses.create(**ASK | {"input": "and?"}, previous_response_id=first.id)
    third = client.responses.create(
        **ASK | {"input": [{"role": "user", "content": "so?"}]}, previous_response_id=second.id, instructions="Sing."
    )

    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "and?"},
    ]
    assert second.output_text == chat_text(server, turns)
    turns += [{"role": "assistant", "content": second.output_text}, {"role": "user", "content": "so?"}]
    assert third.output_text == chat_text(server, [{"role": "system", "content": "Sing."}, *turns])
    assert (third.previous_response_id, third.instructions) == (second.id, "Sing.")
    client.responses.delete(first.id)
    again = client.responses.create(**ASK | {"input": "and?"}, previous_response_id=second.id)
    assert again.usage is not None
    assert second.usage is not None
    assert again.usage.input_tokens > second.usage.input_tokens


def test_input_items_are_listed_in_pages(client: openai.OpenAI) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    response = client.responses.create(**ASK | {"input": said}, instructions="Be short.")

    newest_first = [item.to_dict() for item in client.responses.input_items.list(response.id, limit=2)]
    oldest_first = [item.to_dict() for item in client.responses.input_items.list(response.id, order="asc", limit=1)]

    texts = [item["content"][0]["text"] for item in oldest_first]  # type: ignore[index]
    assert texts == ["a", "b", "c"]
    assert newest_first == oldest_first[::-1]
    assert [item["content"][0]["type"] for item in oldest_first] == ["input_text", "output_text", "input_text"]  # type: ignore[index]
    assert len({item["id"] for item in oldest_first}) == 3


def test_responses_are_deleted_and_cannot_be_cancelled(client: openai.OpenAI) -> None:
    response = client.responses.create(**ASK)
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(response.id)

    client.responses.delete(response.id)

    for ask in (
        client.responses.retrieve,
        client.responses.delete,
        client.responses.cancel,
        client.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError):
            ask(response.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**ASK, previous_response_id=response.id)
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "previous_response_not_found")


def test_store_false_keeps_nothing(client: openai.OpenAI, server: RunningServer) -> None:
    response = client.responses.create(**ASK, store=False)

    assert response.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    assert client.responses.create(**ASK).to_dict()["store"] is True


def test_a_key_continues_and_sees_only_its_own(start: Start) -> None:
    server = start(api_keys=(MINE, YOURS))
    with sdk(server, MINE) as mine, sdk(server, YOURS) as yours:
        response = mine.responses.create(**ASK)

        for ask in (yours.responses.retrieve, yours.responses.delete, yours.responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                ask(response.id)
        with pytest.raises(openai.BadRequestError, match="not found"):
            yours.responses.create(**ASK, previous_response_id=response.id)
        with pytest.raises(openai.NotFoundError):
            mine.chat.completions.retrieve(response.id)
        assert mine.chat.completions.list().data == []
        assert mine.responses.retrieve(response.id) == response
    assert httpx.post(f"{server.url}/v1/responses", json=ASK).status_code == 401


def test_what_is_kept_names_the_proxy_and_can_be_replayed_and_rated(start: Start) -> None:
    server = start()
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.service.serving().reloader.table.names())

    given = post(server, metadata={"run": "7"}, proxy={"return_decisions": True}, instructions="Be short.").json()
    rated = httpx.post(f"{server.url}/v1/feedback", json={"completion_id": given["id"], "rating": 1, "consent": True})
    database = Database(f"sqlite:///{store_file(server.service.settings.home)}")
    row = Completions(database).get(owner_of(None), "response", given["id"])
    database.close()

    assert {name: given["proxy"][name] for name in ("id", "version", "accepted", "rejections", "forced")} == {
        "id": "helpful", "version": 1, "accepted": 8, "rejections": 16, "forced": 8,
    }  # fmt: skip
    assert len(given["proxy"]["decisions"]) == 8
    assert rated.status_code == 200
    assert row is not None
    assert (row.proxy, row.proxy_version, row.metadata) == ("helpful", 1, {"run": "7"})
    assert [turn["content"] for turn in row.prompt] == ["Be short.", "hello"]
    assert list(row.prompt_token_ids) == server.llm.tokenizer.apply_chat_template(list(row.prompt))
    assert server.llm.tokenizer.decode(row.choices[0].token_ids) == given["output"][0]["content"][0]["text"]
    assert (row.choices[0].num_rejected, row.sampling["max_tokens"]) == (16, 8)


def test_log_probabilities_come_when_included(server: RunningServer) -> None:
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = post(server, **fields).json()["output"][0]["content"][0]

    streamed = [entry for event in events(server, **fields) for entry in event.get("logprobs") or []]

    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    # Once by deltas and once, as a whole, in output_text.done.
    assert streamed == part["logprobs"] * 2
    assert post(server).json()["output"][0]["content"][0]["logprobs"] == []


SCHEMA = {"type": "object", "properties": {"n": {"enum": [4, 17]}}, "required": ["n"], "additionalProperties": False}


def test_the_form_of_the_text_is_kept(client: openai.OpenAI, server: RunningServer) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "figure", "schema": SCHEMA, "strict": True}}
    settings = ASK | {"max_output_tokens": 100, "text": wanted}

    whole = client.responses.create(**settings)
    streamed = events(server, **settings)
    free = client.responses.create(**ASK | {"input": "say json", "text": {"format": {"type": "json_object"}}})

    assert json.loads(whole.output_text)["n"] in (4, 17)
    assert whole.status == "completed"
    assert streamed[-1]["response"]["output"][0]["content"][0]["text"] == whole.output_text
    assert whole.to_dict()["text"] == wanted
    assert client.responses.retrieve(whole.id) == whole
    assert free.output_text.startswith("{")


def test_the_sdk_parses_a_response_into_a_model(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model="tiny", input="hello", max_output_tokens=200, text_format=Figure)

    assert parsed.output_parsed is not None
    assert parsed.output_parsed.n in (4, 17)


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [USER, {"role": "user"}]}, "input[1].content"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0]"),
        ({"input": "x" * 3_000}, "input"),
        ({"instructions": 5}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 10**9}, "input"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"n": 2}, "n"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_object"}}}, "input"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "objekt"}}}}, "text.format"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"proxy": {"p_t": 2}}, "proxy.p_t"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"previous_response_id": "resp_\0"}, "previous_response_id"),
    ],
)
def test_what_cannot_be_done_is_named(server: RunningServer, fields: dict[str, Any], param: str) -> None:
    body = {name: value for name, value in (ASK | fields).items() if value is not None}
    refused = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert "response_format" not in refused.json()["error"]["message"]


def test_ignored_fields_are_named(server: RunningServer) -> None:
    response = post(server, truncation="auto", max_tool_calls=3, max_tokens=1, include=["reasoning.encrypted_content"])

    assert response.headers["x-ignored-fields"] == "include,max_tokens,max_tool_calls,truncation"
    assert response.json()["usage"]["output_tokens"] == 8
    harmless = post(server, truncation="disabled", tools=[], tool_choice="auto", parallel_tool_calls=True, store=True)
    assert "x-ignored-fields" not in harmless.headers


def test_a_broken_answer_is_a_failed_response(server: RunningServer) -> None:
    server.engine.failures = 1
    whole = post(server)
    server.engine.step_seconds = 0.02
    with httpx.stream("POST", f"{server.url}/v1/responses", json=ASK | {"stream": True, "max_output_tokens": 50}) as it:
        lines = it.iter_lines()
        heard = [next(line for line in lines if "output_text.delta" in line and line.startswith("data"))]
        server.engine.failures = 1
        heard += [line for line in lines if line.startswith("data: ")]
    streamed = [json.loads(line.removeprefix("data: ")) for line in heard]

    assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
    last = streamed[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert (last["response"]["error"]["code"], last["response"]["store"]) == ("server_error", False)
    assert last["response"]["output"][0]["content"][0]["text"].startswith(streamed[0]["delta"])
    assert httpx.get(f"{server.url}/v1/responses/{last['response']['id']}").status_code == 404


def test_a_store_out_of_order_fails_demands_and_is_told_to_others(start: Start) -> None:
    server = start()
    other = sqlite3.connect(store_file(server.service.settings.home), isolation_level=None)
    other.execute("DROP TABLE completion_metadata")
    other.close()

    default, demanded = post(server, metadata={"a": "b"}), post(server, store=True, metadata={"a": "b"})
    streamed = events(server, metadata={"a": "b"})
    failed = events(server, store=True, metadata={"a": "b"})

    assert (default.status_code, default.json()["store"]) == (200, False)
    assert (demanded.status_code, demanded.json()["error"]["code"]) == (503, "store_unavailable")
    assert (streamed[-1]["type"], streamed[-1]["response"]["store"]) == ("response.incomplete", False)
    assert failed[-1]["type"] == "response.failed"


def test_with_the_store_off_responses_are_answered_and_not_kept(start: Start) -> None:
    server = start(store=False)

    default, demanded = post(server), post(server, store=True)

    assert (default.status_code, default.json()["store"]) == (200, False)
    assert "x-ignored-fields" not in default.headers
    assert demanded.headers["x-ignored-fields"] == "store"
    for refused in (
        httpx.get(f"{server.url}/v1/responses/{default.json()['id']}"),
        post(server, previous_response_id=default.json()["id"]),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "store_disabled")


def test_a_preference_may_be_between_a_response_and_a_chat_completion(server: RunningServer) -> None:
    response = post(server, max_output_tokens=3).json()["id"]
    chat = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(store=True)).json()["id"]

    given = httpx.post(f"{server.url}/v1/feedback", json={"preference": {"chosen_id": response, "rejected_id": chat}})

    assert given.status_code == 200
