"""The numbers of one iteration, each with its formula."""

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from proxy_model.decision.trajectory import Trajectory
from trainer.advantages import explained_variance
from trainer.algorithms.update_log import UpdateStatistics
from trainer.batch import PpoBatch, kl_to_prior
from trainer.targets import Targets

TERM = "reward/term/"
"""What the metrics of a reward's terms begin with: the mean score of each by its name, before its weight, over
the answers that it is for."""

METRICS: Mapping[str, str] = {
    "reward/raw_mean": "mean score of the reward model",
    "reward/raw_sd": "standard deviation of those scores within the batch",
    "reward/normalised": "mean of clip((score - running mean) / running deviation); without normalise of clip(score)",
    "reward/penalty": "mean per answer of eta * summed penalty",
    "reward/return": "mean per answer of the normalised score minus the penalty",
    "proxy/accept_rate": "accepts / free decisions",
    "proxy/rejections_per_token": "rejects / positions",
    "proxy/forced_share": "positions whose token SKAM forced / positions",
    "proxy/mean_rank": "mean index of the accepted candidate in its slate, from 0",
    "proxy/entropy": "mean entropy of the acceptance over free decisions, nats, before the update",
    "answer/nll": "-mean log p(token) under the LLM at SKAM's temperature",
    "answer/gap": "mean of log p(first candidate) - log p(token)",
    "answer/kl_to_prior": "mean per position of sum over its free decisions of KL(acceptance, Bernoulli(q0))",
    "answer/length": "mean tokens per answer",
    "answer/eos_rate": "answers that ended by themselves / answers",
    "update/policy_loss": "clipped surrogate",
    "update/value_loss": "0.5 * clipped squared error of the critic",
    "update/ptx_loss": "ppo: -mean log-likelihood per unit of the answers that it imitates; 0 without any",
    "update/approx_kl": "KL(old, new) per unit in the policy's last epoch: mean of ratio - 1 - log ratio; mle, rwr, "
    "awr: of the sum over its free decisions of KL(old acceptance, new acceptance)",
    "update/clip_fraction": "units whose ratio is further than policy_clip from 1 / units",
    "update/value_clip_fraction": "positions whose value moved by more than value_clip / positions",
    "update/explained_variance": "1 - var(return - value) / var(return), before the update",
    "update/actor_grad_norm": "before clipping",
    "update/critic_grad_norm": "before clipping",
    "update/effective_samples": "mle, rwr, awr: (sum of weights)^2 / sum of squared weights / number of weights",
    "update/dial_effect": "dt: mean over free decisions of the distance between acceptance at targets 1 and -1",
    "update/pair_accuracy": "dpo: pairs whose chosen answer has the larger log-ratio, after the update / pairs",
    "update/changed_decisions": "dpo, value: free decisions that are greedily not the reference's / free decisions",
    "update/policy_epochs": "epochs of the policy before its KL reached the target",
    "update/entropy": "mean entropy of the acceptance over free decisions in the update, nats",
    "update/learning_rate": "of this iteration",
    "speed/tokens_per_second": "tokens / seconds of the rollout; 0 where the answers are given",
    "speed/learnt_tokens_per_second": "tokens / seconds of rollout, reward model and update",
    "speed/rollout_seconds": "seconds of answering the batch",
    "speed/score_seconds": "seconds of the reward model",
    "speed/update_seconds": "seconds from the scores to the updated weights",
    "speed/peak_rss_mib": "largest resident memory of the process so far",
    "progress/iteration": "iterations done",
    "progress/prompts": "prompts answered so far",
}

HELD_OUT_METRICS: Mapping[str, str] = {
    "held_out/judge": "mean score of the held-out judge, greedy answers to the held-out prompts",
    "held_out/reward": "mean score of the training reward model on the same answers",
    "held_out/length": "mean tokens of the same answers",
    "held_out/best_iteration": "iteration whose answers the held-out judge has liked best so far",
}
"""In the rows of iterations after which the held-out judge has looked."""

SERVED_METRICS: Mapping[str, str] = {
    "rollout/differing_share": "positions whose candidates the run's own LLM would have offered otherwise / positions",
    "rollout/retrace_seconds": "seconds of the run's own LLM over the answers, part of speed/rollout_seconds",
}
"""In the rows of runs whose answers come from servers."""


def reward_metrics(scores: Tensor, normalised: Tensor, penalty_sums: Tensor) -> dict[str, float]:
    """Of (B,) raw scores, normalised scores and weighted penalties of each answer."""
    return {
        "reward/raw_mean": float(scores.mean()),
        "reward/raw_sd": float(scores.std()) if scores.numel() > 1 else 0.0,
        "reward/normalised": float(normalised.mean()),
        "reward/penalty": float(penalty_sums.mean()),
        "reward/return": float((normalised - penalty_sums).mean()),
    }


def term_metrics(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the (B,) scores of each term by its name, NaN where it does not apply; none where it applies to no answer."""
    means = {name: float(of_term.nanmean()) for name, of_term in scores.items()}
    return {f"{TERM}{name}": mean for name, mean in means.items() if not math.isnan(mean)}


def decision_metrics(batch: PpoBatch) -> dict[str, float]:
    """What the proxy and SKAM did."""
    is_free, is_accept = batch.is_free, batch.is_accept
    num_free = max(int(is_free.sum()), 1)
    probs = batch.old_logits[is_free].sigmoid()
    return {
        "proxy/accept_rate": int((is_accept & is_free).sum()) / num_free,
        "proxy/rejections_per_token": int((~is_accept).sum()) / batch.num_positions,
        "proxy/forced_share": int((is_accept & ~is_free).sum()) / batch.num_positions,
        "proxy/mean_rank": float(batch.ranks.float().mean()),
        "proxy/entropy": float((torch.special.entr(probs) + torch.special.entr(1 - probs)).sum()) / num_free,
    }


def answer_metrics(batch: PpoBatch, trajectories: Sequence[Trajectory], initial_acceptance: float) -> dict[str, float]:
    """What the answers look like."""
    return {
        "answer/nll": -float(batch.token_logprobs.mean()),
        "answer/gap": float(batch.gaps.mean()),
        "answer/kl_to_prior": float(batch.per_position(kl_to_prior(batch.old_logits, initial_acceptance)).mean()),
        "answer/length": float(batch.lengths.float().mean()),
        "answer/eos_rate": sum(each.finish_reason == "stop" for each in trajectories) / len(trajectories),
    }


def update_metrics(statistics: UpdateStatistics, targets: Targets) -> dict[str, float]:
    """What the update did."""
    return {
        **{f"update/{name}": float(value) for name, value in asdict(statistics).items()},
        "update/explained_variance": explained_variance(targets.old_values, targets.returns),
    }


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
