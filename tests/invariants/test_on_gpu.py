"""On a GPU the decode loop answers as on a CPU, and waits once a step. Where there is one: `pytest -m gpu`."""

from collections.abc import Iterator

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.choice import Choice
from proxy_model.decision.config import FeatureMode, SkamConfig
from proxy_model.decoding import engine as engine_module
from proxy_model.decoding.decode import to_host
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.architectures import random_model
from tests.conftest import steering_policy
from tests.tiny_tokenizer import byte_tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

DEVICE = "cuda"
FEATURES: tuple[FeatureMode, ...] = ("prefix", "candidate", "both")
PROMPTS = [tuple(range(20, 20 + length)) for length in (3, 17, 40, 9, 64, 128)]


def _engine(device: str) -> Engine:
    """In float32, whose sums differ too little between devices to turn a decision of these weights."""
    llm = FrozenLLM(random_model("llama_untied").to(device), byte_tokenizer(), "small")
    engine = Engine(llm, EngineConfig(max_running=5, prefill_tokens=64, max_context=256))
    for version, features in enumerate(FEATURES, start=1):
        policy = steering_policy(llm, features, seed=version)
        engine.load_proxy(ProxyRef("steering", version), policy, SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12))
    return engine


def _requests(proxy: ProxyRef | None, **params: float) -> list[GenerationRequest]:
    settings = SamplingParams(max_tokens=24, seed=11, **params)  # type: ignore[arg-type]
    return [
        GenerationRequest(id=str(number), prompt_token_ids=prompt, params=settings, proxy=proxy)
        for number, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("proxy", [None, *(ProxyRef("steering", version) for version in (1, 2, 3))], ids=str)
def test_answers_are_those_of_the_cpu(proxy: ProxyRef | None, temperature: float) -> None:
    requests = _requests(proxy, temperature=temperature, top_p=0.9)

    on_gpu = _engine(DEVICE).generate(requests)

    expected = _engine("cpu").generate(requests)
    assert [answer.token_ids for answer in on_gpu] == [answer.token_ids for answer in expected]
    assert [answer.usage for answer in on_gpu] == [answer.usage for answer in expected]


@pytest.fixture
def waiting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any wait for the GPU raises, but the one that reads a step's tokens."""

    def read(choice: Choice) -> tuple[list[int], list[int], list[bool]]:
        torch.cuda.set_sync_debug_mode("default")
        found = to_host(choice)
        torch.cuda.set_sync_debug_mode("error")
        return found

    monkeypatch.setattr(engine_module, "to_host", read)
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("waiting_is_an_error")
def test_a_step_waits_for_the_gpu_only_when_it_reads_the_tokens() -> None:
    engine = _engine(DEVICE)
    for request in _requests(ProxyRef("steering", 1), temperature=0.8, top_p=0.9, repetition_penalty=1.1):
        engine.submit(request)

    torch.cuda.set_sync_debug_mode("error")
    num_ended = 0
    while engine.has_work:
        num_ended += sum(delta.finish_reason is not None for delta in engine.step())

    assert num_ended == len(PROMPTS)
