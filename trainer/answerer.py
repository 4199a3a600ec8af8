"""The seam between a run and whoever answers its prompts under the policy in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from trainer.config import TrainConfig
from trainer.interruption import Interruption
from trainer.rollout import EncodedPrompt, Rollout, roll_out_policy


class Answerer(Protocol):
    """Answers whole batches."""

    def roll_out(
        self,
        policy: ProxyPolicy,
        prompts: Sequence[EncodedPrompt],
        *,
        iteration: int,
        aims: Sequence[float | None] | None = None,
    ) -> Rollout:
        """Answer i is drawn with a seed of (run seed, iteration, i), whoever answers. Raises `Interrupted`.

        `aims` are what a conditioned policy is told for each answer; None: nothing.
        """


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """An engine in this process."""

    engine: Engine
    config: TrainConfig
    interruption: Interruption

    def roll_out(
        self,
        policy: ProxyPolicy,
        prompts: Sequence[EncodedPrompt],
        *,
        iteration: int,
        aims: Sequence[float | None] | None = None,
    ) -> Rollout:
        """See `Answerer`."""
        return roll_out_policy(
            self.engine,
            policy,
            self.config.skam,
            prompts,
            self.config.rollout,
            iteration=iteration,
            seed=self.config.seed,
            aims=aims,
            before_step=self.interruption.leave_if_due,
        )
