"""This server as who answers a training run's prompts, beside the engine that the run would have of its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory, decisions
from proxy_model.errors import ServersFailed
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.registry import ProxyRegistry
from tests.conftest import steer
from tests.server.conftest import RunningServer, eventually
from trainer.answerer import Answerer
from trainer.config import RolloutConfig, TrainConfig
from trainer.interruption import Interrupted, Interruption
from trainer.metrics import SERVED_METRICS
from trainer.parts import answerer_of
from trainer.prompts import Prompt
from trainer.rewards.terms import trained_term
from trainer.rollout import EncodedPrompt, encode_prompts
from trainer.served.config import ServersConfig

LENT = "mine.rollouts"


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Answered by an engine of the run's own."""
    return TrainConfig(
        output=tmp_path / "run",
        prompts=(Path("prompts.jsonl"),),
        rewards=(trained_term(Path("reward")),),
        proxy="mine",
        registry=tmp_path / "proxies",
        seed=4,
        skam=SkamConfig(top_p=0.98, p_t=0.0005, temperature=1.2),
        rollout=RolloutConfig(max_tokens=12, max_running=5),
    )


def served(config: TrainConfig, *servers: RunningServer) -> TrainConfig:
    return replace(config, servers=ServersConfig(urls=tuple(each.url for each in servers), patience_seconds=20))


def policy_of(llm: FrozenLLM, *, is_conditioned: bool = False) -> ProxyPolicy:
    shape = PolicyConfig(llm_hidden_size=llm.hidden_size, hidden_size=16, is_conditioned=is_conditioned)
    return steer(ProxyPolicy(shape, generator=torch.Generator().manual_seed(2)), bias=-0.5)


def prompts_of(llm: FrozenLLM, number: int = 20) -> list[EncodedPrompt]:
    prompts = [Prompt(messages=[{"role": "user", "content": f"question {index}"}]) for index in range(number)]
    return encode_prompts(prompts, llm.tokenizer, 60)


def answerer(config: TrainConfig, llm: FrozenLLM, interruption: Interruption | None = None) -> Answerer:
    return answerer_of(config, llm, prompts_of(llm), interruption or Interruption())


def assert_same_but_for_rounding(found: Sequence[Trajectory], expected: Sequence[Trajectory]) -> None:
    for mine, its in zip(found, expected, strict=True):
        assert (mine.prompt_token_ids, mine.token_ids) == (its.prompt_token_ids, its.token_ids)
        assert (mine.finish_reason, mine.target_return) == (its.finish_reason, its.target_return)
        assert torch.equal(mine.ranks, its.ranks)
        for part in ("tokens", "is_accept", "is_free"):
            assert torch.equal(getattr(decisions(mine), part), getattr(decisions(its), part)), part
        torch.testing.assert_close(mine.hidden, its.hidden, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            decisions(mine).accept_logits, decisions(its).accept_logits, rtol=1e-3, atol=1e-3, equal_nan=True
        )


def test_in_float32_the_server_s_answers_and_decisions_are_the_own_engine_s(
    server: RunningServer, config: TrainConfig, llm: FrozenLLM
) -> None:
    policy, prompts = policy_of(llm), prompts_of(llm)

    found = answerer(served(config, server), llm).roll_out(policy, prompts, iteration=3)
    expected = answerer(config, llm).roll_out(policy, prompts, iteration=3)

    assert found.texts == expected.texts
    assert len(set(found.texts)) > 8
    assert sum(int(each.ranks.sum()) for each in expected.trajectories) > 20, "the proxy must reject"
    assert_same_but_for_rounding(found.trajectories, expected.trajectories)
    assert found.metrics.keys() == SERVED_METRICS.keys()
    assert found.metrics["rollout/differing_share"] == 0
    assert 0 < found.metrics["rollout/retrace_seconds"] < found.seconds
    assert ProxyRegistry(server.proxies).names() == []
    eventually(lambda: server.engine.list_proxies() == [], "the lent version's end in the server")


@pytest.mark.parametrize("aims", [None, [0.5 * (index % 5) for index in range(20)]])
def test_a_conditioned_policy_is_told_what_each_answer_aims_at_or_nothing(
    server: RunningServer, config: TrainConfig, llm: FrozenLLM, aims: list[float] | None
) -> None:
    policy, prompts = policy_of(llm, is_conditioned=True), prompts_of(llm)

    found = answerer(served(config, server), llm).roll_out(policy, prompts, iteration=0, aims=aims)
    expected = answerer(config, llm).roll_out(policy, prompts, iteration=0, aims=aims)

    assert found.texts == expected.texts
    assert_same_but_for_rounding(found.trajectories, expected.trajectories)


def test_two_servers_over_one_folder_give_the_answers_of_one(
    start: Callable[..., RunningServer], config: TrainConfig, llm: FrozenLLM
) -> None:
    replicas, policy, prompts = [start(), start()], policy_of(llm), prompts_of(llm)

    found = answerer(served(config, *replicas), llm).roll_out(policy, prompts, iteration=1)

    assert found.texts == answerer(config, llm).roll_out(policy, prompts, iteration=1).texts
    assert all(each.engine.num_steps > 0 for each in replicas)


def test_a_full_server_is_asked_until_it_has_answered_everything(
    start: Callable[..., RunningServer], config: TrainConfig, llm: FrozenLLM, caplog: pytest.LogCaptureFixture
) -> None:
    server, policy, prompts = start(max_running=1, max_waiting=1), policy_of(llm), prompts_of(llm, 5)

    found = answerer(served(config, server), llm).roll_out(policy, prompts, iteration=1)

    assert found.texts == answerer(config, llm).roll_out(policy, prompts, iteration=1).texts
    assert caplog.text.count("has not answered a prompt, which waits or goes to another server: it answers 429") == 1


def test_a_run_that_is_taken_back_frees_the_server_s_slots_and_takes_its_version_along(
    server: RunningServer, config: TrainConfig, llm: FrozenLLM
) -> None:
    server.engine.step_seconds = 0.1
    interruption = Interruption(must_abort=lambda: server.engine.num_running > 2)

    with pytest.raises(Interrupted):
        answerer(served(config, server), llm, interruption).roll_out(policy_of(llm), prompts_of(llm), iteration=0)

    eventually(lambda: not server.engine.has_work, "free slots")
    assert ProxyRegistry(server.proxies).versions(LENT) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"skam": SkamConfig(max_candidates=17)}, r"refuses what the run asks for: .* refused \(unsupported\)"),
        ({"rollout": RolloutConfig(max_tokens=600)}, "refuses what the run asks for: .*maximum context length is 512"),
        ({"registry": Path("elsewhere")}, "does it follow the run's registry"),
    ],
)
def test_what_a_server_cannot_do_for_a_run_is_said(
    server: RunningServer,
    config: TrainConfig,
    llm: FrozenLLM,
    tmp_path: Path,
    changes: dict[str, object],
    said: str,
) -> None:
    hasty = ServersConfig(urls=(server.url,), patience_seconds=0.3)
    asked = replace(config, servers=hasty, **changes)  # type: ignore[arg-type]
    registry = tmp_path / asked.registry_folder

    with pytest.raises(ServersFailed, match=said):
        answerer(replace(asked, registry=registry), llm).roll_out(policy_of(llm), prompts_of(llm), iteration=0)

    assert ProxyRegistry(registry).versions(LENT) == []
    assert httpx.get(f"{server.url}/ready").status_code == 200
