"""A step waits for its device once, when it reads the tokens: shown without a GPU, by tensors that hold no numbers.

Whoever asks such a tensor for a number is refused; every operator that has tensors of host and device is seen.
"""

import copy
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

import proxy_model
from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.choice import Choice
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding import decode
from proxy_model.decoding import engine as engine_module
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm import frozen_llm
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.llm.identity import identity_of
from tests.architectures import ARCHITECTURES, random_model
from tests.tiny_tokenizer import byte_tokenizer

DEVICE = "lazy:0"
"""Stands for a GPU: torch lays fake tensors out there without hardware, which it does not on `cuda` here."""

OURS = str(Path(proxy_model.__file__).parent)

PROXIES = {ProxyRef("prefix", 1): False, ProxyRef("conditioned", 1): True}
PROMPT = tuple(range(20, 120))  # a whole block of 64, and a part of one


class Crossings(TorchDispatchMode):
    """Notes the operators whose tensors are on host and device, but for single numbers, which travel as arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting: list[str] = []
        self.num_transfers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        is_copy = "copy" in str(func) or "to" in str(func)
        if len({tensor.device.type for tensor in tensors if tensor.dim() or is_copy}) > 1:
            if kwargs.get("non_blocking"):
                self.num_transfers += 1
            else:
                self.waiting.append(f"{func} in {_own_line()}")
        return result


def _own_line() -> str:
    """The line of ours that runs."""
    frame = next(each for each in reversed(traceback.extract_stack()) if OURS in each.filename)
    return f"{frame.filename.rpartition(OURS)[2]}:{frame.lineno}"


@pytest.fixture
def device() -> Iterator[None]:
    """Tensors without numbers, wherever they are."""
    mode = FakeTensorMode()
    mode.may_turn_const = lambda t: False  # type: ignore[method-assign]  # else small tensors are computed with, on no device
    with mode:
        yield
    decode._laid_out.cache_clear()


@pytest.fixture
def new_engine(device: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Engine]:
    """Makes an engine of an architecture, with two proxies, on a device that does not exist."""

    def make(architecture: str) -> Engine:
        with torch.device(DEVICE):
            config = copy.deepcopy(ARCHITECTURES[architecture])
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            engine = Engine(FrozenLLM(model, byte_tokenizer(), architecture), EngineConfig(max_running=4))
            for ref, is_conditioned in PROXIES.items():
                shape = PolicyConfig(
                    llm_hidden_size=engine.llm.hidden_size, hidden_size=24, is_conditioned=is_conditioned
                )
                engine.load_proxy(ref, ProxyPolicy(shape), SkamConfig())
        return engine

    monkeypatch.setattr(ProxyPolicy, "to", lambda policy, device: policy)  # made there; fake ones do not move
    monkeypatch.setattr(frozen_llm, "identity_of", lambda *_: IDENTITY)
    return make


IDENTITY = identity_of(random_model("llama_untied"), byte_tokenizer(), "small")


def asking() -> list[GenerationRequest]:
    """Requests that between them use everything that numbers are sent to the device for."""
    plain = SamplingParams(max_tokens=4)
    sampled = SamplingParams(max_tokens=9, temperature=1.0, top_p=0.9, decision="sample")
    processed = SamplingParams(
        max_tokens=9,
        logit_bias=((30, 1.0),),
        repetition_penalty=1.1,
        presence_penalty=0.5,
        top_k=20,
        min_p=0.1,
        min_tokens=3,
    )
    prefix, conditioned = PROXIES
    return [
        GenerationRequest(id="plain", prompt_token_ids=PROMPT, params=plain),
        GenerationRequest(id="sampled", prompt_token_ids=PROMPT, params=sampled, proxy=prefix),
        GenerationRequest(id="processed", prompt_token_ids=PROMPT[:9], params=processed, proxy=conditioned),
        GenerationRequest(id="restored", prompt_token_ids=PROMPT, params=sampled),
        GenerationRequest(id="late", prompt_token_ids=PROMPT, params=plain, proxy=prefix),
    ]


@pytest.mark.parametrize("architecture", ["llama_untied", "gemma2_softcapped"])
def test_a_step_waits_for_its_device_only_when_it_reads_the_tokens(
    architecture: str, new_engine: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(architecture)
    num_read = 0

    def read(choice: Choice) -> tuple[list[int], list[int], list[bool]]:
        nonlocal num_read
        num_read += 1
        size = len(choice.tokens)
        return [33] * size, [0] * size, [False] * size

    monkeypatch.setattr(engine_module, "to_host", read)
    for request in asking():
        engine.submit(request)
    ended = []

    with Crossings() as crossings:
        while engine.has_work:
            ended += [delta.request_id for delta in engine.step() if delta.finish_reason is not None]

    assert sorted(ended) == ["late", "plain", "processed", "restored", "sampled"]
    assert crossings.waiting == []
    assert crossings.num_transfers > engine.num_steps
    assert num_read <= engine.num_steps


def test_reading_the_tokens_is_seen_as_waiting(new_engine: Callable[[str], Engine]) -> None:
    engine = new_engine("llama_untied")

    with pytest.raises(DataDependentOutputException):
        engine.generate(asking()[:1])
