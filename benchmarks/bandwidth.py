"""How near a decode step of one sequence comes to the memory's limit, and where the rest of it goes. On CPU.

    OMP_NUM_THREADS=2 python -m benchmarks.bandwidth [--threads 2] [--output FILE.json]

The limit is the time in which the processor reads so many bytes as a step must: every weight once (of the embedding one
row, unless it is also the head) and the sequence's part of the cache. How fast it reads is measured on a sum over a
buffer that no cache holds, with the same threads, in turn with the decoding. The parts are timed by wrapping functions,
which makes a step some 2 % longer.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from benchmarks.findings import publish, show
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.step_parts import timed_parts
from benchmarks.step_times import run_steps
from benchmarks.workload import held_out_prompts, loaded_llm, requests
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig

BUFFER_BYTES = 512 * 2**20
READS = 5


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a step."""

    name: str
    milliseconds: float
    share: float
    """Of the step."""


def main(
    rounds: int = 7,
    tokens: int = 64,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    output: Path | None = None,
) -> None:
    """Print both tables."""
    llm = loaded_llm(model, threads)
    engine = Engine(llm, EngineConfig(max_running=1))
    prompt = held_out_prompts(llm)[0]
    step = partial(_step_seconds, engine, prompt, tokens)
    found = alternate({"read": partial(_read_speed, torch.ones(BUFFER_BYTES // 4)), "step": step}, rounds)
    must_read = llm.bytes_per_pass + engine.cache_bytes_per_token * (len(prompt) + tokens // 2)
    speeds = [must_read / seconds for seconds in found["step"]]
    facts = {
        "bytes_a_step": must_read,
        "bytes_a_second_read": Spread.of(found["read"]),
        "bytes_a_second_in_steps": Spread.of(speeds),
        "step_seconds": Spread.of(found["step"]),
        "share_of_the_limit": ratios(speeds, found["read"]),
    }
    show(_share_table(facts))
    parts = _parts(engine, prompt, tokens)
    publish(_parts_table(parts), llm, parts, output, **facts)


def _read_speed(buffer: Tensor) -> float:
    """Bytes a second of a sum over the buffer."""
    times = []
    for _ in range(READS):
        started = time.perf_counter()
        buffer.sum()
        times.append(time.perf_counter() - started)
    return buffer.nbytes / statistics.median(times)


def _step_seconds(engine: Engine, prompt: Sequence[int], tokens: int) -> float:
    return statistics.median(run_steps(engine, requests([prompt], tokens)).decode_seconds)


def _parts(engine: Engine, prompt: Sequence[int], tokens: int) -> list[Part]:
    """The parts of a step that decodes, longest first."""
    for request in requests([prompt], tokens):
        engine.submit(request)
    engine.step()  # reads the prompt
    before = engine.num_steps
    with timed_parts() as parts:
        while engine.has_work:
            engine.step()
    longest_first = sorted(parts.seconds.items(), key=itemgetter(1), reverse=True)
    total = sum(parts.seconds.values())
    num_steps = engine.num_steps - before
    return [Part(name, 1000 * seconds / num_steps, seconds / total) for name, seconds in longest_first]


def _share_table(facts: Mapping[str, Any]) -> Table:
    table = Table("read a step, MB", "read in steps, GB/s", "memory, GB/s", "share of the limit", "ms a step")
    in_steps, memory = (facts[f"bytes_a_second_{name}"].median / 1e9 for name in ("in_steps", "read"))
    table.add_row(
        f"{facts['bytes_a_step'] / 1e6:.1f}",
        f"{in_steps:.1f}",
        f"{memory:.1f}",
        str(facts["share_of_the_limit"]),
        f"{1000 * facts['step_seconds'].median:.2f}",
    )
    return table


def _parts_table(parts: Sequence[Part]) -> Table:
    table = Table("part of a step", "ms", "share")
    for part in parts:
        table.add_row(part.name, f"{part.milliseconds:.2f}", f"{part.share:.1%}")
    return table


if __name__ == "__main__":
    typer.run(main)
