"""`proxy-rlhf replay`: preference pairs as trajectories, for `train` with `algorithm = "dpo"`."""

from pathlib import Path
from typing import Annotated

import typer

from cli.rollouts import print_summary


def replay(
    output: Annotated[Path, typer.Option(help="Folder of the trajectories; begun and killed, it is finished.")],
    pairs: Annotated[
        list[Path], typer.Option(exists=True, dir_okay=False, help="Preference pairs, .jsonl or .jsonl.gz; repeatable.")
    ],
    model: Annotated[
        str, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")
    ] = "smollm2-135m-instruct",
    num_pairs: Annotated[int, typer.Option(min=0, help="The first ones only; 0: all.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length at which an answer is cut, in tokens.")] = 64,
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Pairs with longer prompts are left out.")] = 256,
    p_t: Annotated[float, typer.Option(help="SKAM's p_t, as the proxy is to be trained with.")] = 0.005,
    top_p: Annotated[float, typer.Option(help="SKAM's top-p.")] = 0.9,
    temperature: Annotated[float, typer.Option(help="SKAM's temperature.")] = 1.0,
    max_candidates: Annotated[int, typer.Option(help="Length K of a slate.")] = 16,
) -> None:
    """Turn preference pairs into decisions by one pass of the LLM; tells which share of the tokens is inadmissible."""
    from proxy_model.decision.config import SkamConfig
    from proxy_model.llm.frozen_llm import load_llm
    from trainer.offline.pairs import replay_pairs
    from trainer.offline.replayed import ReplayConfig
    from trainer.preferences import load_preferences

    skam = SkamConfig(p_t=p_t, top_p=top_p, temperature=temperature, max_candidates=max_candidates)
    config = ReplayConfig(output=output, skam=skam, max_tokens=max_tokens, max_prompt_tokens=max_prompt_tokens)
    found = load_preferences(pairs)
    print_summary(replay_pairs(config, load_llm(model), found[: num_pairs or None]))
