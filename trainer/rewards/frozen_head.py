"""The training reward: a linear Bradley-Terry head on the frozen LLM's hidden states (METHOD: reward models).

It needs no second backbone, and a pass over the answers up to its last layer; the other layers are not run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from proxy_model.errors import BadCheckpoint, FingerprintMismatch, InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.rewards.folder import StoredReward
from trainer.rewards.frozen_features import FrozenFeatures
from trainer.rewards.linear_head import LinearHead
from trainer.rewards.model import Conversation

KIND = "frozen_head"

NON_BINDING = frozenset({"llm_dtype", "tap"})
"""Keys of the LLM's fingerprint that do not change what the head reads, beyond rounding."""


@dataclass(frozen=True, slots=True)
class FrozenHead:
    """A reward model on an LLM that is loaded anyway."""

    llm: FrozenLLM
    features: FrozenFeatures
    head: LinearHead

    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32 in deviations of the training answers' scores, whose mean is 0; an empty answer counts, too."""
        return score_alike([self], conversations)[0]

    def stored(self, card: dict[str, Any]) -> StoredReward:
        """What `write_reward` takes."""
        return StoredReward(
            kind=KIND,
            reads={**asdict(self.features), "taps": list(self.features.taps)},
            fingerprint=dict(self.llm.fingerprint),
            tensors=self.head.tensors(),
            card=card,
        )

    @classmethod
    def from_stored(cls, stored: StoredReward, llm: FrozenLLM) -> Self:
        """Raises `FingerprintMismatch` for another LLM, `BadCheckpoint("format")`."""
        if stored.kind != KIND:
            raise BadCheckpoint("format", f"a reward model of kind {stored.kind!r} is no {KIND}")
        require_same_llm(stored.fingerprint, llm.fingerprint)
        try:
            features = FrozenFeatures(**{**stored.reads, "taps": tuple(stored.reads["taps"])})
        except (TypeError, KeyError, InvalidParameter) as error:
            raise BadCheckpoint("format", f"the reward model's settings are broken: {error}") from error
        num_parts = len(features.taps) * (2 if features.with_last_token else 1)
        return cls(llm, features, LinearHead.from_tensors(stored.tensors, llm.hidden_size * num_parts))


def score_alike(heads: Sequence[FrozenHead], conversations: Sequence[Conversation]) -> list[Tensor]:
    """(B,) of each head as `FrozenHead.score` gives it. They all read the same, and it is read once."""
    if not conversations:
        return [torch.zeros(0) for _ in heads]
    llm, features = heads[0].llm, heads[0].features
    cuts = (features.max_tokens,)
    read = torch.cat(list(features.read(llm, conversations, cuts)))
    log_lengths = features.lengths(llm, conversations, cuts)[:, 0]
    return [each.head.score(read, log_lengths) for each in heads]


def require_same_llm(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises `FingerprintMismatch` naming what differs."""
    for key in sorted((found.keys() | expected.keys()) - NON_BINDING):
        if found.get(key) != expected.get(key):
            raise FingerprintMismatch(key, expected.get(key), found.get(key))
