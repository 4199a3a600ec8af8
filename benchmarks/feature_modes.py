"""Decode speed of the three feature modes beside the LLM alone, alternating in one run.

    python -m benchmarks.feature_modes CHECKPOINT... --rounds 7 --num-sequences 32 --output modes.json

Each CHECKPOINT is a published proxy's folder; its own settings say its mode. In each round every system answers the
same prompts greedily, in another order than in the round before. Ratios are within a round; medians and quartiles.
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
from proxy_model.bank import ProxyRef
from proxy_model.engine import Engine, EngineConfig
from proxy_model.request import GenerationRequest, SamplingParams
from trainer.evaluation.loading import load_rows
from trainer.evaluation.systems import System, max_candidates
from trainer.prompts import load_prompts
from trainer.rollout import EncodedPrompt, encode_prompts

PROMPTS = ROOT / "data" / "harmless_prompts_test.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Run:
    """One system's answers in one round."""

    tokens_per_second: float
    passes_per_token: float
    rejections_per_token: float


@dataclass(frozen=True, slots=True)
class Row:
    """One system over all rounds."""

    system: str
    features: str
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
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    rows = load_rows(list(map(str, checkpoints)), Path(), llm)
    systems = [row.systems[0] for row in rows]
    prompts = encode_prompts(load_prompts(PROMPTS), llm.tokenizer, MAX_PROMPT_TOKENS)[:num_sequences]
    sizes = EngineConfig(max_running=num_sequences, max_candidates=max_candidates(rows), prefix_cache_tokens=0)
    engine = Engine(llm, sizes)
    for number, system in enumerate(systems):
        if system.policy is not None and system.skam is not None:
            engine.load_proxy(ProxyRef("measured", number), system.policy, system.skam)
    ways = {
        str(number): partial(_run, engine, number, system, prompts, max_tokens) for number, system in enumerate(systems)
    }
    runs = list(alternate(ways, rounds).values())
    found = [_row(system, mine, runs[0]) for system, mine in zip(systems, runs, strict=True)]
    publish(_table(found), llm, found, output)


def _run(engine: Engine, number: int, system: System, prompts: Sequence[EncodedPrompt], max_tokens: int) -> Run:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    ref = None if system.policy is None else ProxyRef("measured", number)
    started = time.perf_counter()
    answers = engine.generate(
        GenerationRequest(id=str(index), prompt_token_ids=prompt.token_ids, params=params, proxy=ref)
        for index, prompt in enumerate(prompts)
    )
    seconds = time.perf_counter() - started
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    return Run(
        tokens / seconds,
        sum(answer.usage.passes for answer in answers) / tokens,
        sum(answer.usage.rejected for answer in answers) / tokens,
    )


def _row(system: System, runs: Sequence[Run], base: Sequence[Run]) -> Row:
    return Row(
        system=system.name,
        features="-" if system.policy is None else system.policy.config.features,
        tokens_per_second=statistics.median(run.tokens_per_second for run in runs),
        ratio=ratios([run.tokens_per_second for run in runs], [run.tokens_per_second for run in base]),
        passes_per_token=runs[-1].passes_per_token,
        rejections_per_token=runs[-1].rejections_per_token,
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table("features", "tokens/s", "of the LLM alone", "passes a token", "rejections a token")
    for row in rows:
        table.add_row(
            row.features,
            f"{row.tokens_per_second:.0f}",
            str(row.ratio),
            f"{row.passes_per_token:.2f}",
            f"{row.rejections_per_token:.2f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
