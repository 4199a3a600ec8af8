"""What the proxy reads at a decision (arXiv:2403.04283, section 2; the paper's input is two vectors wide).

Deviations from the paper, which says "hidden states": 1. three modes, see `PolicyConfig.features`. 2. `NUM_SCALARS`
numbers of the slate ride along. 3. Vectors are layer-normalised, since last-layer states have outlier dimensions.
4. A conditioned proxy also reads the return to aim at (decision transformer, arXiv:2106.01345; arXiv:2308.12050).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_LOGPROB_SCALE = 10.0


@dataclass(frozen=True, slots=True)
class DecisionFeatures:
    """N decisions, each with its position's state, its candidate and its place in the slate."""

    prefix_hidden: Tensor
    """(N, D) h(prefix), raw."""

    candidate: Tensor
    """(N, D) the candidate's input embedding (`prefix` mode) or h(prefix + candidate), raw."""

    scalars: Tensor
    """(N, 4) float32, see `slate_scalars`."""

    target: Tensor | None = None
    """(N, 2) float32, see `target_scalars`; None: no target return is given. Read by conditioned actors only."""

    def __getitem__(self, index: Tensor | slice) -> "DecisionFeatures":
        target = None if self.target is None else self.target[index]
        return DecisionFeatures(self.prefix_hidden[index], self.candidate[index], self.scalars[index], target)

    def to(self, device: torch.device) -> "DecisionFeatures":
        """On another device."""
        target = None if self.target is None else self.target.to(device)
        return DecisionFeatures(
            self.prefix_hidden.to(device), self.candidate.to(device), self.scalars.to(device), target
        )


def slate_scalars(logprobs: Float[Tensor, "*B K"], is_candidate: Bool[Tensor, "*B K"]) -> Float[Tensor, "*B K 4"]:
    """Rank / 16, log p / 10, gap to the likeliest candidate / 10, and the mass that is left in the slate."""
    kept = logprobs.masked_fill(~is_candidate, -_LOGPROB_SCALE)
    best = kept.amax(-1, keepdim=True)
    probs = kept.exp() * is_candidate
    mass_left = probs.flip(-1).cumsum(-1).flip(-1)
    rank = torch.arange(logprobs.shape[-1], device=logprobs.device, dtype=torch.float32) / 16.0
    scaled = kept.clamp(min=-2 * _LOGPROB_SCALE) / _LOGPROB_SCALE
    return torch.stack([rank.expand_as(kept), scaled, scaled - best / _LOGPROB_SCALE, mass_left], dim=-1)


def target_scalars(target_returns: Sequence[float | None]) -> Float[Tensor, "B 2"]:
    """The target return and 1 for each row that is given one, 0 and 0 for the others."""
    return torch.tensor([(0.0, 0.0) if each is None else (each, 1.0) for each in target_returns]).view(-1, 2)


def normalised(vectors: Tensor) -> Tensor:
    """Layer normalisation without scale and shift, in float32."""
    vectors = vectors.float()
    return F.layer_norm(vectors, vectors.shape[-1:])
