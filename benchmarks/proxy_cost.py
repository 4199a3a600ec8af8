"""What a decode step costs under a proxy, against how much it rejects and how many proxies are loaded and in use.

    OMP_NUM_THREADS=2 python -m benchmarks.proxy_cost [--sequences 64] [--threads 2] [--output FILE.json]

All proxies read `h(prefix)`. Those of the upper rows are untrained ones that draw their decisions: they reject the
named share of the candidates that they may. Those of the lower rows decide greedily and reject nothing; they are loaded
into an engine each, of which the sequences use one, or all in turn. Ways take turns on one LLM in one process; a figure
is the median of a round's decode steps, without those that read prompts; cells are medians over the rounds with
quartiles.

A version takes 4 bytes a token of the vocabulary and unit of its hidden layer: 64 for the demo LLM are 3.2 GB.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.step_times import run_steps
from benchmarks.workload import ALL_CANDIDATES, held_out_prompts, loaded_llm, requests, untrained_policy
from proxy_model.decision.bank import LoadedProxy, ProxyRef
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
LOADED = (1, 4, 16, 64)
ALONE = "the LLM alone"
PROMPT_TOKENS = 16
"""Of each prompt: a step's cost is asked for, not the reading."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One way's steps in one round."""

    seconds: float
    """Median step."""

    rejected: float
    """Share of the candidates."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way over all rounds."""

    name: str
    milliseconds: Spread
    of_the_llm_alone: Spread
    """Its speed over that of the LLM alone in the same round."""

    rejected: float


def main(
    sequences: int = 64,
    rounds: int = 5,
    tokens: int = 20,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    prompts = [prompt[:PROMPT_TOKENS] for prompt in held_out_prompts(llm)][:sequences]
    found = alternate(_rejecting(llm, prompts, tokens) | _loaded(llm, prompts, tokens), rounds)
    base = [figure.seconds for figure in found[ALONE]]
    rows = [_row(name, figures, base) for name, figures in found.items()]
    publish(_table(rows), llm, rows, output, num_sequences=sequences)


def _rejecting(llm: FrozenLLM, prompts: Sequence[tuple[int, ...]], tokens: int) -> dict[str, partial[Figure]]:
    """The LLM alone, and beside it a proxy for each rate."""
    engine = Engine(llm, EngineConfig(max_running=len(prompts)))
    ways = {ALONE: partial(_run, engine, prompts, tokens, (None,))}
    for number, rate in enumerate(RATES, start=1):
        ref = ProxyRef("rejecting", number)
        engine.load_proxy(ref, untrained_policy(llm, rate), ALL_CANDIDATES)
        ways[f"rejects {rate:.0%}"] = partial(_run, engine, prompts, tokens, (ref,), is_drawn=True)
    return ways


def _loaded(llm: FrozenLLM, prompts: Sequence[tuple[int, ...]], tokens: int) -> dict[str, partial[Figure]]:
    """Engines with so many proxies, which they share, and with one or all of them in use."""
    proxies = [
        LoadedProxy(ProxyRef("loaded", number), untrained_policy(llm, seed=number), ALL_CANDIDATES, llm.embedding)
        for number in range(1, max(LOADED) + 1)
    ]
    ways = {}
    for num_loaded in LOADED:
        engine = Engine(llm, EngineConfig(max_running=len(prompts)))
        for proxy in proxies[:num_loaded]:
            engine.add_proxy(proxy)
        for num_used in sorted({1, min(num_loaded, len(prompts))}):
            refs = [proxy.ref for proxy in proxies[:num_used]]
            ways[f"{num_loaded} loaded, {num_used} in use"] = partial(_run, engine, prompts, tokens, refs)
    return ways


def _run(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    tokens: int,
    proxies: Sequence[ProxyRef | None],
    *,
    is_drawn: bool = False,
) -> Figure:
    steps = run_steps(engine, requests(prompts, tokens, proxies, is_drawn=is_drawn))
    num_seen = steps.num_accepted + steps.num_rejected
    return Figure(statistics.median(steps.decode_seconds), steps.num_rejected / num_seen)


def _row(name: str, figures: Sequence[Figure], base: Sequence[float]) -> Row:
    seconds = [figure.seconds for figure in figures]
    milliseconds = Spread.of([1000 * each for each in seconds])
    return Row(name, milliseconds, ratios(base, seconds), statistics.fmean(figure.rejected for figure in figures))


def _table(rows: Sequence[Row]) -> Table:
    table = Table("", "ms a step", "speed, of the LLM alone", "candidates rejected")
    for row in rows:
        table.add_row(row.name, str(row.milliseconds), str(row.of_the_llm_alone), f"{row.rejected:.1%}")
    return table


if __name__ == "__main__":
    typer.run(main)
