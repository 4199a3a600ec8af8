"""Decode speed of this engine, of vLLM, and of vLLM with the proxies in its workers.

    python -m benchmarks.peers --vllm .venv-vllm/bin/python [--threads 1] [--sequences 1 --sequences 8 --sequences 32]

All answer the same prompts greedily with the same number of tokens, in bfloat16 with the same number of threads, in
turn; who is not timed is stopped. The time of the first token is measured by itself, right before, and taken off:
tokens/s are those of the later ones. Ratios are within a round, to this engine without a proxy. Nobody keeps prompts.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.peer import Job, Peer
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.workload import held_out_prompts, loaded_llm

BASE = "ours, proxy off"


@dataclass(frozen=True, slots=True)
class Row:
    """One engine at one number of sequences."""

    num_sequences: int
    name: str
    tokens_per_second: Spread
    of_ours: Spread
    prompt_seconds: Spread
    """Until all have their first token."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One engine in one round."""

    prompt_seconds: float
    tokens_per_second: float


def main(
    vllm: Annotated[Path | None, typer.Option(help="The Python that has vLLM.")] = None,
    sequences: Annotated[list[int] | None, typer.Option(help="Sequences at once; repeatable.")] = None,
    rounds: int = 7,
    tokens: int = 64,
    model: str = "smollm2-135m-instruct",
    threads: int = 1,
    has_compiled: Annotated[bool, typer.Option("--compiled/--no-compiled", help="Start it compiled, too.")] = True,
    output: Path | None = None,
) -> None:
    """Print the table."""
    numbers = sequences or [1, 8, 32]
    llm = loaded_llm(model, 1)
    prompts = [list(ids) for ids in held_out_prompts(llm)[: max(numbers)]]
    rows: list[Row] = []
    with ExitStack() as stack:
        ways = _ways(stack, vllm, [model, str(threads), str(max(numbers))], has_compiled=has_compiled)
        for number in numbers:
            timed = {name: partial(_time, run, prompts[:number], tokens) for name, run in ways.items()}
            rows += _rows(number, alternate(timed, rounds))
    publish(_table(rows), llm, rows, output, num_tokens=tokens, threads_of_each=threads)


def _ways(
    stack: ExitStack, vllm: Path | None, sizes: list[str], *, has_compiled: bool
) -> Mapping[str, Callable[[Sequence[list[int]], int], float]]:
    """Start everyone; how to have a job done, by name."""
    peers = {"ours": Peer(Path(sys.executable), "benchmarks.peer_ours", *sizes, OMP_WAIT_POLICY="active")}
    stack.callback(peers["ours"].close)
    flags = {"vLLM eager": ["--eager"], "vLLM eager + plugin": ["--eager", "--plugin"]}
    if has_compiled:
        flags["vLLM compiled"] = ["--compiled"]
        flags["vLLM compiled + plugin"] = ["--compiled", "--plugin"]
    for name, added in flags.items() if vllm is not None else ():
        assert vllm is not None
        peers[name] = Peer(vllm.absolute(), "benchmarks.peer_vllm", *sizes, *added)
        stack.callback(peers[name].close)
    return {
        name if way == "plain" else f"{name}, {way}": partial(_seconds, peer, way)
        for name, peer in peers.items()
        for way in peer.ways
    }


def _seconds(peer: Peer, way: str, prompts: Sequence[list[int]], tokens: int) -> float:
    return peer.seconds(Job(way, list(prompts), tokens))


def _time(run: Callable[[Sequence[list[int]], int], float], prompts: Sequence[list[int]], tokens: int) -> Timed:
    """First tokens alone, then whole answers."""
    first, whole = run(prompts, 1), run(prompts, tokens)
    return Timed(first, len(prompts) * (tokens - 1) / (whole - first))


def _rows(number: int, found: Mapping[str, list[Timed]]) -> list[Row]:
    speeds = {name: [timed.tokens_per_second for timed in rounds] for name, rounds in found.items()}
    return [
        Row(
            number,
            name,
            Spread.of(speeds[name]),
            ratios(speeds[name], speeds[BASE]),
            Spread.of([timed.prompt_seconds for timed in rounds]),
        )
        for name, rounds in found.items()
    ]


def _table(rows: Sequence[Row]) -> Table:
    table = Table("sequences", "", "tokens/s", "of ours, proxy off", "prompts, s")
    for row in rows:
        speed = f"{row.tokens_per_second.median:.1f}"
        table.add_row(str(row.num_sequences), row.name, speed, str(row.of_ours), str(row.prompt_seconds))
    return table


if __name__ == "__main__":
    typer.run(main)
