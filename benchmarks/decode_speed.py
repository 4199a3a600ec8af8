"""Decode speed with a trained proxy, with one that rejects a lot, without one, and through transformers' `generate`.

    python -m benchmarks.decode_speed [--sequences 1 --sequences 8 --sequences 32] [--threads 2] [--output FILE.json]

All answer the same prompts with the same number of tokens, in turn, in one process, on one set of weights' values.
Times hold the reading of the prompts. Ratios are within a round; cells are medians over the rounds with quartiles.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.rounds import Spread, alternate, ratios
from proxy_model.bank import ProxyRef
from proxy_model.checkpoint import read_checkpoint
from proxy_model.config import PolicyConfig, SkamConfig
from proxy_model.engine import Engine, EngineConfig
from proxy_model.frozen_llm import FrozenLLM, load_llm
from proxy_model.llm_source import resolve_llm
from proxy_model.policy import ProxyPolicy
from proxy_model.request import GenerationRequest, SamplingParams
from trainer.prompts import load_prompts
from trainer.rollout import EncodedPrompt, encode_prompts

ROOT = Path(__file__).parent.parent
PROMPTS = ROOT / "data" / "helpful_prompts_test.jsonl.gz"
TRAINED, REJECTING = ProxyRef("trained", 1), ProxyRef("rejecting", 1)
ALONE, PEER = "the LLM alone", "transformers"
MAX_PROMPT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Row:
    """One way to decode a number of sequences."""

    num_sequences: int
    name: str
    tokens_per_second: Spread
    of_the_llm_alone: Spread
    of_transformers: Spread | None


def main(
    proxy: Path = ROOT / "demo" / "proxies" / "helpful",
    sequences: Annotated[list[int] | None, typer.Option(help="Sequences at once; repeatable.")] = None,
    rounds: int = 7,
    tokens: int = 64,
    model: str = "smollm2-135m-instruct",
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
    has_peer: Annotated[bool, typer.Option("--peer/--no-peer", help="Whether transformers takes part.")] = True,
    output: Path | None = None,
) -> None:
    """Print the table."""
    if threads:
        torch.set_num_threads(threads)
    llm = load_llm(model)
    peer = _peer(model, llm) if has_peer else None
    prompts = encode_prompts(load_prompts(PROMPTS), llm.tokenizer, MAX_PROMPT_TOKENS)
    rows: list[Row] = []
    for number in sequences or [1, 8, 32]:
        engine = _engine(llm, proxy, number)
        ways = {
            ALONE: partial(_ours, engine, prompts[:number], tokens, None),
            "a trained proxy": partial(_ours, engine, prompts[:number], tokens, TRAINED),
            "30 % rejected": partial(_ours, engine, prompts[:number], tokens, REJECTING),
        }
        if peer is not None:
            ways[PEER] = partial(_theirs, peer, prompts[:number], tokens)
        rows += _rows(number, alternate(ways, rounds))
    _report(rows, llm, output)


def _engine(llm: FrozenLLM, proxy: Path, num_sequences: int) -> Engine:
    """With the trained proxy and with a new one, which rejects 30 % of all candidates but the last."""
    engine = Engine(llm, EngineConfig(max_running=num_sequences))
    checkpoint = read_checkpoint(proxy, llm.fingerprint)
    engine.load_proxy(TRAINED, checkpoint.policy, checkpoint.skam)
    config = PolicyConfig(llm_hidden_size=llm.hidden_size, initial_acceptance=0.7)
    policy = ProxyPolicy(config, generator=torch.Generator().manual_seed(0))
    engine.load_proxy(REJECTING, policy, SkamConfig(p_t=0.0, top_p=1.0))
    return engine


def _peer(model: str, llm: FrozenLLM) -> Any:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(resolve_llm(model).folder_or_id, dtype=llm.dtype)
    return loaded.to(llm.device).eval()


def _ours(engine: Engine, prompts: Sequence[EncodedPrompt], tokens: int, proxy: ProxyRef | None) -> float:
    """Tokens a second; the proxy that is to reject a share of its candidates draws its decisions."""
    is_drawn = proxy == REJECTING
    params = SamplingParams(
        max_tokens=tokens, ignore_eos=True, decision="sample" if is_drawn else "greedy", seed=0 if is_drawn else None
    )
    started = time.perf_counter()
    engine.generate(
        GenerationRequest(id=str(number), prompt_token_ids=prompt.token_ids, params=params, proxy=proxy)
        for number, prompt in enumerate(prompts)
    )
    return len(prompts) * tokens / (time.perf_counter() - started)


@torch.no_grad()
def _theirs(model: Any, prompts: Sequence[EncodedPrompt], tokens: int) -> float:
    """Tokens a second of transformers' greedy `generate`, prompts padded on the left."""
    length = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
        mask[row, length - len(prompt.token_ids) :] = 1
    started = time.perf_counter()
    model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=False,
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


def _report(rows: Sequence[Row], llm: FrozenLLM, output: Path | None) -> None:
    table = Table("sequences", "", "tokens/s", "of the LLM alone", "of transformers")
    for row in rows:
        speed = f"{row.tokens_per_second.median:.1f}"
        table.add_row(
            str(row.num_sequences), row.name, speed, str(row.of_the_llm_alone), str(row.of_transformers or "")
        )
    Console().print(table)
    if output is not None:
        found = {"model": llm.name, "threads": torch.get_num_threads(), "rows": [asdict(row) for row in rows]}
        output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
