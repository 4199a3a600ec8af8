"""What threads bring where another program keeps one of the processors busy: decode speed of the LLM alone.

    OMP_NUM_THREADS=2 python -m benchmarks.busy_processor [--threads 2] [--rounds 3]

The other program is an endless loop, kept to the last processor that this process may use. One thread and several
take turns; tokens/s are of all steps that decode together, so that every wait counts.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import typer
from rich.table import Table

from benchmarks.findings import show
from benchmarks.rounds import Spread, alternate
from benchmarks.step_times import run_steps
from benchmarks.workload import held_out_prompts, loaded_llm, requests
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM

NICENESS = {"nothing": None, "nice 10": 10, "equal priority": 0}
SEQUENCES = (1, 8)
PROMPT_TOKENS = 16


def main(threads: int = 2, rounds: int = 3, tokens: int = 64, model: str = "smollm2-135m-instruct") -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    table = Table("beside", "sequences", "one thread, tokens/s", f"{threads} threads")
    for beside, niceness in NICENESS.items():
        with _busy_loop(niceness):
            for number in SEQUENCES:
                ways = {str(count): partial(_tokens_per_second, llm, count, number, tokens) for count in (1, threads)}
                found = alternate(ways, rounds)
                table.add_row(beside, str(number), *(str(Spread.of(found[way])) for way in ways))
    show(table)


@contextmanager
def _busy_loop(niceness: int | None) -> Iterator[None]:
    """A process that computes within the block; None: no process."""
    if niceness is None:
        yield
        return
    code = (
        f"import os; os.nice({niceness}); os.sched_setaffinity(0, [{max(os.sched_getaffinity(0))}])\nwhile True: pass"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _tokens_per_second(llm: FrozenLLM, num_threads: int, number: int, tokens: int) -> float:
    torch.set_num_threads(num_threads)
    prompts = [prompt[:PROMPT_TOKENS] for prompt in held_out_prompts(llm)[:number]]
    engine = Engine(llm, EngineConfig(max_running=number, num_staging=number, max_context=PROMPT_TOKENS + tokens))
    steps = run_steps(engine, requests(prompts, tokens))
    return number * len(steps.decode_seconds) / sum(steps.decode_seconds)


if __name__ == "__main__":
    typer.run(main)
