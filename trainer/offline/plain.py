"""The LLM's own samples as trajectories: what it says by itself, replayed into the decisions that lead there."""

import time
from collections.abc import Sequence

import torch

from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.replay import Text, replay
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from trainer.rollout import EncodedPrompt, Rollout, derived_seed


def roll_out_plain(
    engine: Engine, skam: SkamConfig, prompts: Sequence[EncodedPrompt], max_tokens: int, seed: int
) -> Rollout:
    """Answer `prompts` without a proxy at SKAM's temperature and top-p; answer i is drawn with (`seed`, i).

    A token beyond the K-th of its slate has rank -1.
    """
    started = time.perf_counter()
    requests = [
        GenerationRequest(
            id=str(index),
            prompt_token_ids=prompt.token_ids,
            params=SamplingParams(
                max_tokens=max_tokens,
                temperature=skam.temperature,
                top_p=skam.top_p,
                seed=derived_seed(seed, "plain", index),
            ),
        )
        for index, prompt in enumerate(prompts)
    ]
    finished = engine.generate(requests)
    texts = [Text(prompt.token_ids, each.token_ids) for prompt, each in zip(prompts, finished, strict=True)]
    return Rollout(
        prompts=tuple(prompts),
        texts=tuple(each.text for each in finished),
        trajectories=tuple(replay(engine.llm, texts, skam)),
        seconds=time.perf_counter() - started,
        kinds=torch.tensor([prompt.kind for prompt in prompts]),
    )
