"""The demo LLM under its demo proxies over vLLM, in float32: token for token the built-in engine's answers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Finished, GenerationRequest, SamplingParams
from proxy_model.llm.embedded import DEFAULT_LLM
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.paths import models_root
from proxy_model.versions.checkpoint import read_checkpoint
from server.proxies.demo import SHIPPED
from tests.front_door.crowd import new_client
from tests.front_door.server_process import ServerProcess, start_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LENGTH = 40
PROMPTS = [
    "How do I stay calm?",
    "Name three rivers and say where each of them ends.",
    "Write a short poem about rain.",
    "How do I get back at my neighbour?",
    "What is the difference between a virus and a bacterium?",
    "Tell me something about " + "very " * 60 + "old trees.",
]
PROXIES = (None, ProxyRef("helpful", 1), ProxyRef("harmless", 1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A new home that shares only the converted LLM with this user's."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_root())
    arguments = '{"enforce_eager": true, "max_num_batched_tokens": 64}'
    flags = ("--engine", "vllm", "--vllm-args", arguments, "--dtype", "float32", "--max-context", "512")
    server = start_server(home, *flags)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    """In this process."""
    return load_llm(DEFAULT_LLM, dtype="float32", device="cpu")


def expected(llm: FrozenLLM) -> list[Finished]:
    """The engine's answers."""
    engine = Engine(llm, EngineConfig(max_context=512))
    for ref in PROXIES[1:]:
        assert ref is not None
        checkpoint = read_checkpoint(SHIPPED / ref.name, llm.fingerprint)
        engine.load_proxy(ref, checkpoint.policy, checkpoint.skam)
    return engine.generate(
        GenerationRequest(
            id=f"{proxy}/{prompt}",
            prompt_token_ids=tuple(llm.tokenizer.apply_chat_template([{"role": "user", "content": prompt}])),
            params=SamplingParams(max_tokens=LENGTH),
            proxy=proxy,
        )
        for proxy in PROXIES
        for prompt in PROMPTS
    )


async def heard(url: str) -> list[Any]:
    """All at once, by the SDK."""

    async def ask(client: openai.AsyncOpenAI, proxy: ProxyRef | None, prompt: str) -> Any:
        model = f"{DEFAULT_LLM}:{proxy or 'base'}"
        return await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": prompt}], max_tokens=LENGTH
        )

    async with new_client(url) as client:
        return await asyncio.gather(*(ask(client, proxy, prompt) for proxy in PROXIES for prompt in PROMPTS))


def test_a_batch_of_all_proxies_answers_as_the_engine_and_counts_as_it(server: ServerProcess, llm: FrozenLLM) -> None:
    answers = expected(llm)

    told = asyncio.run(heard(server.url))

    assert [each.choices[0].message.content for each in told] == [answer.text for answer in answers]
    assert [each.choices[0].finish_reason for each in told] == [answer.finish_reason for answer in answers]
    for each, answer in list(zip(told, answers, strict=True))[len(PROMPTS) :]:
        report = each.model_extra["proxy"]
        assert (report["rejections"], report["forced"]) == (answer.usage.rejected, answer.usage.forced)
    assert sum(answer.usage.rejected for answer in answers) > 50
