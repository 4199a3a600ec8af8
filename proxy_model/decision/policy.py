"""The proxy: an actor that accepts or rejects a candidate and a critic that values a position.

Both are 2-layer MLPs (arXiv:2403.04283, appendix B). The actor's first layer is kept as its parts, one per input, so
that the candidates' part can be computed for a whole vocabulary once per version (`candidate_table`).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from proxy_model.decision.config import NUM_SCALARS, NUM_TARGET_SCALARS, PolicyConfig
from proxy_model.decision.features import DecisionFeatures, normalised

_OUTPUT_GAIN = 0.01

_ROWS = 512
"""Of the vocabulary at once: the allocator keeps much of what many rows need in between, by thread and for good."""


class Actor(nn.Module):
    """Logit of pi(accept | state, candidate)."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        size = config.llm_hidden_size
        self.reads_prefix = config.features != "candidate"
        self.prefix = nn.Linear(size, config.hidden_size, bias=False) if self.reads_prefix else None
        self.candidate = nn.Linear(size, config.hidden_size, bias=False)
        self.scalars = nn.Linear(NUM_SCALARS, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, 1)
        self.target = nn.Linear(NUM_TARGET_SCALARS, config.hidden_size, bias=False) if config.is_conditioned else None

    def forward(
        self,
        prefix_part: Tensor | None,
        candidate_part: Tensor,
        scalars: Float[Tensor, "*N 4"],
        target_part: Tensor | None = None,
    ) -> Float[Tensor, "*N"]:
        """Join the first layer's parts (..., H) and finish the MLP."""
        joined = candidate_part + self.scalars(scalars)
        for part in (prefix_part, target_part):
            if part is not None:
                joined = joined + part
        logits: Tensor = self.output(F.silu(joined))[..., 0]
        return logits

    def prefix_part(self, hidden: Tensor) -> Tensor | None:
        """(..., D) -> (..., H), None where the actor does not read h(prefix)."""
        return None if self.prefix is None else self.prefix(normalised(hidden))

    def candidate_part(self, candidate: Tensor) -> Tensor:
        """(..., D) -> (..., H)."""
        part: Tensor = self.candidate(normalised(candidate))
        return part

    def target_part(self, target: Float[Tensor, "*N 2"] | None) -> Tensor | None:
        """(..., 2) -> (..., H), None where the actor is not conditioned or no target is given."""
        return None if self.target is None or target is None else self.target(target)


class Critic(nn.Module):
    """Expected return of the rest of the response, from h(prefix)."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.llm_hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, 1)

    def forward(self, hidden: Float[Tensor, "T D"]) -> Float[Tensor, " T"]:
        """One value per position."""
        values: Tensor = self.output(F.silu(self.hidden(normalised(hidden))))[..., 0]
        return values


class ProxyPolicy(nn.Module):
    """Actor and critic of one proxy, in float32."""

    def __init__(self, config: PolicyConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.actor = Actor(config)
        self.critic = Critic(config)
        self._initialise(generator)

    def accept_logits(self, features: DecisionFeatures) -> Float[Tensor, " N"]:
        """Logit of the acceptance probability of N decisions."""
        actor = self.actor
        logits: Tensor = actor(
            actor.prefix_part(features.prefix_hidden),
            actor.candidate_part(features.candidate),
            features.scalars,
            actor.target_part(features.target),
        )
        return logits

    def values(self, prefix_hidden: Float[Tensor, "T D"]) -> Float[Tensor, " T"]:
        """The critic's value of T positions, in units of the normalised reward."""
        values: Tensor = self.critic(prefix_hidden)
        return values

    @torch.no_grad()
    def candidate_table(self, embedding: Float[Tensor, "V D"]) -> Float[Tensor, "V H"]:
        """The first layer's candidate part for every token of the vocabulary (`prefix` mode)."""
        table = embedding.new_empty(len(embedding), self.config.hidden_size, dtype=torch.float32)
        for rows, part in zip(table.split(_ROWS), embedding.split(_ROWS), strict=True):
            rows.copy_(self.actor.candidate_part(part))
        return table

    def _initialise(self, generator: torch.Generator | None) -> None:
        """Version 0 behaves as the plain LLM: outputs near zero, bias logit(q0) above zero."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter, self._gain(name), generator=generator)
        acceptance = self.config.initial_acceptance
        nn.init.constant_(self.actor.output.bias, math.log(acceptance / (1 - acceptance)))

    def _gain(self, name: str) -> float:
        """Weights of the target are as large as the state's part of the layer, about 1 for each unit.

        Then the layer mixes the two from the start. With unit columns the dial stays disconnected (docs/log.md).
        """
        if name.endswith("output.weight"):
            return _OUTPUT_GAIN
        return math.sqrt(self.config.hidden_size) if name == "actor.target.weight" else 1.0
