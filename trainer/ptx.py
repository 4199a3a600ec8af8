"""PPO-max's pre-training loss, for a proxy: it goes on imitating given answers while it learns from a reward.

The paper mixes the loss of pre-training texts into PPO's, so that the policy does not forget how to write. A proxy can
only choose among what the frozen LLM offers, so its texts are answers that somebody wrote or liked, read by the LLM
once (`proxy-rlhf replay`) and turned into the decisions that lead to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from proxy_model.decision.trajectory import Trajectory
from trainer.batch import PpoBatch, flatten
from trainer.rollout import derived_seed, prompt_indices


@dataclass(frozen=True, slots=True)
class Imitated:
    """Answers to imitate in one update."""

    batch: PpoBatch
    """Its log-probabilities of a policy that answered mean nothing: nobody's decisions were recorded."""

    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """All answers to imitate, and how much they count."""

    answers: Sequence[Trajectory]
    weight: float
    embedding: Tensor
    """The LLM's (V, D)."""

    def of(self, iteration: int, count: int, seed: int) -> Imitated:
        """`count` of the answers, walked through in a new order in each epoch: a resumed run imitates the same ones."""
        chosen = prompt_indices([0] * len(self.answers), count, iteration, derived_seed(seed, "ptx"))
        return Imitated(flatten([self.answers[index] for index in chosen], self.embedding), self.weight)
