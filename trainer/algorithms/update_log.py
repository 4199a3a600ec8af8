"""What an update did, collected over its minibatches."""

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatistics:
    """Means over the minibatches of an update; the policy's over those until it stopped."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    ptx_loss: float = 0.0
    """Of `ppo`: minus the mean log-likelihood per unit of the answers that it imitates; 0 where there are none."""

    approx_kl: float = 0.0
    """KL(old, new) per unit in the last epoch of the policy: mean of ratio - 1 - log ratio, which is one where the
    old policy has answered. Of `mle`, `rwr` and `awr`, which learn from anybody's answers: mean of the exact KL."""

    clip_fraction: float = 0.0
    """Share of units whose ratio is further than `policy_clip` from 1."""

    value_clip_fraction: float = 0.0
    """Share of positions whose value moved by more than `value_clip`."""

    entropy: float = 0.0
    """Of the Bernoulli acceptance, mean over free decisions, in nats."""

    actor_grad_norm: float = 0.0
    critic_grad_norm: float = 0.0
    effective_samples: float = 0.0
    """Of `mle`, `rwr` and `awr`: (sum of weights)^2 / sum of squared weights, over the number of weights."""

    dial_effect: float = 0.0
    """Of `dt`: mean over free decisions of the difference in acceptance between the targets 1 and -1."""

    pair_accuracy: float = 0.0
    """Of `dpo`: share of the pairs whose chosen answer has gained more, after the update."""

    changed_decisions: float = 0.0
    """Of `dpo` and `value`: share of the free decisions that are greedily not the reference's, after the update."""

    policy_epochs: float = 0.0
    """Epochs that the policy did before its KL reached the target."""


class UpdateLog:
    """Sums of what the minibatches report, and the figures that are not means."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.final: dict[str, float] = {}

    def add(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
            self.counts[name] = self.counts.get(name, 0) + 1

    def statistics(self) -> UpdateStatistics:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        known = {each.name for each in fields(UpdateStatistics)}
        return UpdateStatistics(**{name: value for name, value in {**means, **self.final}.items() if name in known})
