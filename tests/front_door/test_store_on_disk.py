"""Two servers over one store, one of which is killed while it writes: on SQLite and on a real Postgres."""

import sqlite3
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.server_process import ServerProcess

KEY = "sk-mine-1111"
ASK: dict[str, Any] = {"model": f"{LLM}:base", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
NUM_WRITERS = 3


@pytest.fixture(scope="module")
def environment(store_environment: dict[str, str]) -> dict[str, str]:
    """The settings of servers that share a store."""
    return {"PROXY_RLHF_API_KEYS": KEY} | store_environment


@dataclass
class Writer:
    """Stores and rates until the server is gone; notes only what was acknowledged."""

    url: str
    completions: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    ratings: list[str] = field(default_factory=list)

    def run(self) -> None:
        try:
            while True:
                self._write_once()
        except httpx.TransportError:
            return

    def _write_once(self) -> None:
        completion = self._post("chat/completions", ASK | {"store": True})
        self.completions.append(completion)
        self.ratings.append(self._post("feedback", {"completion_id": completion, "rating": 1}))
        self.responses.append(
            self._post("responses", {"model": ASK["model"], "input": "hello", "max_output_tokens": 4, "store": True})
        )

    def _post(self, path: str, body: dict[str, Any]) -> str:
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{self.url}/v1/{path}", json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        found: str = answer.json()["id"]
        return found


def client_of(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def test_what_was_acknowledged_survives_a_kill_and_is_seen_by_every_server(
    start: StartServer, environment: dict[str, str], home: Path
) -> None:
    flags = ("--max-context", "512")
    victim, other = start(*flags, **environment), start(*flags, **environment)
    writers = [Writer(server.url) for server in (victim, victim, other) for _ in range(NUM_WRITERS)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    time.sleep(3)

    victim.kill()
    time.sleep(1)
    with client_of(other) as client:
        completions = [name for writer in writers for name in list(writer.completions)]
        responses = [name for writer in writers for name in list(writer.responses)]
        ratings = [name for writer in writers for name in list(writer.ratings)]
        assert min(len(writer.completions) for writer in writers) > 0
        listed = {answer.id for answer in client.chat.completions.list(limit=100)}
        assert set(completions) <= listed
        assert {client.responses.retrieve(name).id for name in responses[::5]} == set(responses[::5])
    kept = {row["id"] for row in all_feedback(other)}
    assert set(ratings) <= kept

    other.kill()
    for thread in threads:
        thread.join()
    restarted = start(*flags, **environment)
    completions = [name for writer in writers for name in writer.completions]
    with client_of(restarted) as client:
        assert set(completions) <= {answer.id for answer in client.chat.completions.list(limit=100)}
        for name in [name for writer in writers for name in writer.responses][::3]:
            assert client.responses.retrieve(name).output_text
    assert {name for writer in writers for name in writer.ratings} <= {row["id"] for row in all_feedback(restarted)}
    if "PROXY_RLHF_STORE_URL" not in environment:
        with sqlite3.connect(home / "store.sqlite3") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    restarted.kill()


def all_feedback(server: ServerProcess) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after = ""
    while True:
        page = server.get(f"/v1/feedback?limit=100{after}").json()
        rows += page["data"]
        if not page["has_more"]:
            return rows
        after = f"&after={page['last_id']}"
