"""POST, GET and DELETE /v1/feedback on stored answers."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy_model.paths import store_file
from store.completions import Completions
from store.database import Database
from store.training import preferred_answers, rated_answers
from tests.server.conftest import RunningServer

Start = Callable[..., RunningServer]
MINE, YOURS = "sk-mine-1111", "sk-yours-2222"


def stored(server: RunningServer, content: str = "hello", **fields: Any) -> str:
    answer_id: str = server.chat(content, store=True, **fields).json()["id"]
    return answer_id


def give(server: RunningServer, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/feedback", json=body)


def listed(server: RunningServer, query: str = "") -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = httpx.get(f"{server.url}/v1/feedback{query}").json()["data"]
    return data


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, llm: Any) -> Any:
    """One server for what is refused."""
    from server.settings import Settings
    from tests.server.conftest import PATIENCE_SECONDS, _start

    running = _start(llm, Settings(home=tmp_path_factory.mktemp("home"), port=0))
    yield running
    running.server.should_exit = True
    running.thread.join(PATIENCE_SECONDS)


def test_a_rating_is_kept_once_and_can_change(server: RunningServer) -> None:
    about = stored(server)

    first = give(server, completion_id=about, rating=-1).json()
    again = give(server, completion_id=about, rating=-1).json()
    changed = give(server, completion_id=about, rating=1, consent=True).json()

    assert first == again
    assert first | {"rating": 1, "consent": True} == changed
    assert listed(server) == [changed]
    assert httpx.get(f"{server.url}/v1/feedback/{first['id']}").json() == changed
    assert (first["object"], first["type"], first["completion_id"], first["choice"]) == ("feedback", "rating", about, 0)


def test_what_was_given_with_consent_reaches_the_trainer(server: RunningServer) -> None:
    answer = server.chat(store=True, n=2, temperature=1.5, seed=1).json()
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    other = server.chat(store=True, temperature=1.5, seed=9, model="tiny:base").json()
    preference = {"chosen_id": other["id"], "rejected_id": answer["id"], "rejected_choice": 1}
    give(server, preference=preference, consent=True)
    give(server, completion_id=answer["id"], choice=1, correction="Good day.", consent=True)
    give(server, completion_id=answer["id"], rating=1, consent=True)
    give(server, completion_id=other["id"], rating=-1)

    database = Database(f"sqlite:///{store_file(server.service.settings.home)}")
    kept = Completions(database)
    rated, preferred = list(rated_answers(database, kept)), list(preferred_answers(database, kept))
    database.close()

    assert [(row.answer.text, row.rating) for row in rated] == [(texts[0], 1)]
    assert [(row.chosen, row.rejected, row.source) for row in preferred] == [
        (other["choices"][0]["message"]["content"], texts[1], "preference"),
        ("Good day.", texts[1], "correction"),
    ]
    assert all(row.prompt == ({"role": "user", "content": "hello"},) for row in preferred)


def test_lists_are_paged_and_by_completion(server: RunningServer) -> None:
    first, second = stored(server, temperature=1.5, seed=1), stored(server, temperature=1.5, seed=2)
    given = [
        give(server, completion_id=first, rating=1).json()["id"],
        give(server, completion_id=second, rating=1).json()["id"],
        give(server, preference={"chosen_id": first, "rejected_id": second}).json()["id"],
    ]

    page = httpx.get(f"{server.url}/v1/feedback?limit=2").json()

    assert (page["has_more"], page["last_id"], [row["id"] for row in page["data"]]) == (True, given[1], given[:2])
    assert [row["id"] for row in listed(server, f"?after={given[1]}")] == given[2:]
    assert [row["id"] for row in listed(server, f"?completion_id={second}&order=desc")] == [given[2], given[1]]


def test_deleting_feedback_or_its_completion_deletes_it(server: RunningServer) -> None:
    about = stored(server)
    rating = give(server, completion_id=about, rating=1).json()["id"]
    give(server, completion_id=about, correction="Good day.")

    deleted = httpx.delete(f"{server.url}/v1/feedback/{rating}")

    assert deleted.json() == {"object": "feedback.deleted", "id": rating, "deleted": True}
    assert [row["type"] for row in listed(server)] == ["correction"]
    for ask in (httpx.delete, httpx.get):
        assert ask(f"{server.url}/v1/feedback/{rating}").status_code == 404
    httpx.delete(f"{server.url}/v1/chat/completions/{about}").raise_for_status()
    assert listed(server) == []


def test_keys_do_not_see_each_others(start: Start) -> None:
    server = start(api_keys=(MINE, YOURS))

    def call(key: str, method: str, path: str, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.request(method, f"{server.url}/v1/{path}", json=body or None, headers=headers, timeout=60)

    messages = [{"role": "user", "content": "hi"}]
    answer = call(MINE, "POST", "chat/completions", model="tiny", messages=messages, max_tokens=2, store=True).json()
    rating = call(MINE, "POST", "feedback", completion_id=answer["id"], rating=1).json()

    refused = call(YOURS, "POST", "feedback", completion_id=answer["id"], rating=-1)

    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "completion_id")
    assert call(YOURS, "GET", "feedback").json()["data"] == []
    assert call(YOURS, "GET", f"feedback/{rating['id']}").status_code == 404
    assert call(YOURS, "DELETE", f"feedback/{rating['id']}").status_code == 404
    assert call(MINE, "GET", f"feedback/{rating['id']}").json()["rating"] == 1
    assert httpx.get(f"{server.url}/v1/feedback").status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "rating"),
        ({"completion_id": "ID"}, 400, "rating"),
        ({"completion_id": "ID", "rating": 1, "correction": "x"}, 400, "rating"),
        ({"completion_id": "ID", "rating": 0}, 400, "rating"),
        ({"completion_id": "ID", "rating": 5}, 400, "rating"),
        ({"completion_id": "ID", "rating": True}, 400, "rating"),
        ({"completion_id": "ID", "rating": "1"}, 400, "rating"),
        ({"completion_id": "ID", "rating": 1.0}, 400, "rating"),
        ({"rating": 1}, 400, "completion_id"),
        ({"completion_id": "ID", "correction": ""}, 400, "correction"),
        ({"completion_id": "ID", "correction": " \n"}, 400, "correction"),
        ({"completion_id": "ID", "correction": "x" * 100_001}, 400, "correction"),
        ({"completion_id": "ID", "rating": 1, "choice": -1}, 400, "choice"),
        ({"completion_id": "ID", "rating": 1, "consent": "yes"}, 400, "consent"),
        ({"completion_id": "ID", "rating": 1, "colour": 1}, 400, "colour"),
        ({"completion_id": "ID", "rating": 1, "choice": 1}, 404, "completion_id"),
        ({"completion_id": "chatcmpl-\0", "rating": 1}, 404, "completion_id"),
        ({"preference": {"chosen_id": "ID"}}, 400, "preference.rejected_id"),
        ({"completion_id": "ID", "preference": {"chosen_id": "ID", "rejected_id": "SAME"}}, 400, "completion_id"),
        ({"preference": {"chosen_id": "ID", "rejected_id": "ID"}}, 400, "preference"),
        ({"preference": {"chosen_id": "ID", "rejected_id": "SAME"}}, 400, "preference"),
        ({"preference": {"chosen_id": "ID", "rejected_id": "OTHER"}}, 400, "preference"),
        ({"preference": {"chosen_id": "none", "rejected_id": "ID"}}, 404, "preference.chosen_id"),
        ({"preference": {"chosen_id": "ID", "rejected_id": "none"}}, 404, "preference.rejected_id"),
    ],
)
def test_wrong_feedback_is_refused_by_name(
    shared: RunningServer, names: dict[str, str], body: dict[str, Any], status: int, param: str
) -> None:
    filled = json.dumps(body)
    for name, stored_id in names.items():
        filled = filled.replace(f'"{name}"', f'"{stored_id}"')

    refused = give(shared, **json.loads(filled))

    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)
    assert listed(shared) == []


@pytest.fixture(scope="module")
def names(shared: RunningServer) -> dict[str, str]:
    """`ID`, another one with the `SAME` text, and one of an `OTHER` prompt."""
    return {"ID": stored(shared), "SAME": stored(shared), "OTHER": stored(shared, "bye")}


def test_with_the_store_off_feedback_is_refused(start: Start) -> None:
    refused = give(start(store=False), completion_id="x", rating=1)

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "store_disabled")
