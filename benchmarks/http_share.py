"""Tokens a second and time to the first token through HTTP, beside the engine's own, at 1, 8, 32 and 128 streams.

    python -m benchmarks.http_share [--threads 1] [--rounds 5] [--output FILE.json]

Both sides answer the same prompts with the LLM alone, with as many sequences in a step and as many threads: an engine
in this process, and `proxy-rlhf serve`, asked through the OpenAI SDK, which runs in this process, on the same cores.
All streams begin at once; where they are more than a step takes, the others wait. Every prompt is read: neither side
keeps what prompts share. The sides take turns; shares are within a round, cells are medians over the rounds with
quartiles. `CPU` is what a token took of the serving process (for the engine: of this one), which tells the server's own
work where cores are shared: the rest is the client's.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from openai import AsyncOpenAI
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.served import Server, served
from benchmarks.workload import held_out, loaded_llm, requests
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from trainer.rollout import EncodedPrompt

STREAMS = (1, 8, 32, 128)
MAX_RUNNING = 32
MIN_ANSWERS = 4
"""A round has so many at least, one after another where streams are fewer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One round of one side."""

    tokens_per_second: float
    first_token_seconds: float
    """Median, since the answer was asked for."""

    cpu_seconds_per_token: float


@dataclass(frozen=True, slots=True)
class Row:
    """A number of streams over all rounds."""

    num_streams: int
    engine_tokens_per_second: Spread
    http_tokens_per_second: Spread
    share: Spread
    engine_first_token_seconds: Spread
    http_first_token_seconds: Spread
    engine_cpu_seconds_per_token: float
    http_cpu_seconds_per_token: float


def main(
    streams: Annotated[list[int] | None, typer.Option(help="Answers at once; repeatable.")] = None,
    rounds: int = 5,
    tokens: int = 32,
    model: str = "smollm2-135m-instruct",
    threads: int = 1,
    output: Path | None = None,
) -> None:
    """Print the table."""
    numbers = streams or list(STREAMS)
    flags = ("--model", model, "--max-running", str(MAX_RUNNING), "--prefix-cache-tokens", "0")
    with served(*flags, threads=threads) as server:
        llm = loaded_llm(model, threads)
        prompts = held_out(llm)
        engine = Engine(llm, EngineConfig(max_running=MAX_RUNNING, prefix_cache_tokens=0))
        ways: dict[str, Callable[[], Figure]] = {}
        for number in numbers:
            ways[f"engine {number}"] = partial(_engine_round, engine, prompts, number, tokens)
            ways[f"http {number}"] = partial(_http_round, server, f"{llm.name}:base", prompts, number, tokens)
        found = alternate(ways, rounds)
    rows = [_row(number, found[f"engine {number}"], found[f"http {number}"]) for number in numbers]
    publish(_table(rows), llm, rows, output, max_running=MAX_RUNNING)


def _engine_round(engine: Engine, prompts: Sequence[EncodedPrompt], number: int, tokens: int) -> Figure:
    firsts: list[float] = []
    started, worked = time.perf_counter(), time.process_time()
    asked = _repeats(number)
    for _ in range(asked):
        began, heard = time.perf_counter(), set[str]()
        for request in requests([prompt.token_ids for prompt in islice(cycle(prompts), number)], tokens):
            engine.submit(request)
        while engine.has_work:
            new = {delta.request_id for delta in engine.step()} - heard
            firsts += [time.perf_counter() - began] * len(new)
            heard |= new
    return _figure(number * asked * tokens, started, firsts, time.process_time() - worked)


def _http_round(server: Server, model: str, prompts: Sequence[EncodedPrompt], number: int, tokens: int) -> Figure:
    process = psutil.Process(server.process_id)
    worked = _cpu_seconds(process)
    started = time.perf_counter()
    firsts = asyncio.run(_all_streams(server.url, model, prompts, number, tokens))
    return _figure(number * _repeats(number) * tokens, started, firsts, _cpu_seconds(process) - worked)


async def _all_streams(url: str, model: str, prompts: Sequence[EncodedPrompt], number: int, tokens: int) -> list[float]:
    """Seconds until each answer's first text."""
    firsts: list[float] = []
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:
        for _ in range(_repeats(number)):
            asked = islice(cycle(prompts), number)
            firsts += await asyncio.gather(*(_stream(client, model, prompt, tokens) for prompt in asked))
    return firsts


async def _stream(client: AsyncOpenAI, model: str, prompt: EncodedPrompt, tokens: int) -> float:
    """Seconds until the first text of an answer, which is read to its end."""
    began, first = time.perf_counter(), None
    messages: Any = prompt.messages
    chunks = await client.chat.completions.create(
        model=model,
        messages=messages,
        max_completion_tokens=tokens,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    async for chunk in chunks:
        if first is None and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - began
    assert first is not None
    return first


def _repeats(number: int) -> int:
    return max(1, MIN_ANSWERS // number)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _figure(num_tokens: int, started: float, firsts: Sequence[float], cpu_seconds: float) -> Figure:
    seconds = time.perf_counter() - started
    return Figure(num_tokens / seconds, statistics.median(firsts), cpu_seconds / num_tokens)


def _row(number: int, engine: Sequence[Figure], http: Sequence[Figure]) -> Row:
    speeds, served_speeds = ([figure.tokens_per_second for figure in side] for side in (engine, http))
    return Row(
        number,
        Spread.of(speeds),
        Spread.of(served_speeds),
        ratios(served_speeds, speeds),
        Spread.of([figure.first_token_seconds for figure in engine]),
        Spread.of([figure.first_token_seconds for figure in http]),
        statistics.median(figure.cpu_seconds_per_token for figure in engine),
        statistics.median(figure.cpu_seconds_per_token for figure in http),
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table("streams", "tokens/s, engine", "HTTP", "share", "first token, s, engine", "HTTP", "CPU, ms", "HTTP")
    for row in rows:
        table.add_row(
            str(row.num_streams),
            f"{row.engine_tokens_per_second.median:.1f}",
            f"{row.http_tokens_per_second.median:.1f}",
            str(row.share),
            str(row.engine_first_token_seconds),
            str(row.http_first_token_seconds),
            f"{1000 * row.engine_cpu_seconds_per_token:.2f}",
            f"{1000 * row.http_cpu_seconds_per_token:.2f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
