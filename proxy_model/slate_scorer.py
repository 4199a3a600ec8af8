"""The actor over whole slates, as it serves: the same numbers for a row whatever else is in the batch.

A float32 matrix product sums in another order for another number of rows, which moves a logit by some 1e-5 and, now and
then, a decision. So the only product over many numbers is taken in float64 and rounded, and the small ones are sums
over the last axis or over four scalars, which no other row has a part in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from proxy_model.features import normalised, slate_scalars
from proxy_model.policy import ProxyPolicy
from proxy_model.skam import Slate


@dataclass(frozen=True, slots=True)
class SlateFeatures:
    """What every version's actor reads of B positions, made once for all rows of a step."""

    states: Float[Tensor, "B D"]
    """h(prefix), normalised, float64."""

    tokens: Int[Tensor, "B K"]
    scalars: Float[Tensor, "B K 4"]
    """See `slate_scalars`."""

    @staticmethod
    def of(hidden: Float[Tensor, "B D"], slate: Slate) -> "SlateFeatures":
        """From raw h(prefix)."""
        return SlateFeatures(
            normalised(hidden).double(), slate.tokens, slate_scalars(slate.logprobs, slate.is_candidate)
        )

    def __getitem__(self, rows: Tensor | slice) -> "SlateFeatures":
        return SlateFeatures(self.states[rows], self.tokens[rows], self.scalars[rows])


class SlateScorer:
    """One version's actor with `prefix` features, its candidate part computed for the whole vocabulary."""

    def __init__(self, policy: ProxyPolicy, embedding: Float[Tensor, "V D"]) -> None:
        actor = policy.actor
        assert actor.prefix is not None
        self._table = policy.candidate_table(embedding) + actor.scalars.bias.detach()  # (V, H)
        self._prefix_weight = actor.prefix.weight.detach().double().T.contiguous()  # (D, H)
        self._target_weight = None if actor.target is None else actor.target.weight.detach().double().T  # (2, H)
        self._scalar_weights = actor.scalars.weight.detach().T.contiguous()  # (4, H)
        self._output_weight = actor.output.weight.detach()[0]  # (H,)
        self._output_bias = actor.output.bias.detach()

    @torch.no_grad()
    def accept_logits(
        self, features: SlateFeatures, target: Float[Tensor, "B 2"] | None = None
    ) -> Float[Tensor, "B K"]:
        """Logit of the acceptance of every candidate; a conditioned actor may be told a target (`target_scalars`)."""
        joined = self._table[features.tokens]  # (B, K, H)
        of_rows = features.states @ self._prefix_weight  # (B, H)
        if self._target_weight is not None and target is not None:
            of_rows += target.double() @ self._target_weight
        joined += of_rows.float()[:, None]
        for number, weight in enumerate(self._scalar_weights):
            joined.addcmul_(features.scalars[..., number, None], weight)
        return (F.silu(joined, inplace=True) * self._output_weight).sum(-1) + self._output_bias
