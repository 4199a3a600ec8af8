"""What an answer's reward is compared with: the other answers to its prompt. Pure functions over (B,) rewards.

The G answers to a prompt stand next to each other, so B = prompts * G. Most of a reward's variance lies between
prompts and says nothing about how to answer one; a baseline takes it out without a critic having to learn it.
"""

from jaxtyping import Float
from torch import Tensor

from trainer.algorithm_config import Baseline


def against_baseline(rewards: Float[Tensor, " B"], group_size: int, kind: Baseline) -> Float[Tensor, " B"]:
    """Rewards less what the prompt's other answers say was to be expected.

    `leave_one_out`: less the mean of the other G - 1 (RLOO, arXiv:2402.14740). `mean`: less the mean of all G.
    `group_norm`: that, over the G rewards' standard deviation (GRPO, arXiv:2402.03300). Equal rewards become 0.
    """
    if kind == "none" or group_size == 1:
        return rewards
    groups = rewards.reshape(-1, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    if kind == "leave_one_out":
        centred = centred * (group_size / (group_size - 1))
    elif kind == "group_norm":
        centred = centred / (groups.std(dim=1, keepdim=True) + 1e-6)
    return centred.flatten()
