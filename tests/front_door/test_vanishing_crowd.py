"""1,000 clients that vanish at random moments, 10,000 requests in all: nothing is held, nothing leaks."""

import asyncio
import json
import os
import random
from collections import Counter
from dataclasses import astuple, dataclass
from typing import Any

import psutil
import pytest

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, eventually

NUM_CLIENTS = 1000
NUM_AT_ONCE = 100
REQUESTS_EACH = 10
WARM_UP_CLIENTS = 100
POOL_THREADS = min(32, 4 + (os.cpu_count() or 1))
"""asyncio's own pool, which files are read in: it adds a thread whenever none is idle, up to this, and keeps them."""

MAX_GROWTH_BYTES = 32 << 20
"""Allocators keep some; a leak of 5 kB a request would be 50 MB."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the server's process holds."""

    memory_bytes: int
    threads: int
    files: int


@pytest.fixture
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    """With a queue that takes the whole crowd."""
    publisher.publish()
    return start("--max-running", "32", "--max-waiting", "1000")


def held(server: ServerProcess) -> Held:
    process = psutil.Process(server.process.pid)
    return Held(process.memory_info().rss, process.num_threads(), process.num_fds())


def request(chance: random.Random) -> bytes:
    """A whole or a streamed answer of up to 120 tokens, of one choice or of three."""
    body: dict[str, Any] = {
        "model": chance.choice([LLM, f"{LLM}:base"]),
        "messages": [{"role": "user", "content": "calm " * chance.randrange(1, 20)}],
        "max_tokens": chance.randrange(1, 120),
        "stream": chance.random() < 0.6,
        "n": chance.choice([1, 1, 1, 3]),
        "ignore_eos": True,
    }
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n"
    return head.encode() + b"content-type: application/json\r\nconnection: close\r\n\r\n" + data


async def one(port: int, chance: random.Random) -> str:
    """Send a request and hang up: within it, at once, after a while, after some bytes, or not before its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = request(chance)
    end = chance.choice(["within", "at once", "after a while", "after some bytes", "by itself"])
    try:
        writer.write(data[: chance.randrange(len(data))] if end == "within" else data)
        await writer.drain()
        if end == "after a while":
            await asyncio.sleep(chance.random() * 0.3)
        elif end == "after some bytes":
            await reader.read(chance.randrange(1, 2000))
        elif end == "by itself":
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
            assert answer.rstrip().endswith((b"[DONE]", b"}", b"0")), answer[-100:]
    finally:
        writer.transport.abort() if chance.random() < 0.5 else writer.close()
    return end


async def crowd(port: int, num_clients: int) -> Counter[str]:
    """How the requests of all clients ended."""
    gate = asyncio.Semaphore(NUM_AT_ONCE)

    async def client(number: int) -> list[str]:
        chance = random.Random(number)
        async with gate:
            return [await one(port, chance) for _ in range(REQUESTS_EACH)]

    return Counter(end for ends in await asyncio.gather(*map(client, range(num_clients))) for end in ends)


async def watched_crowd(server: ServerProcess, num_clients: int) -> tuple[Counter[str], Held]:
    """How the requests ended, and the most of each that the server held meanwhile."""
    seen = [held(server)]

    async def watch() -> None:
        while True:
            seen.append(held(server))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    ends = await crowd(_port(server), num_clients)
    watching.cancel()
    most = Held(*(max(values) for values in zip(*map(astuple, seen), strict=True)))
    return ends, most


def quiet(server: ServerProcess) -> bool:
    return server.metric("num_requests_running") == server.metric("num_requests_waiting") == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_requests_leave_nothing_behind(server: ServerProcess) -> None:
    asyncio.run(crowd(_port(server), WARM_UP_CLIENTS))
    eventually(lambda: quiet(server), "quiet after the warm-up")
    before = held(server)

    ends, most = asyncio.run(watched_crowd(server, NUM_CLIENTS))

    eventually(lambda: quiet(server), "free slots", 10)
    after = held(server)
    assert ends.total() == NUM_CLIENTS * REQUESTS_EACH
    assert min(ends.values()) > 1500
    assert most.threads < before.threads + POOL_THREADS  # at no time one for each client
    assert after.files <= before.files
    assert after.memory_bytes - before.memory_bytes < MAX_GROWTH_BYTES
    assert not [line for line in server.log() if line["level"] in ("error", "critical")]
    print(f"\n{ends.total()} requests: {before} -> {after}, at most {most}")


def _port(server: ServerProcess) -> int:
    return int(server.url.rpartition(":")[2])
