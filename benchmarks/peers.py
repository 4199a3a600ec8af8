"""Decode speed of this engine, of vLLM, of vLLM with the proxies in its workers, and of llama.cpp.

    python -m benchmarks.peers --vllm .venv-vllm/bin/python [--threads 1] [--sequences 1 --sequences 8 --sequences 32]
        [--llama-cpp ENV/bin/python --gguf FILE]

`ENV` has llama-cpp-python, and `FILE` is the demo LLM in bfloat16, as llama.cpp's `convert_hf_to_gguf.py` writes it out
of its folder in `~/.cache/proxy-rlhf/models`.

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
    llama_cpp: Annotated[Path | None, typer.Option(help="The Python that has llama-cpp-python.")] = None,
    gguf: Annotated[Path | None, typer.Option(help="The same LLM as llama.cpp reads it.")] = None,
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
    sizes = [model, str(threads), str(max(numbers))]
    rows: list[Row] = []
    with ExitStack() as stack:
        peers = {"ours": Peer(Path(sys.executable), "benchmarks.peer_ours", *sizes, OMP_WAIT_POLICY="active")}
        if vllm is not None:
            peers |= _vllm_peers(vllm, sizes, has_compiled=has_compiled)
        if llama_cpp is not None and gguf is not None:
            of_gguf = (str(gguf.absolute()), *sizes[1:])
            peers["llama.cpp"] = Peer(llama_cpp.absolute(), "benchmarks.peer_llama_cpp", *of_gguf)
        for peer in peers.values():
            stack.callback(peer.close)
        ways = _ways(peers)
        for number in numbers:
            timed = {name: partial(_time, run, prompts[:number], tokens) for name, run in ways.items()}
            rows += _rows(number, alternate(timed, rounds))
    publish(_table(rows), llm, rows, output, num_tokens=tokens, threads_of_each=threads)


def _vllm_peers(python: Path, sizes: Sequence[str], *, has_compiled: bool) -> dict[str, Peer]:
    flags = {"vLLM eager": ["--eager"], "vLLM eager + plugin": ["--eager", "--plugin"]}
    if has_compiled:
        flags["vLLM compiled"] = ["--compiled"]
        flags["vLLM compiled + plugin"] = ["--compiled", "--plugin"]
    return {name: Peer(python.absolute(), "benchmarks.peer_vllm", *sizes, *added) for name, added in flags.items()}


def _ways(peers: Mapping[str, Peer]) -> Mapping[str, Callable[[Sequence[list[int]], int], float]]:
    """How to have a job done, by name."""
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
