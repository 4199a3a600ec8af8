"""How latency and memory grow with the prompt, the answer and the number of sequences.

    OMP_NUM_THREADS=2 python -m benchmarks.growth [--threads 2] [--rounds 3] [--output FILE.json]

Every run has an engine, and so a cache, of its own, just large enough. Where the prompt, the prompt of one among 32
sequences, or the number of sequences grows, answers are short; where the answer grows, the rows are places in one long
answer. `ms a step` is the median of the decode steps (for the answer: of the 16 before the place), `longest reading
step` what a running answer beside it would have waited for a token. `cache` is keys and values, `memory` what the
process had more after the run than before it: the cache and what torch keeps. Sizes take turns; cells are medians over
the rounds, and quartiles in one column.
"""

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate
from benchmarks.step_times import run_steps
from benchmarks.workload import held_out_prompts, loaded_llm, requests
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM

PROMPTS = (16, 64, 256, 1024, 4096, 8000)
NEIGHBOURS = (16, 256, 1024, 4096)
NUM_NEIGHBOURS = 31
ANSWERS = (16, 64, 256, 1024, 2048)
SEQUENCES = (1, 4, 16, 64, 256)
SHORT_PROMPT, SHORT_ANSWER = 16, 16
MANY_ANSWER, PROMPTS_A_STEP = 32, 16
"""256 prompts take 16 steps to read, in which the first sequences decode already."""

WINDOW = 16
"""Steps before a place of the long answer."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One run."""

    first_token_seconds: float
    longest_reading_step: float
    decode_seconds: tuple[float, ...]
    memory_bytes: int
    cache_bytes_per_token: int


@dataclass(frozen=True, slots=True)
class Row:
    """One size over all rounds."""

    what: str
    size: int
    first_token_seconds: float
    longest_reading_step: float
    step_milliseconds: Spread
    tokens_per_second: float
    memory_bytes: float | None
    """None for a place within an answer."""

    cache_bytes: int
    """Keys and values of all sequences, at the end or at the place."""


def main(
    rounds: int = 3,
    max_prompt: Annotated[int, typer.Option(help="Longer prompts are left out.")] = max(PROMPTS),
    max_answer: Annotated[int, typer.Option(help="Later places are left out.")] = max(ANSWERS),
    max_sequences: Annotated[int, typer.Option(help="More at once are left out.")] = max(SEQUENCES),
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    text = list(chain.from_iterable(held_out_prompts(llm)))
    limits = ((PROMPTS, max_prompt), (NEIGHBOURS, max_prompt), (ANSWERS, max_answer), (SEQUENCES, max_sequences))
    prompts, neighbours, answers, numbers = ([size for size in sizes if size <= largest] for sizes, largest in limits)
    ways = {f"prompt {size}": partial(_run, llm, text, [size], SHORT_ANSWER) for size in prompts}
    ways |= {f"one of 32 {size}": partial(_run, llm, text, _mixed(size), MANY_ANSWER) for size in neighbours}
    ways |= {f"sequences {size}": partial(_run, llm, text, [SHORT_PROMPT] * size, MANY_ANSWER) for size in numbers}
    ways["answer"] = partial(_run, llm, text, [SHORT_PROMPT], max(answers) + 1)
    _run(llm, text, [64], SHORT_ANSWER)  # a round of all to warm up would take a minute
    found = alternate(ways, rounds, must_warm_up=False)
    rows = [_row("prompt", size, found[f"prompt {size}"], size + SHORT_ANSWER) for size in prompts]
    rows += [
        _row("one of 32", size, found[f"one of 32 {size}"], sum(_mixed(size)) + 32 * MANY_ANSWER, num_sequences=32)
        for size in neighbours
    ]
    rows += [_row("answer", size, found["answer"], SHORT_PROMPT + size, is_place=True) for size in answers]
    rows += [
        _row("sequences", size, found[f"sequences {size}"], size * (SHORT_PROMPT + MANY_ANSWER), num_sequences=size)
        for size in numbers
    ]
    publish(_table(rows), llm, rows, output)


def _mixed(size: int) -> list[int]:
    """One prompt of `size` tokens in the middle of short ones."""
    before = NUM_NEIGHBOURS // 2
    return [SHORT_PROMPT] * before + [size] + [SHORT_PROMPT] * (NUM_NEIGHBOURS - before)


def _run(llm: FrozenLLM, text: Sequence[int], prompt_tokens: Sequence[int], tokens: int) -> Figure:
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    sizes = EngineConfig(
        max_running=len(prompt_tokens), max_context=max(prompt_tokens) + tokens, num_staging=PROMPTS_A_STEP
    )
    engine = Engine(llm, sizes)
    steps = run_steps(engine, requests(_pieces(text, prompt_tokens), tokens))
    return Figure(
        steps.prefill_seconds,
        steps.longest_prefill_step,
        steps.decode_seconds,
        process.memory_info().rss - before,
        engine.cache_bytes_per_token,
    )


def _pieces(text: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Prompts of these lengths, one after another out of the text."""
    tokens = cycle(text)
    return [tuple(islice(tokens, length)) for length in lengths]


def _row(
    what: str, size: int, figures: Sequence[Figure], num_tokens: int, *, num_sequences: int = 1, is_place: bool = False
) -> Row:
    """`num_tokens` are those of all sequences."""
    window = slice(max(0, size - WINDOW), size) if is_place else slice(None)
    step = Spread.of([1000 * statistics.median(figure.decode_seconds[window]) for figure in figures])
    return Row(
        what,
        size,
        statistics.median(figure.first_token_seconds for figure in figures),
        statistics.median(figure.longest_reading_step for figure in figures),
        step,
        1000 * num_sequences / step.median,
        None if is_place else statistics.median(figure.memory_bytes for figure in figures),
        num_tokens * figures[0].cache_bytes_per_token,
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(
        "", "size", "first token, s", "longest reading step, ms", "ms a step", "tokens/s", "memory, MB", "cache"
    )
    for row in rows:
        table.add_row(
            row.what,
            f"{row.size:,}",
            f"{row.first_token_seconds:.2f}",
            f"{1000 * row.longest_reading_step:.0f}",
            str(row.step_milliseconds),
            f"{row.tokens_per_second:.0f}",
            "" if row.memory_bytes is None else f"{row.memory_bytes / 1e6:.0f}",
            f"{row.cache_bytes / 1e6:.0f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
