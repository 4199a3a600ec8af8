"""A text that the engine wrote, read again in one pass, is the trajectory that the engine recorded."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.trajectory import Trajectory, decision_features, decisions
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.replay import Text, admissible, replay
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from tests.conftest import steering_policy

SKAM = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)


def _prompts(vocab_size: int) -> list[tuple[int, ...]]:
    lengths = (3, 17, 40, 9, 64, 28, 5, 90)
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randint(8, vocab_size, (length,), generator=generator).tolist()) for length in lengths]


def _recorded(
    llm: FrozenLLM, policy: ProxyPolicy, skam: SkamConfig, prompts: Sequence[tuple[int, ...]] | None = None
) -> list[Trajectory]:
    engine = Engine(llm, EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256))
    proxy = ProxyRef("steering", 1)
    engine.load_proxy(proxy, policy, skam)
    params = SamplingParams(max_tokens=24, seed=11, decision="sample")
    requests = [
        GenerationRequest(id=str(number), prompt_token_ids=prompt, params=params, proxy=proxy, record=True)
        for number, prompt in enumerate(prompts or _prompts(1400))
    ]
    return [each.trajectory for each in engine.generate(requests) if each.trajectory is not None]


def _text(trajectory: Trajectory) -> Text:
    return Text(trajectory.prompt_token_ids, trajectory.token_ids)


def test_replaying_many_answers_at_once_gives_back_their_decisions(small_llm: FrozenLLM) -> None:
    policy = steering_policy(small_llm)
    recorded = _recorded(small_llm, policy, SKAM)

    replayed = replay(small_llm, [_text(each) for each in recorded], SKAM)

    width = SKAM.max_candidates
    assert sum(int(each.ranks.sum()) for each in recorded) > 20, "the proxy must reject for this to show anything"
    for old, new in zip(recorded, replayed, strict=True):
        assert new.ranks.tolist() == old.ranks.tolist()
        assert new.finish_reason == old.finish_reason
        assert torch.equal(new.candidates[new.is_candidate], old.candidates[:, :width][new.is_candidate])
        assert torch.equal(new.is_free, old.is_free[:, :width])
        torch.testing.assert_close(new.hidden, old.hidden, rtol=1e-4, atol=1e-4)
        visited = decisions(old)
        rescored = policy.accept_logits(decision_features(new, small_llm.embedding)).detach()
        torch.testing.assert_close(
            rescored[visited.is_free], visited.accept_logits[visited.is_free], rtol=1e-3, atol=1e-3
        )


def test_a_text_replayed_among_others_is_the_text_replayed_alone(small_llm: FrozenLLM) -> None:
    texts = [_text(each) for each in _recorded(small_llm, steering_policy(small_llm), SKAM)]

    together = replay(small_llm, texts, SKAM)

    for text, among in zip(texts, together, strict=True):
        alone = replay(small_llm, [text], SKAM)[0]
        assert among.ranks.tolist() == alone.ranks.tolist()
        torch.testing.assert_close(among.hidden, alone.hidden, rtol=1e-4, atol=1e-4)


def test_tokens_outside_of_the_slate_are_marked_and_can_be_dropped(small_llm: FrozenLLM) -> None:
    skam = SkamConfig(p_t=0.0, top_p=0.5, max_candidates=2)
    likely = _recorded(small_llm, steering_policy(small_llm), skam)[1]
    strange = (likely.token_ids[0], (likely.token_ids[1] + 700) % 1400, *likely.token_ids[2:])

    old, new = replay(small_llm, [_text(likely), replace(_text(likely), token_ids=strange)], skam)
    kept = admissible(new)

    assert -1 not in old.ranks.tolist()
    assert new.ranks[0] == old.ranks[0]
    assert new.ranks[1] == -1
    is_kept = [rank >= 0 for rank in new.ranks.tolist()]
    assert kept.num_positions == len(kept.hidden) == len(kept.ranks) == sum(is_kept) < len(strange)
    assert kept.token_ids == tuple(token for token, keep in zip(strange, is_kept, strict=True) if keep)
    assert torch.equal(kept.candidates.gather(1, kept.ranks[:, None])[:, 0], torch.tensor(kept.token_ids))
    assert admissible(old) is old


@pytest.mark.slow
@pytest.mark.skipif("PROXY_RLHF_HOME" not in os.environ, reason="needs the converted demo LLM")
def test_the_demo_llm_in_bfloat16_replays_its_own_answers_up_to_ties() -> None:
    """Passes of other sizes round otherwise: measured, 2.8 % of the ranks change, by a neighbour that is as likely."""
    llm = load_llm("smollm2-135m-instruct", dtype="bfloat16")
    questions = ("How do I bake bread?", "Why is the sky blue?", "Name a few rivers.", "Tell me about my cat.")
    prompts = [tuple(llm.tokenizer.apply_chat_template([{"role": "user", "content": each}])) for each in questions]
    recorded = _recorded(llm, ProxyPolicy(PolicyConfig(llm_hidden_size=llm.hidden_size)), SkamConfig(), prompts)

    replayed = replay(llm, [_text(each) for each in recorded], SkamConfig())

    old, new = (torch.cat([each.ranks for each in some]) for some in (recorded, replayed))
    logprobs = torch.cat([each.logprobs for each in recorded])
    is_moved = (old != new) & (new >= 0)
    steps = logprobs.gather(1, old[:, None]) - logprobs.gather(1, new.clamp(min=0)[:, None])
    assert (old != new).float().mean() <= 0.08
    assert not bool(is_moved.any()) or float(steps[is_moved].abs().max()) < 0.3
