"""Proxies that can be told apart from outside: version v always takes the candidate at rank v % 16.

An answer of T tokens by version v has exactly T * (v % 16) rejections, and its text is the same for everyone who asks
the same, so an answer that two versions had a hand in would give itself away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.aliases import FILE as ALIASES
from proxy_model.versions.aliases import STABLE, Aliases
from proxy_model.versions.checkpoint import Checkpoint, write_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.bad_checkpoints import Corruption

NUM_RANKS = 16
"""Length of a slate."""

SKAM = SkamConfig(p_t=0.0, top_p=1.0, max_candidates=NUM_RANKS)
"""Everything but the last candidate may be rejected."""

_STEEP = 64.0
_SURE = 9.0


def rank_of(version: int) -> int:
    """The rank that a version takes, which is also its number of rejections per token."""
    return version % NUM_RANKS


def rank_policy(llm_hidden_size: int, rank: int, hidden_size: int) -> ProxyPolicy:
    """Accept logit -9 below `rank` and 23 from there on, by one of the hidden units; the others only weigh."""
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=llm_hidden_size, hidden_size=hidden_size))
    actor = policy.actor
    assert actor.prefix is not None
    with torch.no_grad():
        actor.prefix.weight[0] = actor.candidate.weight[0] = actor.scalars.weight[0] = 0.0
        actor.scalars.weight[0, 0] = _STEEP * 16  # the first scalar is rank / 16
        actor.scalars.bias[0] = _STEEP * (0.5 - rank)
        actor.output.weight.zero_()
        actor.output.weight[0, 0] = 1.0
        actor.output.bias.fill_(-_SURE)
    return policy


@dataclass(frozen=True, slots=True)
class RankPublisher:
    """Publishes versions of one proxy; `aside` is a folder on the same disk."""

    root: Path
    aside: Path
    llm: FrozenLLM
    name: str = "helpful"
    hidden_size: int = 8

    def publish(self) -> int:
        """The next version, in order, as stable."""
        version = self._next_version()
        ref = ProxyRegistry(self.root).publish(self.name, self._checkpoint(version))
        assert ref.version == version
        return version

    def publish_bad(self, corrupt: Corruption) -> int:
        """The next version, bad from the first moment that anyone could see it, and called stable all the same."""
        version, folder = self._next_version(), self.root / self.name
        staging = self.aside / f"{self.name}-{version}"
        write_checkpoint(staging, self._checkpoint(version))
        corrupt(staging)
        staging.rename(folder / str(version))
        Aliases.read(folder).assigned([STABLE], version).stage(folder).replace(folder / ALIASES)
        return version

    def _next_version(self) -> int:
        return 1 + max([0, *ProxyRegistry(self.root).versions(self.name)])

    def _checkpoint(self, version: int) -> Checkpoint:
        policy = rank_policy(self.llm.hidden_size, rank_of(version), self.hidden_size)
        return Checkpoint(policy, SKAM, dict(self.llm.fingerprint), {"version": version})


def expected_texts(llm: FrozenLLM, prompt: str, max_tokens: int) -> Sequence[str]:
    """What the decode loop answers in this process, by rank."""
    engine = Engine(llm, EngineConfig(max_context=512))
    token_ids = tuple(llm.tokenizer.apply_chat_template([{"role": "user", "content": prompt}]))
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    requests = []
    for rank in range(NUM_RANKS):
        ref = ProxyRef("rank", rank)
        engine.load_proxy(ref, rank_policy(llm.hidden_size, rank, 8), SKAM)
        requests.append(GenerationRequest(id=str(rank), prompt_token_ids=token_ids, params=params, proxy=ref))
    return [finished.text for finished in engine.generate(requests)]
