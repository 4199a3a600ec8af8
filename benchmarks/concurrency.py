"""How a server holds up under 1, 8, 32 and 128 streaming clients, and whether a long request starves short ones.

    python -m benchmarks.concurrency [--url http://127.0.0.1:8000] [--out FILE.json]

Without `--url` it starts `proxy-rlhf serve` with the demo LLM on a free port and stops it at the end. Everything goes
through HTTP and SSE. Answers are greedy under the default proxy, of a fixed length, and every prompt is another one.
Time to first token includes the wait in the queue: 128 clients are more than the server decodes at once.

Every level is warmed up, then rounds go over all of them in turn, so that a busy moment of the machine falls on each. A
cell is the median over the rounds with its quartiles. It takes some four minutes on two quiet cores.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import count, pairwise
from pathlib import Path

import httpx

from benchmarks.served import served

CLIENTS = (1, 8, 32, 128)
ROUNDS = 5
TOKENS = 32
WARM_UP_TOKENS = 4
MIN_REQUESTS = 4
"""So many answers at least per level and round, so that one client gives more than one time."""

FAIRNESS_ROUNDS = 3
LONG_WORDS, LONG_TOKENS = 700, 256
NUM_SHORT = 8
SHORT_EACH = 2
_TIMEOUT = httpx.Timeout(None, connect=30)
_NUMBERS = count()
"""Of the prompts."""


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
    """So many clients in one round."""

    first_p50: float
    first_p95: float
    seconds_p50: float
    tokens_per_second: float
    """Of all clients together."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """Short requests beside a long one, or one of both alone, in one round."""

    first_p50: float
    first_p95: float
    longest_gap: float
    seconds_p50: float


Row = Level | Fairness


async def ask(client: httpx.AsyncClient, max_tokens: int, words: int = 10) -> Heard:
    """Stream one answer to a prompt that nobody else sends."""
    content = f"Question {next(_NUMBERS)}: " + "how do I bake bread? " * (words // 5)
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


async def at_once(client: httpx.AsyncClient, num_clients: int, each: int, max_tokens: int) -> list[Heard]:
    """What `num_clients` hear who ask `each` times, again as soon as they have their answer."""

    async def one() -> list[Heard]:
        return [await ask(client, max_tokens) for _ in range(each)]

    return [heard for answers in await asyncio.gather(*(one() for _ in range(num_clients))) for heard in answers]


async def level(client: httpx.AsyncClient, num_clients: int) -> Level:
    """One level of one round."""
    began = time.perf_counter()
    heard = await at_once(client, num_clients, max(1, MIN_REQUESTS // num_clients), TOKENS)
    seconds = time.perf_counter() - began
    return Level(
        first_p50=_quantile([answer.first for answer in heard], 50),
        first_p95=_quantile([answer.first for answer in heard], 95),
        seconds_p50=_quantile([answer.total for answer in heard], 50),
        tokens_per_second=sum(answer.tokens for answer in heard) / seconds,
    )


async def fairness(client: httpx.AsyncClient) -> dict[str, Fairness]:
    """The short ones alone, the long one alone, and both together."""
    alone = await at_once(client, NUM_SHORT, SHORT_EACH, TOKENS)
    long_alone = await ask(client, LONG_TOKENS, LONG_WORDS)
    long_beside = asyncio.create_task(ask(client, LONG_TOKENS, LONG_WORDS))
    await asyncio.sleep(0)
    beside = await at_once(client, NUM_SHORT, SHORT_EACH, TOKENS)
    return {
        f"{NUM_SHORT} short clients alone": _fairness(alone),
        f"{NUM_SHORT} short clients beside the long one": _fairness(beside),
        "the long one alone": _fairness([long_alone]),
        "the long one beside the short ones": _fairness([await long_beside]),
    }


async def measure(url: str) -> dict[str, list[Row]]:
    """Every row's rounds: those of the levels by their number of clients, then those of fairness."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    rounds: dict[str, list[Row]] = {}
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT, limits=limits) as client:
        if key := os.environ.get("OPENAI_API_KEY"):
            client.headers["authorization"] = f"Bearer {key}"
        models = (await client.get("/v1/models")).raise_for_status().json()["data"]
        client.headers["x-model"] = models[0]["id"]
        for num_clients in CLIENTS:
            await at_once(client, num_clients, 1, WARM_UP_TOKENS)
        for _ in range(ROUNDS):
            for num_clients in CLIENTS:
                rounds.setdefault(f"{num_clients}", []).append(await level(client, num_clients))
        for _ in range(FAIRNESS_ROUNDS):
            for what, row in (await fairness(client)).items():
                rounds.setdefault(what, []).append(row)
    return rounds


def report(rounds: Mapping[str, Sequence[Row]]) -> str:
    """Both tables as Markdown."""
    levels = {what: rows for what, rows in rounds.items() if isinstance(rows[0], Level)}
    others = {what: rows for what, rows in rounds.items() if what not in levels}
    head = "| streaming clients | first token p50, s | p95, s | whole answer p50, s | tokens/s, all |"
    fair = "| | first token p50, s | p95, s | longest gap in a stream, s | whole answer p50, s |"
    return "\n".join([head, *_table(levels), "", fair, *_table(others)])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables; write all rounds as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a running server; its key comes from OPENAI_API_KEY")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    if arguments.url:
        rounds = asyncio.run(measure(arguments.url))
    else:
        with served() as server:
            rounds = asyncio.run(measure(server.url))
    print(report(rounds))
    if arguments.out is not None:
        found = {what: [asdict(row) for row in rows] for what, rows in rounds.items()}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _table(rounds: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    yield "|---:|---:|---:|---:|---:|"
    for what, rows in rounds.items():
        cells = (_spread(values) for values in zip(*map(astuple, rows), strict=True))
        yield f"| {what} | {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    low, median, high = (_quantile(values, percent) for percent in (25, 50, 75))
    digits = 0 if median >= 20 else 2
    return f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _fairness(heard: Sequence[Heard]) -> Fairness:
    firsts = [answer.first for answer in heard]
    longest_gap = max(answer.longest_gap for answer in heard)
    total = _quantile([answer.total for answer in heard], 50)
    return Fairness(_quantile(firsts, 50), _quantile(firsts, 95), longest_gap, total)


def _quantile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` in 100 do not exceed."""
    return values[0] if len(values) == 1 else statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    main()
