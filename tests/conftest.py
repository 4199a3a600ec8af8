"""Shared fixtures: small LLMs that are real in everything but size."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

from proxy_model.decision.config import FeatureMode, PolicyConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.native.library import load_kernels
from tests.architectures import random_model
from tests.endpoint import Answer, listening
from tests.tiny_tokenizer import byte_tokenizer

torch.set_num_threads(1)

needs_kernels = pytest.mark.skipif(load_kernels() is None, reason="this processor lacks AVX-512 BF16")


@pytest.fixture(scope="session")
def small_llm() -> FrozenLLM:
    """A random Llama of 3 layers, 64 wide, 1,500 tokens; ends at token 7."""
    return FrozenLLM(random_model("llama_untied"), byte_tokenizer(), "small")


@pytest.fixture
def listen() -> Iterator[Callable[[Answer], str]]:
    """Starts HTTP servers, which end with the test; says where they are."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(listening(answer))


def steering_policy(
    llm: FrozenLLM, features: FeatureMode = "prefix", seed: int = 3, bias: float = 0.4, *, is_conditioned: bool = False
) -> ProxyPolicy:
    """A proxy that is far from neutral: it rejects a good part of what it is offered."""
    generator = torch.Generator().manual_seed(seed)
    config = PolicyConfig(
        llm_hidden_size=llm.hidden_size, features=features, hidden_size=24, is_conditioned=is_conditioned
    )
    return steer(ProxyPolicy(config, generator=generator), generator, bias)


@torch.no_grad()
def steer(policy: ProxyPolicy, generator: torch.Generator | None = None, bias: float = 0.4) -> ProxyPolicy:
    """`policy` with an output layer that leaves it far from neutral."""
    policy.actor.output.weight.normal_(0.0, 1.5, generator=generator or torch.Generator().manual_seed(7))
    policy.actor.output.bias.fill_(bias)
    return policy


@torch.no_grad()
def dial_policy(llm_hidden_size: int, default_target_return: float = 1.5) -> ProxyPolicy:
    """A greedy proxy that refuses whatever it may unless it aims at more than a tenth of a deviation."""
    config = PolicyConfig(
        llm_hidden_size=llm_hidden_size,
        hidden_size=8,
        is_conditioned=True,
        default_target_return=default_target_return,
    )
    policy = ProxyPolicy(config)
    for parameter in policy.parameters():
        parameter.zero_()
    policy.get_parameter("actor.target.weight")[0, 0] = 10.0
    policy.get_parameter("actor.output.weight")[0, 0] = 1.0
    policy.actor.output.bias.fill_(-1.0)
    return policy
