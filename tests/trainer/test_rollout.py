import pytest
import torch

from proxy_model.decision.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.decision.features import DecisionFeatures
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from tests.trainer.tiny_llm import tiny_llm
from trainer.batch import flatten
from trainer.config import RolloutConfig
from trainer.prompts import Prompt
from trainer.rewards.model import Conversation
from trainer.rollout import EncodedPrompt, Rollout, encode_prompts, roll_out_policy

SKAM = SkamConfig(top_p=0.95, p_t=0.0005, max_candidates=8)
PROMPTS = [Prompt(messages=[{"role": "user", "content": f"question {number}"}]) for number in range(5)]


def new_policy(features: FeatureMode = "prefix") -> ProxyPolicy:
    config = PolicyConfig(llm_hidden_size=32, hidden_size=16, features=features, initial_acceptance=0.7)
    policy = ProxyPolicy(config, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        policy.actor.output.weight.mul_(200)
    return policy


def new_engine() -> Engine:
    return Engine(tiny_llm(), EngineConfig(max_running=3, max_context=100, max_candidates=8))


def answer(engine: Engine, policy: ProxyPolicy, *, iteration: int = 0, seed: int = 1) -> Rollout:
    prompts = encode_prompts(PROMPTS, engine.llm.tokenizer, 60)
    config = RolloutConfig(max_tokens=12)
    return roll_out_policy(engine, policy, SKAM, prompts, config, iteration=iteration, seed=seed)


@pytest.mark.parametrize("features", ["prefix", "candidate", "both"])
def test_an_update_starts_from_the_probabilities_that_the_engine_recorded(features: FeatureMode) -> None:
    engine, policy = new_engine(), new_policy(features)

    batch = flatten(answer(engine, policy).trajectories, engine.llm.embedding)

    logits = policy.accept_logits(DecisionFeatures(batch.hidden[batch.position], batch.candidate, batch.scalars))
    assert int(batch.is_free.sum()) > 30
    assert float(batch.old_logits[batch.is_free].std()) > 0.1
    torch.testing.assert_close(logits[batch.is_free], batch.old_logits[batch.is_free], atol=1e-4, rtol=1e-4)


def test_answers_come_in_the_order_of_their_prompts() -> None:
    engine = new_engine()

    rollout = answer(engine, new_policy())

    for prompt, trajectory, text in zip(rollout.prompts, rollout.trajectories, rollout.texts, strict=True):
        assert trajectory.prompt_token_ids == prompt.token_ids
        assert engine.llm.tokenizer.decode(trajectory.token_ids) == text
    assert rollout.num_tokens == sum(len(trajectory.token_ids) for trajectory in rollout.trajectories)
    assert rollout.conversations[3] == Conversation([{"role": "user", "content": "question 3"}], rollout.texts[3])


def test_the_same_seed_gives_the_same_answers_and_another_seed_or_iteration_others() -> None:
    """Two draws of five answers of up to twelve tokens agree by chance with a probability far below 1e-9."""
    engine, policy = new_engine(), new_policy()
    first = answer(engine, policy).texts

    assert answer(new_engine(), policy).texts == first
    assert answer(engine, policy).texts == first
    assert answer(engine, policy, seed=2).texts != first
    assert answer(engine, policy, iteration=1).texts != first


def test_the_engine_forgets_the_policy_afterwards() -> None:
    engine = new_engine()

    answer(engine, new_policy())

    assert engine.list_proxies() == []


def test_prompts_that_are_too_long_are_left_out() -> None:
    tokenizer = tiny_llm().tokenizer
    long = Prompt(messages=[{"role": "user", "content": "x" * 50}])
    limit = len(tokenizer.apply_chat_template(long.messages)) - 1

    encoded = encode_prompts([PROMPTS[0], long, PROMPTS[1]], tokenizer, limit)

    assert [prompt.messages for prompt in encoded] == [PROMPTS[0].messages, PROMPTS[1].messages]
    assert encoded[0] == EncodedPrompt(
        messages=PROMPTS[0].messages, token_ids=tuple(tokenizer.apply_chat_template(PROMPTS[0].messages))
    )
