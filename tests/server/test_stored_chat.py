"""Chat completions that were asked to be stored, through the OpenAI SDK: whole and streamed, in pages, by owner."""

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import store_file
from server.backends.local import LocalBackend
from server.service import Service
from server.settings import Settings
from store.completions import Completions
from store.database import Database, owner_of
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import PacedEngine, picky_policy, publish

MINE, YOURS = "sk-mine-1111", "sk-yours-2222"
Start = Callable[..., RunningServer]


def sdk(server: RunningServer, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with sdk(server) as client:
        yield client


def stored(client: openai.OpenAI, content: str = "hello", **fields: Any) -> Any:
    return client.chat.completions.create(**chat_body(content, store=True, **fields))


def test_a_stored_answer_is_retrieved_as_it_was_given(client: openai.OpenAI) -> None:
    given = stored(client, metadata={"team": "x"}, temperature=0.7, seed=3, n=2, logprobs=True, user="u1")

    found = client.chat.completions.retrieve(given.id)

    assert found.choices == given.choices
    assert (found.usage, found.created, found.system_fingerprint) == (
        given.usage,
        given.created,
        given.system_fingerprint,
    )
    shown = found.to_dict()
    assert (shown["metadata"], shown["temperature"], shown["seed"], shown["input_user"]) == (
        {"team": "x"},
        0.7,
        3,
        "u1",
    )


def test_a_streamed_answer_is_there_when_its_last_finish_reason_has_been_read(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"n": 2, "seed": 4, "temperature": 1.5}
    stream = client.chat.completions.create(**chat_body(stream=True, store=True, **fields))
    chunk = next(stream)
    num_finished = 0

    while num_finished < 2:
        chunk = next(stream)
        num_finished += sum(choice.finish_reason is not None for choice in chunk.choices)
    found = client.chat.completions.retrieve(chunk.id)
    stream.close()

    whole = client.chat.completions.create(**chat_body(**fields))
    assert [choice.message for choice in found.choices] == [choice.message for choice in whole.choices]
    assert found.usage is not None
    assert whole.usage is not None
    assert found.usage.total_tokens == whole.usage.total_tokens


def test_what_was_not_asked_to_be_stored_is_not(client: openai.OpenAI) -> None:
    given = [client.chat.completions.create(**chat_body(store=store, metadata={"a": "b"})) for store in (None, False)]

    assert client.chat.completions.list().data == []
    for answer in given:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(answer.id)


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(start: Start) -> None:
    server = start()
    server.engine.step_seconds = 0.02
    with sdk(server) as client:
        stream = client.chat.completions.create(**chat_body(stream=True, store=True, max_tokens=200))
        answer_id = next(iter(stream)).id
        stream.close()
        eventually(lambda: server.metric("num_requests_running") == 0)
        server.engine.step_seconds = 0.0

        assert client.chat.completions.list().data == []
        with pytest.raises(openai.NotFoundError, match="no stored chat completion"):
            client.chat.completions.retrieve(answer_id)


def test_the_sdk_pages_through_the_list_in_both_orders_and_filters(client: openai.OpenAI) -> None:
    labels = [{"run": "1", "odd key]": "a=b&c"}, {"run": "2"}, {"run": "1"}, {}, {"run": "1"}]
    given = [stored(client, max_tokens=1, metadata=metadata) for metadata in labels]
    base = stored(client, max_tokens=1, model="tiny:base", metadata={"run": "1"})
    names = [answer.id for answer in [*given, base]]

    listed = client.chat.completions.list

    assert [answer.id for answer in listed(limit=2)] == names
    assert [answer.id for answer in listed(limit=4, order="desc")] == names[::-1]
    assert [answer.id for answer in listed(limit=1, metadata={"run": "1"})] == [names[0], names[2], names[4], names[5]]
    assert [answer.id for answer in listed(metadata={"run": "1", "odd key]": "a=b&c"})] == names[:1]
    assert [answer.id for answer in listed(metadata={"run": "1"}, model="tiny")] == [names[0], names[2], names[4]]
    assert [answer.id for answer in listed(model="tiny:base")] == names[5:]
    page = listed(limit=2)
    assert (page.has_more, (page.model_extra or {})["first_id"], (page.model_extra or {})["last_id"]) == (
        True,
        names[0],
        names[1],
    )


def test_labels_are_updated_and_completions_deleted(client: openai.OpenAI) -> None:
    given = stored(client, metadata={"run": "1"})

    updated = client.chat.completions.update(given.id, metadata={"run": "2", "note": "\0"})
    emptied = client.chat.completions.update(given.id, metadata=None)
    deleted = client.chat.completions.delete(given.id)

    assert updated.choices == given.choices
    assert updated.to_dict()["metadata"] == {"run": "2", "note": "\0"}
    assert emptied.to_dict()["metadata"] == {}
    assert (deleted.id, deleted.deleted, deleted.object) == (given.id, True, "chat.completion.deleted")
    for again in (client.chat.completions.retrieve, client.chat.completions.delete):
        with pytest.raises(openai.NotFoundError):
            again(given.id)


def test_the_messages_of_a_completion_are_listed(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be short.", "name": "boss"},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "user", "content": parts},
    ]
    given = stored(client, messages=messages)

    listed = list(client.chat.completions.messages.list(given.id, limit=2))
    reverse = list(client.chat.completions.messages.list(given.id, order="desc", after=listed[2].id))

    assert [(message.role, message.content) for message in listed] == [
        ("system", "Be short."),
        ("assistant", None),
        ("user", "hello"),
    ]
    assert [message.refusal for message in listed] == [None, "no", None]
    assert json.loads(listed[2].to_json())["content_parts"] == parts
    assert len({message.id for message in listed}) == 3
    assert reverse == [listed[1], listed[0]]


def test_a_key_sees_its_own_and_nothing_of_others(start: Start) -> None:
    server = start(api_keys=(MINE, YOURS))
    with sdk(server, MINE) as mine, sdk(server, YOURS) as yours:
        given = stored(mine)

        assert mine.chat.completions.retrieve(given.id).id == given.id
        assert yours.chat.completions.list().data == []
        for ask in (
            lambda: yours.chat.completions.retrieve(given.id),
            lambda: yours.chat.completions.update(given.id, metadata={}),
            lambda: yours.chat.completions.delete(given.id),
            lambda: yours.chat.completions.messages.list(given.id),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                ask()
            assert refused.value.code == "not_found"
        with pytest.raises(openai.BadRequestError):
            yours.chat.completions.list(after=given.id)
        assert httpx.get(f"{server.url}/v1/chat/completions").status_code == 401
        assert mine.chat.completions.retrieve(given.id).id == given.id


def test_the_store_holds_a_hash_of_the_key_and_all_that_a_replay_needs(start: Start) -> None:
    server = start(api_keys=(MINE,))
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.service.serving().reloader.table.names())
    with sdk(server, MINE) as client:
        given = stored(client, temperature=0.5, seed=11, extra_body={"proxy": {"p_t": 0.25}}, metadata={"a": "b"})
    file = store_file(server.service.settings.home)
    assert MINE.encode() not in b"".join(path.read_bytes() for path in file.parent.glob("store.sqlite3*"))

    database = Database(f"sqlite:///{file}")
    row = Completions(database).get(owner_of(MINE), "chat.completion", given.id)
    database.close()

    assert row is not None
    tokenizer = server.llm.tokenizer
    assert row.prompt == ({"role": "user", "content": "hello"},)
    assert list(row.prompt_token_ids) == tokenizer.apply_chat_template(list(row.prompt))
    assert (row.proxy, row.proxy_version, row.system_fingerprint) == ("helpful", 1, given.system_fingerprint)
    assert (row.sampling["temperature"], row.sampling["seed"], row.sampling["p_t"]) == (0.5, 11, 0.25)
    [choice] = row.choices
    assert choice.text == given.choices[0].message.content == tokenizer.decode(choice.token_ids)
    assert (len(choice.token_ids), choice.finish_reason) == (8, "length")
    counts = (given.model_extra or {})["proxy"]
    assert (choice.num_accepted, choice.num_rejected, choice.num_forced) == (
        counts["accepted"],
        counts["rejections"],
        counts["forced"],
    )
    assert row.request["proxy"] == {"p_t": 0.25}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("order=sideways", "order"),
        ("after=chatcmpl-none", "after"),
        ("&".join(f"metadata[{number}]=x" for number in range(17)), "metadata"),
    ],
)
def test_a_wrong_query_is_named(server: RunningServer, query: str, param: str) -> None:
    response = httpx.get(f"{server.url}/v1/chat/completions?{query}")

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({str(number): "x" for number in range(17)}, "metadata"),
        ({"k" * 65: "x"}, "metadata"),
        ({"": "x"}, "metadata"),
        ({"k": "v" * 513}, "metadata.k"),
        ({"k": 1}, "metadata.k"),
    ],
)
def test_labels_out_of_bounds_are_refused(server: RunningServer, metadata: dict[str, Any], param: str) -> None:
    refused = server.chat(store=True, metadata=metadata)

    assert (refused.status_code, refused.json()["error"]["param"][: len(param)]) == (400, param)


def test_with_the_store_off_nothing_is_kept_and_it_is_said(start: Start) -> None:
    server = start(store=False)
    answer = server.chat(store=True)

    assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "store")
    for path in ("", f"/{answer.json()['id']}"):
        refused = httpx.get(f"{server.url}/v1/chat/completions{path}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "store_disabled")
    assert not store_file(server.service.settings.home).exists()
    strict = start(store=False, strict=True).chat(store=True)
    assert (strict.status_code, strict.json()["error"]["param"]) == (400, "store")


def test_a_broken_store_fails_only_who_asked_to_store(start: Start, tmp_path: Path, caplog: Any) -> None:
    file = store_file(tmp_path)
    file.write_bytes(b"this is no database " * 400)
    with caplog.at_level(logging.ERROR):
        server = start()

        refused = server.chat(store=True)
        streamed = httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(stream=True, store=True))
        listed = httpx.get(f"{server.url}/v1/chat/completions")

    for response in (refused, listed):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
        assert int(response.headers["retry-after"]) >= 1
        assert "sqlite" not in response.text
    *_, last, done = streamed.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "store_unavailable"
    assert done == "data: [DONE]"
    assert 'finish_reason":"length' not in streamed.text
    assert server.chat().status_code == 200
    assert any("not a database" in getattr(record, "reason", "") for record in caplog.records)
    assert httpx.get(f"{server.url}/ready").status_code == 200

    file.unlink()
    assert server.chat(store=True).status_code == 200
    assert len(httpx.get(f"{server.url}/v1/chat/completions").json()["data"]) == 1


def test_a_locked_store_holds_up_only_who_stores(start: Start) -> None:
    server = start()
    answers: list[httpx.Response] = []
    other = sqlite3.connect(store_file(server.service.settings.home), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    storing = threading.Thread(target=lambda: answers.append(server.chat(store=True)))
    storing.start()

    assert [server.chat().status_code for _ in range(3)] == [200, 200, 200]
    assert answers == []

    other.execute("ROLLBACK")
    other.close()
    storing.join()
    assert answers[0].status_code == 200
    assert httpx.get(f"{server.url}/v1/chat/completions/{answers[0].json()['id']}").status_code == 200


def test_a_store_of_a_later_release_stops_the_start(llm: FrozenLLM, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{store_file(tmp_path)}")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE store_version SET version = 99")
    database.close()
    service = Service(Settings(home=tmp_path), LocalBackend(lambda: PacedEngine(llm, EngineConfig())))
    failures: list[BaseException] = []
    service.on_failure = failures.append

    asyncio.run(service.run())

    assert "schema version 99" in str(failures[0])
