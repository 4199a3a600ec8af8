"""Decode speed with a trained proxy, with one that rejects a lot, without one, and through transformers' `generate`.

    python -m benchmarks.decode_speed [--sequences 1 --sequences 8 --sequences 32] [--threads 2] [--temperature 1]

All answer the same prompts with the same number of tokens, in turn, in one process, on one set of weights' values.
Times hold the reading of the prompts, of which nothing is kept from round to round. Ratios are within a round; cells
are medians over the rounds with quartiles.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.workload import (
    ALL_CANDIDATES,
    DEMO_PROXY,
    TRAINED,
    held_out_prompts,
    load_trained,
    loaded_llm,
    requests,
    untrained_policy,
)
from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.llm.source import resolve_llm

REJECTING = ProxyRef("rejecting", 1)
ALONE, PEER = "the LLM alone", "transformers"

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to decode a number of sequences."""

    num_sequences: int
    name: str
    tokens_per_second: Spread
    of_the_llm_alone: Spread
    of_transformers: Spread | None


def main(
    proxy: Path = DEMO_PROXY,
    sequences: Annotated[list[int] | None, typer.Option(help="Sequences at once; repeatable.")] = None,
    rounds: int = 7,
    tokens: int = 64,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    temperature: Annotated[float, typer.Option(help="Of all answers. 0: greedy.")] = 0.0,
    has_peer: Annotated[bool, typer.Option("--peer/--no-peer", help="Whether transformers takes part.")] = True,
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    peer = _peer(model, llm) if has_peer else None
    prompts = held_out_prompts(llm)
    rows: list[Row] = []
    for number in sequences or [1, 8, 32]:
        engine = _engine(llm, proxy, number)
        ways = {
            name: partial(_ours, engine, prompts[:number], tokens, temperature, ref)
            for name, ref in ((ALONE, None), ("a trained proxy", TRAINED), ("30 % rejected", REJECTING))
        }
        if peer is not None:
            ways[PEER] = partial(_theirs, peer, prompts[:number], tokens, temperature)
        rows += _rows(number, alternate(ways, rounds))
    publish(_table(rows), llm, rows, output)


def _engine(llm: FrozenLLM, proxy: Path, num_sequences: int) -> Engine:
    """With the trained proxy and with a new one, which rejects 30 % of all candidates but the last."""
    engine = Engine(llm, EngineConfig(max_running=num_sequences, prefix_cache_tokens=0))
    load_trained(engine, proxy)
    engine.load_proxy(REJECTING, untrained_policy(llm, 0.3), ALL_CANDIDATES)
    return engine


def _peer(model: str, llm: FrozenLLM) -> Any:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(resolve_llm(model).folder_or_id, dtype=llm.dtype)
    return loaded.to(llm.device).eval()


def _ours(engine: Engine, prompts: Prompts, tokens: int, temperature: float, proxy: ProxyRef | None) -> float:
    """Tokens a second; the proxy that is to reject a share of its candidates draws its decisions."""
    asked = requests(prompts, tokens, (proxy,), is_drawn=proxy == REJECTING, temperature=temperature)
    started = time.perf_counter()
    engine.generate(asked)
    return len(prompts) * tokens / (time.perf_counter() - started)


@torch.no_grad()
def _theirs(model: Any, prompts: Prompts, tokens: int, temperature: float) -> float:
    """Tokens a second of transformers' `generate`, prompts padded on the left."""
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    started = time.perf_counter()
    model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=temperature > 0,
        **({"temperature": temperature} if temperature > 0 else {}),
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=0,
    )
    return len(prompts) * tokens / (time.perf_counter() - started)


def _rows(num_sequences: int, found: dict[str, list[float]]) -> list[Row]:
    return [
        Row(
            num_sequences,
            name,
            Spread.of(figures),
            ratios(figures, found[ALONE]),
            ratios(figures, found[PEER]) if PEER in found else None,
        )
        for name, figures in found.items()
    ]


def _table(rows: Sequence[Row]) -> Table:
    table = Table("sequences", "", "tokens/s", "of the LLM alone", "of transformers")
    for row in rows:
        speed = f"{row.tokens_per_second.median:.1f}"
        table.add_row(
            str(row.num_sequences), row.name, speed, str(row.of_the_llm_alone), str(row.of_transformers or "")
        )
    return table


if __name__ == "__main__":
    typer.run(main)
