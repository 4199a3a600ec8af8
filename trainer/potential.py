"""Potential-based shaping: an answer's reward, handed out as it is earned instead of all at the end.

The training reward reads a running mean of hidden states, so it has an opinion on every prefix of an answer for free.
That opinion is a potential: each position receives what its token adds to it, and the last one what is missing to
the answer's own reward. The sum, and so the best policy, stays what it was (Ng, Harada and Russell, 1999); the credit
reaches the token that earned it without waiting for the critic to find out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from proxy_model.decision.trajectory import Trajectory
from trainer.kinds import members_of
from trainer.rewards.frozen_features import FrozenFeatures
from trainer.rewards.frozen_head import FrozenHead
from trainer.rewards.model import RewardModel
from trainer.rewards.weighted import WeightedReward
from trainer.rollout import Rollout

PRIOR_TOKENS = 16
"""A prefix of t tokens is believed by t / (t + this): the mean of a few states says little."""

_TEXTS_PER_PASS = 16


def rollout_potentials(reward_model: RewardModel, rollout: Rollout) -> list[Tensor]:
    """For each answer (T,) the potential after each of its tokens; 0 where no term for its prompt judges prefixes."""
    found: list[Tensor] = [torch.empty(0)] * len(rollout.trajectories)
    for members in (each.tolist() for each in members_of(rollout.kinds)):
        heads = judging_heads(reward_model, rollout.prompts[members[0]].source)
        potentials = prefix_potentials(heads, [rollout.trajectories[index] for index in members])
        for index, potential in zip(members, potentials, strict=True):
            found[index] = potential
    return found


def judging_heads(reward_model: RewardModel, source: str = "") -> list[tuple[FrozenHead, float]]:
    """The terms of a reward that judge prefixes of answers to a prompt of `source` at no extra cost, and their weights.

    Such is a head on the mean of the frozen LLM's states. What the other terms give still comes at the end.
    """
    if isinstance(reward_model, WeightedReward):
        models = [(term.model, term.weight) for term in reward_model.terms if term.applies_to(source)]
    else:
        models = [(reward_model, 1.0)]
    heads = [(model, weight) for model, weight in models if isinstance(model, FrozenHead)]
    return [(head, weight) for head, weight in heads if not head.features.with_last_token]


def prefix_potentials(heads: Sequence[tuple[FrozenHead, float]], trajectories: Sequence[Trajectory]) -> list[Tensor]:
    """For each answer (T,) the potential after each of its tokens, in the units of the reward's score."""
    sums: list[Tensor] = [torch.zeros(each.num_positions) for each in trajectories]
    for members in _alike(heads):
        for start in range(0, len(trajectories), _TEXTS_PER_PASS):
            for index, potential in enumerate(_read(members, trajectories[start : start + _TEXTS_PER_PASS]), start):
                sums[index] = sums[index] + potential
    return sums


def shaping_rewards(potentials: Sequence[Tensor], deviations: Sequence[float]) -> Tensor:
    """(T,) of all answers: what each token adds to its answer's potential, less the whole at the last token.

    In units of the normalised reward, of which an answer's score has one in `deviations`. Sums to 0 over each answer.
    """
    parts = []
    for potential, deviation in zip(potentials, deviations, strict=True):
        steps = torch.diff(potential, prepend=potential.new_zeros(1))
        steps[-1] -= potential[-1]
        parts.append(steps / deviation)
    return torch.cat(parts)


def _alike(heads: Sequence[tuple[FrozenHead, float]]) -> list[list[tuple[FrozenHead, float]]]:
    """The heads by what they read, so that it is read once for all of them."""
    found: dict[FrozenFeatures, list[tuple[FrozenHead, float]]] = {}
    for head, weight in heads:
        found.setdefault(head.features, []).append((head, weight))
    return list(found.values())


def _read(heads: Sequence[tuple[FrozenHead, float]], trajectories: Sequence[Trajectory]) -> list[Tensor]:
    """For each answer (T,) the weighted potentials of `heads`, which all read the same."""
    llm, features = heads[0][0].llm, heads[0][0].features
    prompts = [list(each.prompt_token_ids[-features.max_prompt_tokens :]) for each in trajectories]
    texts = [prompt + list(each.token_ids) for prompt, each in zip(prompts, trajectories, strict=True)]
    potentials = []
    for prompt, states in zip(prompts, llm.hidden_states(texts, features.taps), strict=True):
        answer = states[len(prompt) :].flatten(1).cpu()  # (T, F)
        parts = [weight / each.head.scale * _opinions(each, answer) for each, weight in heads]
        counts = torch.arange(1, len(answer) + 1)
        potentials.append(torch.stack(parts).sum(0).cumsum(0) / (counts + PRIOR_TOKENS))
    return potentials


def _opinions(head: FrozenHead, states: Tensor) -> Tensor:
    """(T,) what each of the states (T, F) is worth, before the head's scale."""
    return head.head.standardisation.apply(states) @ head.head.weights
