"""Decode speed of the three feature modes beside the LLM alone, alternating in one run.

    python -m benchmarks.feature_modes CHECKPOINT... --rounds 7 --num-sequences 32 --output modes.json

Each CHECKPOINT is a published proxy's folder; its own settings say its mode. One that reads candidates takes part once
for each `--candidate-rows`; 1 is one candidate after the other. In each round every system answers the same prompts
greedily, in another order than in the round before, twice as many as there are slots. Its clock runs while all slots
are taken, as they are in a busy server: answers with many rejections take more steps, and outlast the others. Ratios
are within a round; medians and quartiles.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.workload import MAX_PROMPT_TOKENS, ROOT, loaded_llm
from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Delta, GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.evaluation.loading import load_rows
from trainer.evaluation.systems import System, max_candidates
from trainer.prompts import load_prompts
from trainer.rollout import EncodedPrompt, encode_prompts

PROMPTS = ROOT / "data" / "harmless_prompts_test.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Contender:
    """A system, and how many candidates its engine reads in one pass."""

    number: int
    system: System
    candidate_rows: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """One system's answers in one round."""

    tokens_per_second: float
    """While all slots are taken."""

    passes_per_token: float
    rejections_per_token: float


@dataclass(frozen=True, slots=True)
class Row:
    """One system over all rounds."""

    system: str
    features: str
    candidate_rows: int | None
    """None where the LLM reads no candidates."""

    tokens_per_second: float
    """Median."""

    ratio: Spread
    """The system's speed over the plain LLM's in the same round."""

    passes_per_token: float
    rejections_per_token: float


def main(
    checkpoints: list[Path],
    rounds: int = 7,
    num_sequences: int = 32,
    max_tokens: int = 64,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    candidates_per_pass: Annotated[int, typer.Option(help="See `EngineConfig`.")] = EngineConfig().candidates_per_pass,
    candidate_rows: Annotated[list[int] | None, typer.Option(help="See `EngineConfig`; repeatable.")] = None,
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    rows = load_rows(list(map(str, checkpoints)), Path(), llm)
    counts = candidate_rows or [EngineConfig().candidate_rows]
    contenders = [
        Contender(number, row.systems[0], count)
        for number, row in enumerate(rows)
        for count in (counts if _reads_candidates(row.systems[0]) else [None])
    ]
    prompts = encode_prompts(load_prompts(PROMPTS), llm.tokenizer, MAX_PROMPT_TOKENS)[: 2 * num_sequences]
    ways = {}
    for place, contender in enumerate(contenders):
        sizes = EngineConfig(
            max_running=num_sequences,
            max_candidates=max_candidates(rows),
            candidate_rows=contender.candidate_rows or counts[0],
            candidates_per_pass=candidates_per_pass,
            prefix_cache_tokens=0,
        )
        ways[str(place)] = partial(_run, _engine(llm, sizes, contender), contender, prompts, max_tokens)
    runs = list(alternate(ways, rounds).values())
    found = [_row(contender, mine, runs[0]) for contender, mine in zip(contenders, runs, strict=True)]
    publish(_table(found), llm, found, output)


def _reads_candidates(system: System) -> bool:
    return system.policy is not None and system.policy.config.features != "prefix"


def _engine(llm: FrozenLLM, sizes: EngineConfig, contender: Contender) -> Engine:
    engine, system = Engine(llm, sizes), contender.system
    if system.policy is not None and system.skam is not None:
        engine.load_proxy(ProxyRef("measured", contender.number), system.policy, system.skam)
    return engine


def _run(engine: Engine, contender: Contender, prompts: Sequence[EncodedPrompt], max_tokens: int) -> Run:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    ref = None if contender.system.policy is None else ProxyRef("measured", contender.number)
    deltas: list[Delta] = []
    started = time.perf_counter()
    for index, prompt in enumerate(prompts):
        engine.submit(GenerationRequest(id=str(index), prompt_token_ids=prompt.token_ids, params=params, proxy=ref))
    while engine.num_running + engine.num_waiting >= engine.config.max_running:
        deltas += engine.step()
    seconds, num_timed = time.perf_counter() - started, sum(delta.num_accepted for delta in deltas)
    while engine.has_work:
        deltas += engine.step()
    usages = [delta.usage for delta in deltas if delta.usage is not None]
    tokens = sum(usage.completion_tokens for usage in usages)
    return Run(
        num_timed / seconds,
        sum(usage.passes for usage in usages) / tokens,
        sum(usage.rejected for usage in usages) / tokens,
    )


def _row(contender: Contender, runs: Sequence[Run], base: Sequence[Run]) -> Row:
    system = contender.system
    return Row(
        system=system.name,
        features="-" if system.policy is None else system.policy.config.features,
        candidate_rows=contender.candidate_rows,
        tokens_per_second=statistics.median(run.tokens_per_second for run in runs),
        ratio=ratios([run.tokens_per_second for run in runs], [run.tokens_per_second for run in base]),
        passes_per_token=runs[-1].passes_per_token,
        rejections_per_token=runs[-1].rejections_per_token,
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(
        "features", "candidates a pass", "tokens/s", "of the LLM alone", "passes a token", "rejections a token"
    )
    for row in rows:
        table.add_row(
            row.features,
            str(row.candidate_rows or ""),
            f"{row.tokens_per_second:.0f}",
            str(row.ratio),
            f"{row.passes_per_token:.2f}",
            f"{row.rejections_per_token:.2f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
