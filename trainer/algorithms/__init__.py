"""How a batch of scored answers changes the proxy; chosen by name."""

from trainer.algorithms import ppo

ALGORITHMS = {"ppo": ppo.update}
