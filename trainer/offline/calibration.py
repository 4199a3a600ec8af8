"""The threshold of a policy that was learnt from texts: how often it refuses says little about how often it should.

A likelihood or a preference moves every acceptance a little, and greedy decisions ask only on which side of one half it
is. So the output bias is shifted until the policy's own answers have the wanted number of rejections; its order stays.
Own answers are asked because a refusal leads where the recorded answers have not been, and more are refused there: 20 %
of the recorded first choices became .61 rejections per token.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory, decision_features, decisions
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM

_NUM_ANSWERS = 512
"""Recorded answers that are looked at, evenly spread over all."""

_NUM_PROMPTS, _MAX_TOKENS = 32, 48
"""Prompts that are answered in each round, evenly spread over those of the folder, and how far."""

_MAX_ROUNDS = 7
_TOLERANCE = 0.1
"""Part of the wanted rate by which the found one may be off."""

_MAX_STEP = 4.0
"""Between two shares, as long as all found rates are on one side of the wanted one."""

_LEAST_RATE = 1e-3
"""What none at all counts as, in logarithms."""

_FIRST_SHARE = 1 / 3
"""Refused first choices of recorded answers per rejection, to begin with."""

_CALIBRATED = ProxyRef(name="calibrated", version=1)


def calibrated(
    policy: ProxyPolicy, skam: SkamConfig, trajectories: Sequence[Trajectory], llm: FrozenLLM, rejections: float
) -> ProxyPolicy:
    """A copy of `policy` whose greedy answers have about `rejections` per token, measured on the recorded prompts.

    The closest of a few rounds, in which the share of refused recorded first choices is sought.
    """
    logits = first_choice_logits(policy, trajectories, llm.embedding)
    if not logits.numel():
        return policy
    service = _Service.of(llm, skam, trajectories)
    search, share = RateSearch(rejections), rejections * _FIRST_SHARE
    closest, distance = policy, float("inf")
    for _ in range(_MAX_ROUNDS):
        shifted = shifted_to(policy, logits, share)
        found = service.rejections_per_token(shifted)
        if abs(found - rejections) < distance:
            closest, distance = shifted, abs(found - rejections)
        if distance <= _TOLERANCE * rejections:
            break
        share = search.after(share, found)
    return closest


@torch.no_grad()
def first_choice_logits(policy: ProxyPolicy, trajectories: Sequence[Trajectory], embedding: Tensor) -> Tensor:
    """(M,) acceptance logits of the free first candidates of some answers, as a served version would give them."""
    target_return = policy.config.target_return(None)
    found = [torch.empty(0, device=embedding.device)]
    for trajectory in trajectories[:: -(-len(trajectories) // _NUM_ANSWERS)]:
        visited = decisions(trajectory)
        told = replace(trajectory, target_return=target_return)
        is_asked = visited.is_free & (visited.indices == 0)
        features = decision_features(told, embedding)[is_asked]
        found.append(policy.accept_logits(features.to(embedding.device)))
    return torch.cat(found)


@torch.no_grad()
def shifted_to(policy: ProxyPolicy, logits: Tensor, share: float) -> ProxyPolicy:
    """A copy of `policy` whose greedy decisions refuse the `share` of the decisions with its `logits` (M,)."""
    shifted = deepcopy(policy)
    shifted.actor.output.bias.sub_(torch.quantile(logits[:: -(-logits.numel() // 1_000_000)], share))
    return shifted


@dataclass(slots=True)
class RateSearch:
    """Looks for the share with a rate of `wanted`; rates leap up where one refusal brings on the next."""

    wanted: float
    below: tuple[float, float] | None = None
    """Share and found rate, the last one under `wanted`."""

    above: tuple[float, float] | None = None

    def after(self, share: float, found: float) -> float:
        """What to try next: on a straight line in logarithms between below and above, or a step towards the wanted."""
        found = max(found, _LEAST_RATE)
        if found < self.wanted:
            self.below = (share, found)
        else:
            self.above = (share, found)
        if self.below is None or self.above is None:
            return min(share * min(max(self.wanted / found, 1 / _MAX_STEP), _MAX_STEP), 1.0)
        (low, least), (high, most) = self.below, self.above
        part = math.log(self.wanted / least) / math.log(most / least)
        return low * math.pow(high / low, min(max(part, 0.1), 0.9))


@dataclass(frozen=True, slots=True)
class _Service:
    """Some recorded prompts, to be answered as a server would."""

    engine: Engine
    skam: SkamConfig
    prompts: Sequence[tuple[int, ...]]

    @staticmethod
    def of(llm: FrozenLLM, skam: SkamConfig, trajectories: Sequence[Trajectory]) -> "_Service":
        prompts = list(dict.fromkeys(each.prompt_token_ids for each in trajectories))
        chosen = prompts[:: -(-len(prompts) // _NUM_PROMPTS)]
        sizes = EngineConfig(
            max_running=len(chosen),
            max_context=min(max(map(len, chosen)) + _MAX_TOKENS, llm.max_context),
            max_candidates=skam.max_candidates,
        )
        return _Service(Engine(llm, sizes), skam, chosen)

    def rejections_per_token(self, policy: ProxyPolicy) -> float:
        """Of greedy answers to the prompts, told the default return where the policy reads one."""
        room = self.engine.config.max_context
        requests = [
            GenerationRequest(
                id=str(number),
                prompt_token_ids=prompt,
                params=SamplingParams(
                    max_tokens=min(_MAX_TOKENS, room - len(prompt)), target_return=policy.config.target_return(None)
                ),
                proxy=_CALIBRATED,
            )
            for number, prompt in enumerate(self.prompts)
        ]
        self.engine.load_proxy(_CALIBRATED, policy, self.skam)
        try:
            usages = [each.usage for each in self.engine.generate(requests)]
        finally:
            self.engine.unload_proxy(_CALIBRATED)
        return sum(each.rejected for each in usages) / max(sum(each.completion_tokens for each in usages), 1)
