"""Trajectories made by hand or by a policy without any LLM: what the trainer's tests learn from."""

import torch
from torch import Tensor

from proxy_model.decision.features import DecisionFeatures, slate_scalars
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory


def trajectory_by_hand() -> Trajectory:
    """Two positions, three candidates; at position 0 one free reject and a forced accept, at 1 a free accept."""
    nan = float("nan")
    return Trajectory(
        prompt_token_ids=(1,),
        token_ids=(5, 2),
        finish_reason="stop",
        hidden=torch.tensor([[1.0, 2.0], [3.0, 5.0]]).bfloat16(),
        candidates=torch.tensor([[4, 5, 6], [2, 7, 0]]),
        logprobs=torch.tensor([[-0.5, -1.25, -3.0], [-0.25, -2.0, -9.0]]),
        is_candidate=torch.tensor([[True, True, True], [True, True, False]]),
        is_free=torch.tensor([[True, False, False], [True, False, False]]),
        ranks=torch.tensor([1, 0]),
        accept_logits=torch.tensor([[0.75, nan, nan], [2.0, nan, nan]]),
    )


@torch.no_grad()
def decide_by_policy(policy: ProxyPolicy, embedding: Tensor, length: int, generator: torch.Generator) -> Trajectory:
    """An answer of `length` positions with four random candidates each, walked down by sampled decisions.

    Candidate 3 is forced, and at every third position candidate 0 is.
    """
    num_candidates, width = 4, embedding.shape[1]
    hidden = torch.randn(length, width, generator=generator)
    candidates = torch.randint(len(embedding), (length, num_candidates), generator=generator)
    logprobs = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(length, -1)
    is_candidate = torch.ones(length, num_candidates, dtype=torch.bool)
    is_free = is_candidate.clone()
    is_free[:, -1] = False
    is_free[::3, 0] = False
    features = DecisionFeatures(
        hidden.repeat_interleave(num_candidates, 0),
        embedding[candidates.flatten()],
        slate_scalars(logprobs, is_candidate).flatten(0, 1),
    )
    logits = policy.accept_logits(features).view(length, num_candidates)
    accepts = (torch.rand(length, num_candidates, generator=generator) < logits.sigmoid()) | ~is_free
    ranks = accepts.int().argmax(1)
    return Trajectory(
        prompt_token_ids=(1,),
        token_ids=tuple(candidates.gather(1, ranks[:, None])[:, 0].tolist()),
        finish_reason="length",
        hidden=hidden,
        candidates=candidates,
        logprobs=logprobs,
        is_candidate=is_candidate,
        is_free=is_free,
        ranks=ranks,
        accept_logits=logits,
    )
