"""All decisions of one response, with everything that the proxy read when it made them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from proxy_model.decision.features import DecisionFeatures, slate_scalars, target_scalars


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """T positions with slates of K candidates."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The response, its end token included."""

    finish_reason: str
    hidden: Float[Tensor, "T D"]
    """h(prefix) at each position, in the LLM's dtype."""

    candidates: Int[Tensor, "T K"]
    logprobs: Float[Tensor, "T K"]
    """Under SKAM's temperature."""

    is_candidate: Bool[Tensor, "T K"]
    is_free: Bool[Tensor, "T K"]
    ranks: Int[Tensor, " T"]
    """Index of the accepted candidate; -1 where a replayed token is outside the slate."""

    accept_logits: Float[Tensor, "T K"]
    """Of the policy that decided; NaN where it was not asked."""

    candidate_hidden: Float[Tensor, "N D"] | None = None
    """h(prefix + candidate) of every visited candidate, in order (`candidate` and `both` features)."""

    target_return: float | None = None
    """What the proxy was told to aim at; None: nothing."""

    @property
    def num_positions(self) -> int:
        """T."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Decisions:
    """The N candidates that a trajectory visited, in order: each position's rejected ones, then its accepted one."""

    positions: Int[Tensor, " N"]
    indices: Int[Tensor, " N"]
    """Place in the slate."""

    is_accept: Bool[Tensor, " N"]
    is_free: Bool[Tensor, " N"]
    tokens: Int[Tensor, " N"]
    accept_logits: Float[Tensor, " N"]


def decisions(trajectory: Trajectory) -> Decisions:
    """Flatten to visited candidates; positions with rank -1 have none."""
    index = torch.arange(trajectory.candidates.shape[-1], device=trajectory.ranks.device)
    positions, indices = (index <= trajectory.ranks[:, None]).nonzero(as_tuple=True)
    return Decisions(
        positions=positions,
        indices=indices,
        is_accept=indices == trajectory.ranks[positions],
        is_free=trajectory.is_free[positions, indices],
        tokens=trajectory.candidates[positions, indices],
        accept_logits=trajectory.accept_logits[positions, indices],
    )


def decision_features(trajectory: Trajectory, embedding: Float[Tensor, "V D"]) -> DecisionFeatures:
    """What the proxy read at every visited decision, in the order of `decisions`."""
    visited = decisions(trajectory)
    scalars = slate_scalars(trajectory.logprobs, trajectory.is_candidate)[visited.positions, visited.indices]
    candidate = embedding[visited.tokens] if trajectory.candidate_hidden is None else trajectory.candidate_hidden
    target = target_scalars([trajectory.target_return]).to(scalars.device).expand(len(scalars), -1)
    return DecisionFeatures(trajectory.hidden[visited.positions], candidate, scalars, target)


@dataclass(frozen=True, slots=True)
class _Position:
    """One finished position, as rows of a step's tensors (views cost nothing until they are stacked)."""

    hidden: Tensor
    candidates: Tensor
    logprobs: Tensor
    is_candidate: Tensor
    is_free: Tensor
    accept_logits: Tensor
    rank: int


class TrajectoryRecorder:
    """Collects positions while an answer is decoded."""

    def __init__(self, target_return: float | None) -> None:
        self._target_return = target_return
        self._positions: list[_Position] = []
        self._candidate_hidden: list[Tensor] = []

    def add_candidate(self, hidden: Tensor) -> None:
        """h(prefix + candidate) (D,) of one visited candidate."""
        self._candidate_hidden.append(hidden)

    def add_position(
        self,
        hidden: Tensor,
        slate_row: tuple[Tensor, Tensor, Tensor, Tensor],
        accept_logits: Tensor,
        rank: int,
    ) -> None:
        """One accepted token: h(prefix) (D,), its slate's row (tokens, logprobs, is_candidate, is_free) and outcome."""
        self._positions.append(_Position(hidden, *slate_row, accept_logits, rank))

    @torch.inference_mode(False)
    def finish(self, prompt_token_ids: tuple[int, ...], token_ids: tuple[int, ...], finish_reason: str) -> Trajectory:
        """The trajectory of an answer of `token_ids`, in tensors that may be learnt from, unlike those of a step."""
        positions = self._positions[: len(token_ids)]
        return Trajectory(
            prompt_token_ids=prompt_token_ids,
            token_ids=token_ids,
            finish_reason=finish_reason,
            hidden=torch.stack([position.hidden for position in positions]),
            candidates=torch.stack([position.candidates for position in positions]),
            logprobs=torch.stack([position.logprobs for position in positions]),
            is_candidate=torch.stack([position.is_candidate for position in positions]),
            is_free=torch.stack([position.is_free for position in positions]),
            ranks=torch.tensor([position.rank for position in positions]),
            accept_logits=torch.stack([position.accept_logits for position in positions]),
            candidate_hidden=torch.stack(self._candidate_hidden) if self._candidate_hidden else None,
            target_return=self._target_return,
        )
