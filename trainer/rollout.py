"""Answers to a batch of prompts by the decode loop that serves, every decision sampled and recorded."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.llm.tokenizer import ChatTokenizer
from trainer.config import RolloutConfig
from trainer.json_lines import Messages
from trainer.prompts import Prompt
from trainer.rewards.model import Conversation

ROLLOUT_PROXY = "training"
"""Name under which the engine knows the proxy in training; its version is the iteration, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """One conversation that waits for its answer, as messages and as the LLM's token ids."""

    messages: Messages
    token_ids: tuple[int, ...]
    item: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    kind: int = 0
    """Which terms of the reward score the answers to it, see `trainer.kinds`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The answers of one iteration, in the order of the prompts."""

    prompts: tuple[EncodedPrompt, ...]
    texts: tuple[str, ...]
    trajectories: tuple[Trajectory, ...]
    seconds: float
    kinds: Tensor
    """(B,) of the prompts."""

    scores: Tensor | None = None
    """(B,) where they are known already."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of how the answers were gathered, where there is something to tell; see `trainer.metrics.SERVED_METRICS`."""

    @property
    def num_tokens(self) -> int:
        return sum(len(each.token_ids) for each in self.trajectories)

    @property
    def is_cut(self) -> Tensor:
        """(B,) True where an answer stopped at its longest length."""
        return torch.tensor([each.finish_reason == "length" for each in self.trajectories])

    @property
    def conversations(self) -> list[Conversation]:
        """What a reward model scores."""
        pairs = zip(self.prompts, self.texts, strict=True)
        return [Conversation(prompt.messages, text, prompt.item, prompt.source) for prompt, text in pairs]


def room_for_prompt(llm: FrozenLLM, max_prompt_tokens: int, max_tokens: int, name: str) -> int:
    """Tokens that a prompt may have beside its answer. Raises `InvalidParameter` by `name` if `max_tokens` are all."""
    if max_tokens >= llm.max_context:
        allowed = f"less than the {llm.max_context} tokens that {llm.name} has for prompt and answer"
        raise InvalidParameter(name, max_tokens, allowed)
    return min(max_prompt_tokens, llm.max_context - max_tokens)


def encode_prompts(prompts: Sequence[Prompt], tokenizer: ChatTokenizer, max_prompt_tokens: int) -> list[EncodedPrompt]:
    """Prompts through the chat template; those longer than `max_prompt_tokens` are left out."""
    encoded = []
    for prompt in prompts:
        messages = [dict(message) for message in prompt.messages]
        token_ids = tuple(tokenizer.apply_chat_template(messages))
        if len(token_ids) <= max_prompt_tokens:
            encoded.append(
                EncodedPrompt(messages=messages, token_ids=token_ids, item=prompt.item, source=prompt.source)
            )
    return encoded


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2^62) that depends on every part, so that no generator's state need be kept between iterations."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def prompt_indices(kinds: Sequence[int], per_iteration: int, iteration: int, seed: int) -> list[int]:
    """Which of the prompts, whose `kinds` these are, an iteration answers: each kind in its turn.

    The prompts of a kind are walked through in a new order in each epoch, without a gap.
    """
    present = sorted(set(kinds))
    members = [[index for index, kind in enumerate(kinds) if kind == each] for each in present]
    orders: dict[tuple[int, int], list[int]] = {}
    chosen = []
    for cursor in range(iteration * per_iteration, (iteration + 1) * per_iteration):
        turn, kind = divmod(cursor, len(members))
        epoch, place = divmod(turn, len(members[kind]))
        if (epoch, kind) not in orders:
            orders[epoch, kind] = _order(len(members[kind]), derived_seed(seed, "prompts", epoch, *[kind] * (kind > 0)))
        chosen.append(members[kind][orders[epoch, kind][place]])
    return chosen


def _order(size: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def roll_out(
    engine: Engine,
    proxy: ProxyRef,
    prompts: Sequence[EncodedPrompt],
    config: RolloutConfig,
    seed: int,
    aims: Sequence[float | None] | None = None,
    before_step: Callable[[], None] = lambda: None,
) -> Rollout:
    """Answer `prompts` under a loaded proxy; answer i is drawn with a seed of (`seed`, proxy version, i).

    `aims` are what a conditioned proxy is told for each answer; without them it is told nothing.
    """
    started = time.perf_counter()
    requests = [
        GenerationRequest(
            id=f"{proxy.name}-{proxy.version}-{index}",
            prompt_token_ids=prompt.token_ids,
            params=SamplingParams(
                max_tokens=config.max_tokens,
                decision="sample",
                seed=derived_seed(seed, proxy.version, index),
                target_return=None if aims is None else aims[index],
            ),
            proxy=proxy,
            record=True,
            prefix_scope=str(proxy),  # whatever an earlier rollout has read: a resumed run computes what it would have
        )
        for index, prompt in enumerate(prompts)
    ]
    finished = engine.generate(requests, before_step)
    trajectories = tuple(each.trajectory for each in finished if each.trajectory is not None)
    if len(trajectories) != len(requests):
        raise RuntimeError("the engine finished a rollout without its trajectory")
    return Rollout(
        prompts=tuple(prompts),
        texts=tuple(each.text for each in finished),
        trajectories=trajectories,
        seconds=time.perf_counter() - started,
        kinds=torch.tensor([prompt.kind for prompt in prompts]),
    )


def roll_out_policy(
    engine: Engine,
    policy: ProxyPolicy,
    skam: SkamConfig,
    prompts: Sequence[EncodedPrompt],
    config: RolloutConfig,
    *,
    iteration: int,
    seed: int,
    aims: Sequence[float | None] | None = None,
    before_step: Callable[[], None] = lambda: None,
) -> Rollout:
    """`roll_out` with a policy that the engine holds only as long as that takes."""
    proxy = ProxyRef(name=ROLLOUT_PROXY, version=iteration + 1)
    engine.load_proxy(proxy, policy, skam)
    try:
        return roll_out(engine, proxy, prompts, config, seed, aims, before_step)
    finally:
        engine.unload_proxy(proxy)
