"""How a server holds up under 1, 8, 32 and 128 streaming clients, and whether a long request starves short ones.

    python -m benchmarks.concurrency [--url http://127.0.0.1:8000] [--out FILE.json]

Without `--url` it starts `python -m server` with the demo LLM on a free port and stops it at the end. Everything goes
through HTTP and SSE. Answers are greedy under the default proxy, of a fixed length, and every prompt is another one.
Time to first token includes the wait in the queue: 128 clients are more than the server decodes at once.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import httpx

CLIENTS = (1, 8, 32, 128)
TOKENS = 32
MIN_REQUESTS = 8
"""So many answers at least per row, so that one client gives more than one time."""

LONG_WORDS, LONG_TOKENS = 700, 256
NUM_SHORT = 8
START_SECONDS = 300.0
_TIMEOUT = httpx.Timeout(None, connect=30)


@dataclass(frozen=True, slots=True)
class Heard:
    """One streamed answer; seconds since it was asked for."""

    first: float
    """Until the first text."""

    total: float
    longest_gap: float
    """Between two texts."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Level:
    """A row of the first table."""

    clients: int
    requests: int
    first_p50: float
    first_p95: float
    seconds_p50: float
    tokens_per_second: float
    """Of all clients together."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """A row of the second table: short requests beside a long one, or one of both alone."""

    what: str
    first_p50: float
    first_p95: float
    longest_gap: float
    seconds_p50: float


async def ask(client: httpx.AsyncClient, number: int, words: int, max_tokens: int) -> Heard:
    """Stream one answer to a prompt that nobody else sends."""
    content = f"Question {number}: " + "how do I bake bread? " * (words // 5)
    body = {
        "model": client.headers["x-model"],
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, times, tokens = time.perf_counter(), [], 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise RuntimeError(f"the answer broke off: {chunk['error']['message']}")
            if any(choice["delta"].get("content") for choice in chunk["choices"]):
                times.append(time.perf_counter() - began)
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return Heard(times[0], time.perf_counter() - began, max(gaps, default=0.0), tokens)


async def level(client: httpx.AsyncClient, num_clients: int) -> Level:
    """`num_clients` at once, each asking again as soon as it has its answer."""
    each = max(1, MIN_REQUESTS // num_clients)

    async def one(number: int) -> list[Heard]:
        return [await ask(client, 1000 * num_clients + 10 * number + turn, 10, TOKENS) for turn in range(each)]

    began = time.perf_counter()
    heard = [answer for answers in await asyncio.gather(*map(one, range(num_clients))) for answer in answers]
    seconds = time.perf_counter() - began
    return Level(
        clients=num_clients,
        requests=len(heard),
        first_p50=_quantile([answer.first for answer in heard], 50),
        first_p95=_quantile([answer.first for answer in heard], 95),
        seconds_p50=_quantile([answer.total for answer in heard], 50),
        tokens_per_second=sum(answer.tokens for answer in heard) / seconds,
    )


async def fairness(client: httpx.AsyncClient) -> list[Fairness]:
    """The short ones alone, the long one alone, and both together."""

    async def short(number: int) -> list[Heard]:
        return [await ask(client, 900_000 + 10 * number + turn, 10, TOKENS) for turn in range(4)]

    async def shorts() -> list[Heard]:
        return [answer for answers in await asyncio.gather(*map(short, range(NUM_SHORT))) for answer in answers]

    alone = await shorts()
    long_alone = await ask(client, 910_000, LONG_WORDS, LONG_TOKENS)
    long_beside = asyncio.create_task(ask(client, 920_000, LONG_WORDS, LONG_TOKENS))
    await asyncio.sleep(0)
    beside = await shorts()
    return [
        _fairness(f"{NUM_SHORT} short clients alone", alone),
        _fairness(f"{NUM_SHORT} short clients beside the long one", beside),
        _fairness("the long one alone", [long_alone]),
        _fairness("the long one beside the short ones", [await long_beside]),
    ]


async def measure(url: str) -> tuple[list[Level], list[Fairness]]:
    """All rows, after a warm-up."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, limits=limits) as client:
        if key := os.environ.get("OPENAI_API_KEY"):
            client.headers["authorization"] = f"Bearer {key}"
        models = (await client.get("/v1/models")).raise_for_status().json()["data"]
        client.headers["x-model"] = models[0]["id"]
        await ask(client, 0, 10, TOKENS)
        levels = [await level(client, num_clients) for num_clients in CLIENTS]
        return levels, await fairness(client)


@contextmanager
def served() -> Iterator[str]:
    """The address of a server of the demo LLM, which ends with the block."""
    command = [sys.executable, "-m", "server", "--port", "0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        try:
            while (found := re.search(r"ready on (\S+)", process.stdout.readline())) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the server did not start")
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)


def report(levels: Sequence[Level], rows: Sequence[Fairness]) -> str:
    """Both tables as Markdown."""
    lines = ["| streaming clients | answers | first token p50, s | p95, s | whole answer p50, s | tokens/s, all |"]
    lines.append("|---:|---:|---:|---:|---:|---:|")
    for row in levels:
        times = f"{row.first_p50:.2f} | {row.first_p95:.2f} | {row.seconds_p50:.2f}"
        lines.append(f"| {row.clients} | {row.requests} | {times} | {row.tokens_per_second:.0f} |")
    lines += ["", "| | first token p50, s | p95, s | longest gap in a stream, s | whole answer p50, s |"]
    lines.append("|---|---:|---:|---:|---:|")
    for fair in rows:
        times = f"{fair.first_p50:.2f} | {fair.first_p95:.2f} | {fair.longest_gap:.2f} | {fair.seconds_p50:.2f}"
        lines.append(f"| {fair.what} | {times} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a running server; its key comes from OPENAI_API_KEY")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    if arguments.url:
        levels, rows = asyncio.run(measure(arguments.url))
    else:
        with served() as url:
            levels, rows = asyncio.run(measure(url))
    print(report(levels, rows))
    if arguments.out is not None:
        found = {"levels": [asdict(row) for row in levels], "fairness": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _fairness(what: str, heard: Sequence[Heard]) -> Fairness:
    firsts = [answer.first for answer in heard]
    longest_gap = max(answer.longest_gap for answer in heard)
    total = _quantile([answer.total for answer in heard], 50)
    return Fairness(what, _quantile(firsts, 50), _quantile(firsts, 95), longest_gap, total)


def _quantile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` in 100 do not exceed."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    main()
