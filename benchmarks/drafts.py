"""Answers with drafted tokens and without, over one LLM: the time until they are complete, and the passes that it took.

    python -m benchmarks.drafts [--rounds 5] [--sequences 1 --sequences 3] [--threads 2] [--output FILE.json]

Held-out prompts under the helpful demo proxy: greedy, the same with the LLM's own answer as `prediction`, and at a
temperature; and texts that the LLM alone is to write again with their spelling corrected. Answers end where they end.
Both engines give the same ones, which is checked. Ratios are within a round, with over without; medians and quartiles.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.findings import publish
from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.workload import ROOT, TRAINED, held_out_prompts, load_trained, loaded_llm, requests
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import DRAFT_TOKENS, EngineConfig
from proxy_model.decoding.request import Finished, GenerationRequest
from proxy_model.llm.tokenizer import ChatTokenizer
from trainer.preferences import load_preferences

WITH, WITHOUT = "with", "without"
MAX_TEXT_TOKENS = 120
_TEXTS = ROOT / "data" / "helpful_pairs_test.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of traffic with so many answers at once."""

    traffic: str
    sequences: int
    tokens_per_second: Spread
    without: Spread
    ratio: Spread
    tokens_per_pass: float
    right: float
    """Share of the drafted tokens."""


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one kind of traffic."""

    tokens_per_second: float
    token_ids: tuple[tuple[int, ...], ...]
    num_passes: int
    num_drafted: int
    num_accepted: int


def main(
    rounds: int = 5,
    sequences: Annotated[list[int] | None, typer.Option()] = None,
    answers: int = 6,
    tokens: int = 128,
    draft_tokens: int = DRAFT_TOKENS,
    draft_rows: int = EngineConfig().draft_rows,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    output: Path | None = None,
) -> None:
    """Print the table."""
    llm = loaded_llm(model, threads)
    chats = held_out_prompts(llm)[:answers]
    greedy = _ending(requests(chats, tokens, [TRAINED]))
    kinds = {
        "chat, greedy": greedy,
        "chat, predicted": _predicted(greedy, Engine(llm).generate(_ending(requests(chats, tokens)))),
        "chat, temperature .7": _ending(requests(chats, tokens, [TRAINED], temperature=0.7)),
        "correction": _ending(requests(corrections(llm.tokenizer)[:answers], tokens)),
    }
    rows = []
    for count in sequences or [1, 3]:
        drafts = {WITH: draft_tokens, WITHOUT: 0}
        engines = {
            name: Engine(
                llm,
                EngineConfig(max_running=count, prefix_cache_tokens=0, draft_tokens=number, draft_rows=draft_rows),
            )
            for name, number in drafts.items()
        }
        for engine in engines.values():
            load_trained(engine)
        for traffic, asked in kinds.items():
            found = alternate({name: partial(_run, engine, asked) for name, engine in engines.items()}, rounds)
            rows.append(_row(traffic, count, found))
    publish(_table(rows), llm, rows, output)


def corrections(tokenizer: ChatTokenizer) -> list[list[int]]:
    """Prompts that ask for a text again."""
    texts = [pair.chosen for pair in load_preferences([_TEXTS])]
    asking = "Write this text again, word for word, with its spelling corrected:\n\n"
    return [
        tokenizer.apply_chat_template([{"role": "user", "content": asking + text}])
        for text in texts
        if 60 <= len(tokenizer.encode(text)) <= MAX_TEXT_TOKENS
    ]


def _ending(asked: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    return [replace(request, params=replace(request.params, ignore_eos=False)) for request in asked]


def _predicted(asked: Sequence[GenerationRequest], answers: Sequence[Finished]) -> list[GenerationRequest]:
    pairs = zip(asked, answers, strict=True)
    return [replace(request, prediction_token_ids=answer.token_ids) for request, answer in pairs]


def _run(engine: Engine, asked: Sequence[GenerationRequest]) -> Run:
    started = time.perf_counter()
    answers = engine.generate(asked)
    seconds = time.perf_counter() - started
    return Run(
        sum(len(answer.token_ids) for answer in answers) / seconds,
        tuple(answer.token_ids for answer in answers),
        sum(answer.usage.passes for answer in answers),
        sum(answer.usage.drafted_tokens for answer in answers),
        sum(answer.usage.accepted_drafts for answer in answers),
    )


def _row(traffic: str, sequences: int, found: dict[str, list[Run]]) -> Row:
    if any(run.token_ids != found[WITHOUT][0].token_ids for run in found[WITH]):
        raise RuntimeError("drafts have changed an answer")
    speeds = {name: [run.tokens_per_second for run in runs] for name, runs in found.items()}
    last = found[WITH][-1]
    return Row(
        traffic,
        sequences,
        Spread.of(speeds[WITH]),
        Spread.of(speeds[WITHOUT]),
        ratios(speeds[WITH], speeds[WITHOUT]),
        sum(map(len, last.token_ids)) / last.num_passes,
        last.num_accepted / max(1, last.num_drafted),
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table("answers", "at once", "tokens/s with", "without", "ratio", "tokens a pass", "of the drafts right")
    for row in rows:
        table.add_row(
            row.traffic,
            str(row.sequences),
            str(row.tokens_per_second),
            str(row.without),
            str(row.ratio),
            f"{row.tokens_per_pass:.2f}",
            f"{row.right:.0%}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
