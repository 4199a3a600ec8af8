"""This project's engine as a peer: the LLM alone and under the trained demo proxy."""

from collections.abc import Sequence
from functools import partial

import typer

from benchmarks.peer import answer_jobs
from benchmarks.workload import TRAINED, load_trained, loaded_llm, requests
from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig


def main(model: str, threads: int, max_running: int) -> None:
    """Load, then answer lines."""
    engine = Engine(
        loaded_llm(model, threads), EngineConfig(max_running=max_running, max_context=512, prefix_cache_tokens=0)
    )
    load_trained(engine)
    answer_jobs({"proxy off": partial(_run, engine, None), "proxy on": partial(_run, engine, TRAINED)})


def _run(engine: Engine, proxy: ProxyRef | None, prompts: Sequence[Sequence[int]], tokens: int) -> int:
    return sum(len(answer.token_ids) for answer in engine.generate(requests(prompts, tokens, [proxy])))


if __name__ == "__main__":
    typer.run(main)
