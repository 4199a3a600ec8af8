"""Every system's answers to the same prompts, by one engine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.progress import Progress

from proxy_model.bank import ProxyRef
from proxy_model.config import SkamConfig
from proxy_model.engine import Engine, EngineConfig
from proxy_model.frozen_llm import FrozenLLM
from proxy_model.request import Finished, GenerationRequest, SamplingParams
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.systems import System, constant_policy, max_candidates
from trainer.rollout import EncodedPrompt, derived_seed


@dataclass(frozen=True, slots=True)
class Answers:
    """One system's answers, in the order of the prompts."""

    system: System
    finished: list[Finished]
    seconds: float

    @property
    def num_tokens(self) -> int:
        return sum(len(each.token_ids) for each in self.finished)

    @property
    def accept_rate(self) -> float | None:
        """Every position ends with one accept, free or forced; every reject was free."""
        rejected = sum(each.usage.rejected for each in self.finished)
        accepted = self.num_tokens - sum(each.usage.forced for each in self.finished)
        return accepted / (accepted + rejected) if self.system.kind != "base" and accepted + rejected else None


def answer_all(
    systems: Sequence[System],
    prompts: Sequence[EncodedPrompt],
    config: EvaluationConfig,
    llm: FrozenLLM,
    progress: Progress,
) -> list[Answers]:
    """One entry a system, in order; a proxy is loaded only while it answers."""
    sizes = EngineConfig(
        max_running=config.max_running,
        max_context=config.max_prompt_tokens + config.max_tokens,
        max_candidates=max_candidates(list(systems)),
    )
    engine = Engine(llm, sizes)
    answers: list[Answers] = []
    for number, system in enumerate(systems, start=1):
        ref = _load_into(engine, number, _matched(system, answers), llm)
        answers.append(_answer(engine, ref, system, prompts, config, progress))
        if ref is not None:
            engine.unload_proxy(ref)
    return answers


def _matched(system: System, answers: Sequence[Answers]) -> System:
    """A random proxy without a rate takes that of the last proxy, and its SKAM settings."""
    if system.kind != "random":
        return system
    proxies = [each for each in answers if each.system.kind == "proxy"]
    rate, skam = system.accept_rate, proxies[-1].system.skam if proxies else SkamConfig()
    rate = rate if rate is not None else proxies[-1].accept_rate
    return replace(system, skam=skam, accept_rate=min(max(rate or 0.999, 0.001), 0.999))


def _load_into(engine: Engine, number: int, system: System, llm: FrozenLLM) -> ProxyRef | None:
    if system.kind == "base":
        return None
    ref = ProxyRef(name="evaluated", version=number)
    policy = system.policy
    if policy is None:
        assert system.accept_rate is not None
        policy = constant_policy(llm.hidden_size, system.accept_rate)
    engine.load_proxy(ref, policy, system.skam or SkamConfig())
    return ref


def _answer(
    engine: Engine,
    ref: ProxyRef | None,
    system: System,
    prompts: Sequence[EncodedPrompt],
    config: EvaluationConfig,
    progress: Progress,
) -> Answers:
    """Answer i is drawn with a seed of (`config.seed`, i): the same for every system."""
    decision: Literal["greedy", "sample"] = "sample" if system.kind == "random" else "greedy"
    requests = [
        GenerationRequest(
            id=str(index),
            prompt_token_ids=prompt.token_ids,
            params=SamplingParams(
                max_tokens=config.max_tokens, decision=decision, seed=derived_seed(config.seed, "answer", index)
            ),
            proxy=ref,
        )
        for index, prompt in enumerate(prompts)
    ]
    task = progress.add_task(f"{system.name}: answers", total=len(requests))
    finished: list[Finished] = []
    started = time.perf_counter()
    for first in range(0, len(requests), 2 * config.max_running):
        finished += engine.generate(requests[first : first + 2 * config.max_running])
        progress.update(task, completed=len(finished))
    return Answers(system, finished, time.perf_counter() - started)
