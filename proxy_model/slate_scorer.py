"""The actor over whole slates, as it serves: the same numbers for a row whatever else is in the batch.

A float32 matrix product sums in another order for another number of rows, which moves a logit by some 1e-5 and, now and
then, a decision. So the only product over many numbers is taken in float64 and rounded, and the small ones are sums
over the last axis or over four scalars, which no other row has a part in.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from proxy_model.features import normalised, slate_scalars
from proxy_model.policy import ProxyPolicy
from proxy_model.skam import Slate


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
        self, hidden: Float[Tensor, "B D"], slate: Slate, target: Float[Tensor, "B 2"] | None = None
    ) -> Float[Tensor, "B K"]:
        """Logit of the acceptance of every candidate, from h(prefix) and, if conditioned, from `target_scalars`."""
        joined = self._table[slate.tokens]  # (B, K, H)
        of_rows = normalised(hidden).double() @ self._prefix_weight  # (B, H)
        if self._target_weight is not None and target is not None:
            of_rows += target.double() @ self._target_weight
        joined += of_rows.float()[:, None]
        scalars = slate_scalars(slate.logprobs, slate.is_candidate)
        for number, weight in enumerate(self._scalar_weights):
            joined.addcmul_(scalars[..., number, None], weight)
        return (F.silu(joined, inplace=True) * self._output_weight).sum(-1) + self._output_bias
