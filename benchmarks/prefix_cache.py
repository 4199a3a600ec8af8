"""Time to the first token where prompts begin alike, with the prefix cache and without, and what it costs where not.

    python -m benchmarks.prefix_cache [--rounds 9] [--threads 1] [--output FILE.json]

Three kinds of traffic, each in turn on two engines over one LLM: users of one system prompt, one after the other; `n`
answers to one prompt at once; prompts that have nothing in common. Times are until every answer has its first token.
Prompts are new in each round, so that only what they share by design is found. Ratios are within a round, cache over
none; medians and quartiles.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.workload import loaded_llm
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams

WITH, WITHOUT = "with", "without"
MAX_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of traffic."""

    traffic: str
    seconds: Spread
    seconds_without: Spread
    ratio: Spread
    cached_share: float
    """Of the prompts' tokens, on the engine with the cache."""


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one kind of traffic."""

    seconds: float
    cached_share: float


class Prompts:
    """Random tokens, never the same twice; an LLM takes as long for them as for a text."""

    def __init__(self, vocab_size: int, num_system_tokens: int, num_user_tokens: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._vocab_size = vocab_size
        self._num_user_tokens = num_user_tokens
        self._num_system_tokens = num_system_tokens
        self._system = self._draw(num_system_tokens)

    def same_system(self) -> list[tuple[int, ...]]:
        """One user's turn after the system prompt that everyone has."""
        return [self._system + self._draw(self._num_user_tokens)]

    def same_prompt(self, num_answers: int) -> list[tuple[int, ...]]:
        """A new prompt, as often as answers to it are wanted."""
        return [self._draw(self._num_system_tokens + self._num_user_tokens)] * num_answers

    def new(self, num_tokens: int) -> list[tuple[int, ...]]:
        """A prompt that nobody has sent."""
        return [self._draw(num_tokens)]

    def _draw(self, num_tokens: int) -> tuple[int, ...]:
        return tuple(torch.randint(1000, self._vocab_size, (num_tokens,), generator=self._generator).tolist())


def main(
    rounds: int = 9,
    system_tokens: int = 500,
    user_tokens: int = 50,
    answers: int = 4,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    engines = {WITH: Engine(llm), WITHOUT: Engine(llm, EngineConfig(prefix_cache_tokens=0))}
    ids = map(str, itertools.count())
    prompts = {name: Prompts(llm.vocab_size, system_tokens, user_tokens) for name in engines}
    kinds: dict[str, Callable[[Prompts], list[tuple[int, ...]]]] = {
        f"a system prompt of {system_tokens} tokens": Prompts.same_system,
        f"{answers} answers to one prompt": partial(Prompts.same_prompt, num_answers=answers),
        f"a new prompt of {system_tokens + user_tokens} tokens": partial(
            Prompts.new, num_tokens=system_tokens + user_tokens
        ),
        f"a new prompt of {user_tokens} tokens": partial(Prompts.new, num_tokens=user_tokens),
    }
    rows = []
    for traffic, draw in kinds.items():
        ways = {name: partial(_run, engine, partial(draw, prompts[name]), ids) for name, engine in engines.items()}
        rows.append(_row(traffic, alternate(ways, rounds)))
    publish(_table(rows), llm, rows, output)


def _run(engine: Engine, draw: Callable[[], Sequence[tuple[int, ...]]], ids: Iterator[str]) -> Run:
    prompts = draw()
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=1.0, ignore_eos=True)
    waiting = set()
    started = time.perf_counter()
    for prompt in prompts:
        waiting.add(request_id := next(ids))
        engine.submit(GenerationRequest(id=request_id, prompt_token_ids=prompt, params=params))
    num_cached = 0
    while waiting:
        for delta in engine.step():
            num_cached += delta.num_cached
            waiting.discard(delta.request_id)
    seconds = time.perf_counter() - started
    while engine.has_work:
        engine.step()
    return Run(seconds, num_cached / sum(map(len, prompts)))


def _row(traffic: str, found: dict[str, list[Run]]) -> Row:
    seconds = {name: [run.seconds for run in runs] for name, runs in found.items()}
    return Row(
        traffic,
        Spread.of(seconds[WITH]),
        Spread.of(seconds[WITHOUT]),
        ratios(seconds[WITH], seconds[WITHOUT]),
        found[WITH][-1].cached_share,
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table("first tokens of", "seconds with", "without", "ratio", "copied, not read")
    for row in rows:
        share = f"{row.cached_share:.0%}"
        table.add_row(row.traffic, str(row.seconds), str(row.seconds_without), str(row.ratio), share)
    return table


if __name__ == "__main__":
    typer.run(main)
