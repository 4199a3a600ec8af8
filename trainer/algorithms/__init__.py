"""How a batch of scored answers changes the proxy; chosen by name."""

from collections.abc import Callable

from trainer.algorithm_config import AlgorithmName
from trainer.algorithms import dpo, dt, likelihood, ppo, rloo, value
from trainer.algorithms.update_log import UpdateStatistics

Update = Callable[..., UpdateStatistics]
"""(policy, optimizer, batch, targets, the algorithm's own settings, seed); changes the policy in place."""

ALGORITHMS: dict[AlgorithmName, Update] = {
    "ppo": ppo.update,
    "dpo": dpo.update,
    "value": value.update,
    "rloo": rloo.update,
    "mle": likelihood.update_mle,
    "rwr": likelihood.update_rwr,
    "awr": likelihood.update_awr,
    "dt": dt.update,
}
