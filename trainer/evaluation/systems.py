"""What an evaluation can ask for answers, and how such systems stand in rows."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.evaluation.origin import Origin
from trainer.evaluation.system_name import Decision, Kind

RERANK_WEIGHT = 8.0
"""Of the reward beside log p; the scores of prefixes differ little between two tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What is asked to answer the prompts."""

    name: str
    """As the user spelled it."""

    kind: Kind
    llm: FrozenLLM | None = None
    """What answers in place of the frozen one."""

    policy: ProxyPolicy | None = None
    skam: SkamConfig | None = None
    """As the proxy was trained, with what the name overrides."""

    decision: Decision = "greedy"
    target_return: float | None = None
    """What a conditioned proxy aims at; None for all others."""

    accept_rate: float | None = None
    """Of a random proxy; None: that of the proxy before it in the table."""

    number: int = 1
    """N of best-of, K of rerank."""

    weight: float = RERANK_WEIGHT
    temperature: float = 0.0
    """Of the LLM's own sampling; 0 is greedy."""

    top_p: float = 1.0
    draw: int = 0
    """Which of several samples of the same prompts this is, from 0."""

    origin: Origin | None = None
    """What the checkpoint's card and its run tell."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the answers depend on beside the prompts, the LLM and the seed; names do not count."""
        aim = {} if self.target_return is None else {"target_return": self.target_return}
        other = {} if self.llm is None else {"llm": self.llm.fingerprint}
        return (
            aim
            | other
            | {
                "kind": self.kind,
                "policy": None if self.policy is None else policy_digest(self.policy),
                "skam": None if self.skam is None else asdict(self.skam),
                "decision": self.decision,
                "accept_rate": self.accept_rate,
                "number": self.number,
                "weight": self.weight if self.kind == "rerank" else None,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "draw": self.draw,
            }
        )

    @property
    def must_have_reward(self) -> bool:
        """Whether the training reward chooses its answers."""
        return self.kind in ("best-of", "rerank")


@dataclass(frozen=True, slots=True)
class Row:
    """Systems that stand in one row of the table: one, or one for each training seed."""

    label: str
    systems: tuple[System, ...]


BASE = System(name="base", kind="base")


def constant_policy(llm_hidden_size: int, accept_rate: float) -> ProxyPolicy:
    """A policy that accepts every candidate with the same probability, whatever it is.

    Below 1 decisions must be sampled; at 1 they may be greedy, too.
    """
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=llm_hidden_size, hidden_size=1), generator=torch.Generator())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.actor.output.bias.fill_(100.0 if accept_rate == 1 else math.log(accept_rate / (1 - accept_rate)))
    return policy.requires_grad_(False)


def max_candidates(rows: Sequence[Row]) -> int:
    """The widest slate that any system asks for; at least the default's."""
    widths = [each.skam.max_candidates for row in rows for each in row.systems if each.skam is not None]
    return max([SkamConfig().max_candidates, *widths])


def policy_digest(policy: ProxyPolicy) -> str:
    """A hash over the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
