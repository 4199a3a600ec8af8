"""The actor as it serves, over whole slates: the same numbers for a row whatever else is in the batch.

A float32 matrix product sums in another order for another number of rows, which moves a logit by some 1e-5 and, now and
then, a decision. So the only product over many numbers is taken in float64 and rounded, and the small ones are sums
over the last axis or over four scalars, which no other row has a part in.

Rows of many versions cost little more than rows of one: only the look-up and the product are done version by version.
Compiled code does the same in one call a version where it can (`native_scorer`).

What an actor reads that is not looked up is its state: h(prefix), or, once the LLM has read a candidate, h(prefix +
candidate), or the one behind the other (`PolicyConfig.features`). S is how wide that is, D or 2 D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from proxy_model.decision.config import NUM_SCALARS
from proxy_model.decision.features import normalised, slate_scalars
from proxy_model.decision.native_scorer import NativeScorer
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.skam import Slate
from proxy_model.transfer import to_device


@dataclass(frozen=True, slots=True)
class SlateFeatures:
    """What every version's actor reads of B positions, made once for all rows of a step."""

    states: Float[Tensor, "B S"]
    """Normalised, float64."""

    tokens: Int[Tensor, "B K"]
    scalars: Float[Tensor, "B K 4"]
    """See `slate_scalars`."""

    @staticmethod
    def of(states: Float[Tensor, "B S"], slate: Slate) -> "SlateFeatures":
        """From normalised states."""
        return SlateFeatures(states.double(), slate.tokens, slate_scalars(slate.logprobs, slate.is_candidate))

    def __getitem__(self, rows: Tensor | slice) -> "SlateFeatures":
        return SlateFeatures(self.states[rows], self.tokens[rows], self.scalars[rows])


class SlateScorer:
    """One version's actor; with `prefix` features, its candidate part computed for the whole vocabulary."""

    def __init__(self, policy: ProxyPolicy, embedding: Float[Tensor, "V D"]) -> None:
        actor = policy.actor
        self.hidden_size = policy.config.hidden_size
        weight, table = _first_layer(policy, embedding)
        self._table = table.add_(actor.scalars.bias.detach())  # (V, H), or (1, H)
        self._state_weight = weight.double().contiguous()  # (S, H)
        self._target_weight = None if actor.target is None else actor.target.weight.detach().double().T  # (2, H)
        self.last_weights = torch.cat([actor.scalars.weight.detach().T, actor.output.weight.detach()])  # (4 + 1, H)
        self.last_bias = actor.output.bias.detach()
        self.native = self._compiled(weight)

    def accept_logits(
        self, hidden: Float[Tensor, "B D"], slate: Slate, target: Float[Tensor, "B 2"] | None = None
    ) -> Float[Tensor, "B K"]:
        """Logit of the acceptance of every candidate of the slates after raw h(prefix) `hidden`.

        A conditioned actor may be told a target (`target_scalars`).
        """
        return score_shares(normalised(hidden), slate, [Share(self, range(len(hidden)), target)])

    def candidate_logits(
        self,
        vectors: Sequence[Float[Tensor, "N D"]],
        logprobs: Float[Tensor, "N K"],
        is_candidate: Bool[Tensor, "N K"],
        ranks: Int[Tensor, " N"],
        target: Float[Tensor, "N 2"] | None = None,
    ) -> Float[Tensor, " N"]:
        """Logit of the acceptance of N single candidates that the LLM has read (`candidate` and `both` features).

        `vectors` are the raw states that the actor reads, in order; `logprobs` and `is_candidate` are of the slates in
        which the candidates have the places `ranks`. A slate is scored as if all of it had been read, and one place is
        kept: the states are what costs.
        """
        states = torch.cat([normalised(each) for each in vectors], dim=-1)
        unnamed = torch.zeros_like(logprobs, dtype=torch.long)
        slate = Slate(unnamed, logprobs, is_candidate, is_candidate)
        scores = score_shares(states, slate, [Share(self, range(len(states)), target)])
        return scores.gather(-1, ranks[:, None])[:, 0]

    def read(self, features: SlateFeatures, target: Tensor | None, candidates: Tensor, states: Tensor) -> None:
        """Write the first layer's large parts: of every candidate (B * K, H), and of every state (B, H), float64."""
        torch.index_select(self._table, 0, features.tokens.flatten(), out=candidates)
        torch.mm(features.states, self._state_weight, out=states)
        if self._target_weight is not None and target is not None:
            states += target.double() @ self._target_weight

    def _compiled(self, weight: Tensor) -> NativeScorer | None:
        if not NativeScorer.supports(weight):
            return None
        target = None if self._target_weight is None else self._target_weight.float()
        scalars, output = self.last_weights[:NUM_SCALARS], self.last_weights[NUM_SCALARS]
        return NativeScorer(weight, self._table, scalars, target, output, float(self.last_bias))


def _first_layer(policy: ProxyPolicy, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """What the actor multiplies its state by (S, H), and its part of every candidate: none for one that was read."""
    actor = policy.actor
    layers = [layer.weight.detach().T for layer in (actor.prefix, actor.candidate) if layer is not None]
    if policy.config.features == "prefix":
        return layers[0], policy.candidate_table(embedding)
    return torch.cat(layers), layers[0].new_zeros(1, policy.config.hidden_size)


@dataclass(frozen=True, slots=True)
class Share:
    """What one version decides of a step."""

    scorer: SlateScorer
    rows: Sequence[int]
    target: Tensor | None = None
    """(len(rows), 2), see `target_scalars`."""


@torch.no_grad()
def score_shares(states: Float[Tensor, "B S"], slate: Slate, shares: Sequence[Share]) -> Float[Tensor, "B K"]:
    """Accept logits of every candidate of the shares' rows, each under its own version; NaN in rows of no share.

    `states` are normalised, and what all these versions read.
    """
    scores = torch.full(slate.tokens.shape, float("nan"), device=states.device)
    compiled = [(share, share.scorer.native) for share in shares if share.scorer.native is not None]
    if len(compiled) == len(shares):
        parts = slate.tokens, slate.logprobs, slate.is_candidate
        for share, scorer in compiled:
            scorer.score(states, *parts, share.rows, share.target, scores)
        return scores
    features = SlateFeatures.of(states, slate)
    if len(shares) == 1 and len(shares[0].rows) == len(states):
        return _in_order(features, shares)
    for size in {share.scorer.hidden_size for share in shares}:
        of_size = [share for share in shares if share.scorer.hidden_size == size]
        index = to_device(torch.tensor([row for share in of_size for row in share.rows]), states.device)
        scores[index] = _in_order(features[index], of_size)
    return scores


def _in_order(features: SlateFeatures, shares: Sequence[Share]) -> Tensor:
    """(B, K) of the first share's rows, then the second's and so on; all versions' hidden layers are of one size."""
    (num_rows, width), size = features.tokens.shape, shares[0].scorer.hidden_size
    candidates = features.scalars.new_empty(num_rows * width, size)
    states = features.states.new_empty(num_rows, size)
    end = 0
    for share in shares:
        start, end = end, end + len(share.rows)
        share.scorer.read(features[start:end], share.target, candidates[start * width : end * width], states[start:end])
    return _finish(features.scalars, candidates.view(num_rows, width, size), states, shares)


def _finish(scalars: Tensor, candidates: Tensor, states: Tensor, shares: Sequence[Share]) -> Tensor:
    """(B, K) from the first layer's parts."""
    weights = torch.stack([share.scorer.last_weights for share in shares])  # (shares, 5, H)
    bias = torch.stack([share.scorer.last_bias for share in shares])  # (shares, 1)
    if len(shares) > 1:
        owner = [number for number, share in enumerate(shares) for _ in share.rows]
        index = to_device(torch.tensor(owner), scalars.device)
        weights, bias = weights[index], bias[index]
    joined = candidates.add_(states.float()[:, None])
    for number in range(NUM_SCALARS):
        joined.addcmul_(scalars[..., number, None], weights[:, number, None])
    return (F.silu(joined, inplace=True) * weights[:, NUM_SCALARS, None]).sum(-1) + bias
