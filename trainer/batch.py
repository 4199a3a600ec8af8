"""Trajectories of one iteration as one flat batch of positions and decisions, features included.

Pure functions; shapes as in `advantages`: B answers, T positions, N visited decisions, D the LLM's hidden size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from proxy_model.decision.features import target_scalars
from proxy_model.decision.trajectory import Trajectory, decision_features, decisions
from trainer.config import Penalty


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoBatch:
    """Everything that an update reads about a set of answers, except for its `Targets`."""

    lengths: Tensor
    """(B,) positions of each answer."""

    target: Tensor
    """(B, 2) what each answer was told to aim at, see `target_scalars`."""

    hidden: Tensor
    """(T, D) float32, h(prefix): what the critic reads, and part of what the actor reads."""

    ranks: Tensor
    """(T,) index of the accepted candidate in its slate."""

    gaps: Tensor
    """(T,) log p(first candidate) - log p(accepted candidate), at least 0."""

    token_logprobs: Tensor
    """(T,) log p of the accepted candidate under the LLM at SKAM's temperature."""

    position: Tensor
    """(N,) the position that a decision belongs to, ascending."""

    candidate: Tensor
    """(N, D) float32, the candidate's embedding or h(prefix + candidate)."""

    scalars: Tensor
    """(N, S) float32, rank, log p, gap and mass left."""

    is_accept: Tensor
    """(N,) True: accepted."""

    is_free: Tensor
    """(N,) True: the proxy decided. False: SKAM did."""

    old_logits: Tensor
    """(N,) acceptance logit of the proxy that answered; 0 where forced."""

    @property
    def num_positions(self) -> int:
        return self.hidden.shape[0]

    @property
    def old_logprobs(self) -> Tensor:
        """(N,) log-probability of each action under the proxy that answered; 0 where forced."""
        return action_logprobs(self.old_logits, self.is_accept) * self.is_free

    def per_answer(self, of_positions: Tensor) -> Tensor:
        """(B,) sum of a position quantity (T,) over each answer."""
        answer = torch.arange(self.lengths.numel(), device=self.lengths.device).repeat_interleave(self.lengths)
        return of_positions.new_zeros(self.lengths.numel()).index_add(0, answer, of_positions)

    def to_positions(self, of_answers: Tensor) -> Tensor:
        """(T, ...) each answer's quantity (B, ...) at each of its positions."""
        return of_answers.repeat_interleave(self.lengths, dim=0)

    def per_position(self, of_decisions: Tensor) -> Tensor:
        """(T,) sum of a decision quantity (N,) over the free decisions of each position."""
        return of_decisions.new_zeros(self.num_positions).index_add(0, self.position, of_decisions * self.is_free)


def action_logprobs(accept_logits: Tensor, is_accept: Tensor) -> Tensor:
    """(N,) log pi(action): log sigmoid of the logit for an accept, of its negative for a reject."""
    return logsigmoid(torch.where(is_accept, accept_logits, -accept_logits))


def flatten(trajectories: Sequence[Trajectory], embedding: Tensor) -> PpoBatch:
    """Join recorded answers; `embedding` (V, D) is the LLM's. Every position must have been decided (no replays)."""
    parts = [_flatten_one(trajectory, embedding) for trajectory in trajectories]
    lengths = torch.tensor([len(each.ranks) for each in trajectories], device=embedding.device)
    first = lengths.cumsum(0) - lengths
    position = torch.cat([part.pop("position") + offset for part, offset in zip(parts, first, strict=True)])
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    target = target_scalars([each.target_return for each in trajectories]).to(embedding.device)
    return PpoBatch(lengths=lengths, target=target, position=position, **joined)


def penalties(batch: PpoBatch, kind: Penalty, initial_acceptance: float) -> Tensor:
    """(T,) what each position has drifted from the plain LLM, by the measure `kind` of `RewardConfig.penalty`."""
    if kind == "gap":
        return batch.gaps
    if kind == "action_kl":
        return batch.per_position(kl_to_prior(batch.old_logits, initial_acceptance))
    if kind == "token_kl":
        return batch.per_position(batch.old_logprobs) - batch.token_logprobs
    return torch.zeros_like(batch.gaps)


def kl_to_prior(accept_logits: Tensor, acceptance: float) -> Tensor:
    """(N,) KL(Bernoulli(sigmoid(logit)) || Bernoulli(acceptance)) in nats."""
    return _bernoulli_kl(accept_logits, math.log(acceptance), math.log(1 - acceptance))


def kl_of_acceptance(old_logits: Tensor, new_logits: Tensor) -> Tensor:
    """(N,) KL(Bernoulli(sigmoid(old)) || Bernoulli(sigmoid(new))) in nats, whatever was decided."""
    return _bernoulli_kl(old_logits, logsigmoid(new_logits), logsigmoid(-new_logits))


def _bernoulli_kl(accept_logits: Tensor, log_accept: Tensor | float, log_reject: Tensor | float) -> Tensor:
    prob = accept_logits.sigmoid()
    return prob * (logsigmoid(accept_logits) - log_accept) + (1 - prob) * (logsigmoid(-accept_logits) - log_reject)


def _flatten_one(trajectory: Trajectory, embedding: Tensor) -> dict[str, Tensor]:
    device = embedding.device
    ranks = trajectory.ranks.to(device)
    if not len(ranks) or bool((ranks < 0).any()):
        raise ValueError("a rollout must have at least one position, and every token must be in its slate")
    visited = decisions(trajectory)
    features = decision_features(trajectory, embedding)
    if len(features.candidate) != len(visited.positions):
        raise ValueError(f"{len(features.candidate)} candidate states for {len(visited.positions)} decisions")
    logprobs = trajectory.logprobs.to(device)
    accepted = logprobs.gather(1, ranks[:, None]).squeeze(1)
    is_free = visited.is_free.to(device)
    return {
        "hidden": trajectory.hidden.to(device, torch.float32),
        "ranks": ranks,
        "gaps": logprobs[:, 0] - accepted,
        "token_logprobs": accepted,
        "position": visited.positions.to(device),
        "candidate": features.candidate.to(device, torch.float32),
        "scalars": features.scalars.to(device, torch.float32),
        "is_accept": visited.is_accept.to(device),
        "is_free": is_free,
        "old_logits": torch.where(is_free, visited.accept_logits.to(device), 0.0),
    }
