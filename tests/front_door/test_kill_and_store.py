"""`kill -9` of the server while it stores answers and feedback: what it had acknowledged is there afterwards."""

import asyncio
from dataclasses import dataclass, field

import httpx

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess

NUM_CLIENTS = 8
NUM_BEFORE_THE_KILL = 40


@dataclass
class Acknowledged:
    """What the server said that it keeps."""

    answers: dict[str, str] = field(default_factory=dict)
    """Text by id."""

    feedback: dict[str, str] = field(default_factory=dict)
    """Completion by id."""


async def fill(server: ServerProcess) -> Acknowledged:
    """Store answers and rate each, from several clients; the server is killed in the middle of that."""
    acknowledged = Acknowledged()
    enough = asyncio.Event()

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            while True:
                await store_and_rate(http, number, acknowledged)
                if len(acknowledged.feedback) >= NUM_BEFORE_THE_KILL:
                    enough.set()

    clients = [asyncio.create_task(client(number)) for number in range(NUM_CLIENTS)]
    await enough.wait()
    server.kill()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ends), ends
    return acknowledged


async def store_and_rate(http: httpx.AsyncClient, number: int, acknowledged: Acknowledged) -> None:
    body = {"model": LLM, "messages": [{"role": "user", "content": f"calm {number}"}], "max_tokens": 8, "store": True}
    answer = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
    acknowledged.answers[answer["id"]] = answer["choices"][0]["message"]["content"]
    rating = {"completion_id": answer["id"], "rating": 1}
    kept = (await http.post("/v1/feedback", json=rating)).raise_for_status().json()
    acknowledged.feedback[kept["id"]] = answer["id"]


def test_what_was_acknowledged_is_there_after_a_kill(start: StartServer, publisher: RankPublisher) -> None:
    publisher.publish()
    acknowledged = asyncio.run(fill(start()))

    second = start()

    assert len(acknowledged.feedback) >= NUM_BEFORE_THE_KILL
    for completion_id, text in acknowledged.answers.items():
        found = second.get(f"/v1/chat/completions/{completion_id}")
        assert (found.status_code, found.json()["choices"][0]["message"]["content"]) == (200, text)
    for feedback_id, completion_id in acknowledged.feedback.items():
        found = second.get(f"/v1/feedback/{feedback_id}")
        assert (found.status_code, found.json()["completion_id"]) == (200, completion_id)
    assert not [line for line in second.log() if line["level"] in ("error", "critical")]
