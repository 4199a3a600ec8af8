"""What the benchmarks put to an engine: the demo LLM, held-out prompts, requests of a fixed length, and proxies."""

from collections.abc import Sequence
from pathlib import Path

import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.versions.checkpoint import read_checkpoint
from trainer.prompts import load_prompts
from trainer.rollout import EncodedPrompt, encode_prompts

ROOT = Path(__file__).parent.parent
DEMO_PROXY = ROOT / "demo" / "proxies" / "helpful"
TRAINED = ProxyRef("trained", 1)
MAX_PROMPT_TOKENS = 128
ALL_CANDIDATES = SkamConfig(p_t=0.0, top_p=1.0)
"""Every one of the K candidates but the last may be rejected."""

_HELD_OUT = ROOT / "data" / "helpful_prompts_test.jsonl.gz"


def loaded_llm(model: str, threads: int) -> FrozenLLM:
    """The LLM, and torch at work with so many threads; 0 leaves that to torch."""
    if threads:
        torch.set_num_threads(threads)
    return load_llm(model)


def held_out(llm: FrozenLLM) -> list[EncodedPrompt]:
    """The helpful test set's prompts, the long ones left out."""
    return encode_prompts(load_prompts(_HELD_OUT), llm.tokenizer, MAX_PROMPT_TOKENS)


def held_out_prompts(llm: FrozenLLM) -> list[tuple[int, ...]]:
    """Their token ids."""
    return [prompt.token_ids for prompt in held_out(llm)]


def load_trained(engine: Engine, folder: Path = DEMO_PROXY) -> None:
    """Have `TRAINED` mean the published proxy in `folder`."""
    checkpoint = read_checkpoint(folder, engine.llm.fingerprint)
    engine.load_proxy(TRAINED, checkpoint.policy, checkpoint.skam)


def untrained_policy(llm: FrozenLLM, reject_rate: float = 0.2, seed: int = 0) -> ProxyPolicy:
    """A new policy that accepts what greedy decisions ask it for, and rejects a share of the candidates where drawn."""
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=llm.hidden_size), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        policy.actor.output.bias.fill_(torch.logit(torch.tensor(1.0 - reject_rate)))
    return policy


def requests(
    prompts: Sequence[Sequence[int]],
    tokens: int,
    proxies: Sequence[ProxyRef | None] = (None,),
    *,
    is_drawn: bool = False,
    temperature: float = 0.0,
) -> list[GenerationRequest]:
    """One answer of `tokens` tokens to each prompt, the proxies taking turns; `is_drawn` draws their decisions."""
    return [
        GenerationRequest(
            id=str(number),
            prompt_token_ids=tuple(prompt),
            params=SamplingParams(
                max_tokens=tokens,
                ignore_eos=True,
                decision="sample" if is_drawn else "greedy",
                temperature=temperature,
                seed=number,
            ),
            proxy=proxies[number % len(proxies)],
        )
        for number, prompt in enumerate(prompts)
    ]
