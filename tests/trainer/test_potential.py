"""Potential-based shaping moves the reward in time and changes no sum."""

from collections.abc import Sequence

import pytest
import torch

from proxy_model.decision.trajectory import Trajectory
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.trainer.tiny_llm import tiny_llm
from trainer.potential import judging_heads, prefix_potentials, shaping_rewards
from trainer.rewards.bradley_terry import Standardisation
from trainer.rewards.frozen_features import FrozenFeatures
from trainer.rewards.frozen_head import FrozenHead
from trainer.rewards.linear_head import LinearHead
from trainer.rewards.model import Conversation, RewardModel
from trainer.rewards.weighted import WeightedReward, WeightedTerm


def _head(llm: FrozenLLM, seed: int = 0, *, with_last_token: bool = False) -> FrozenHead:
    generator = torch.Generator().manual_seed(seed)
    size = llm.hidden_size * (2 if with_last_token else 1)
    head = LinearHead(
        Standardisation(torch.randn(size, generator=generator), torch.full((size,), 2.0)),
        torch.randn(size, generator=generator),
        length_slope=0.0,
        offset=0.0,
        scale=4.0,
        l2=1.0,
    )
    return FrozenHead(llm, FrozenFeatures(taps=(2,), with_last_token=with_last_token), head)


def _sum(**terms: tuple[RewardModel, float]) -> WeightedReward:
    return WeightedReward(
        tuple(WeightedTerm(name=name, weight=weight, model=model) for name, (model, weight) in terms.items())
    )


def _trajectory(token_ids: tuple[int, ...]) -> Trajectory:
    empty = torch.zeros(len(token_ids), 1)
    return Trajectory(
        prompt_token_ids=(65, 66, 67),
        token_ids=token_ids,
        finish_reason="length",
        hidden=empty,
        candidates=empty.long(),
        logprobs=empty,
        is_candidate=empty > 0,
        is_free=empty > 0,
        ranks=empty[:, 0].long(),
        accept_logits=empty,
    )


def test_each_token_receives_what_it_adds_and_the_last_one_returns_the_rest() -> None:
    rewards = shaping_rewards([torch.tensor([0.5, 0.25, 1.5]), torch.tensor([-2.0])], [0.5, 0.25])

    assert rewards.tolist() == pytest.approx([1.0, -0.5, 2.5 - 3.0, -8.0 + 8.0])


def test_the_potential_of_a_prefix_is_the_head_s_score_of_it_believed_by_its_length() -> None:
    llm = tiny_llm()
    head = _head(llm)
    tokens = (70, 71, 72, 73, 74)

    (potential,) = prefix_potentials([(head, 1.0)], [_trajectory(tokens)])

    states = llm.hidden_states([[65, 66, 67, *tokens]], [2])[0][3:, 0]
    for count in (1, 3, 5):
        mean = states[:count].mean(0)
        score = float(((mean - head.head.standardisation.mean) / 2.0 / 32**0.5) @ head.head.weights) / 4.0
        assert float(potential[count - 1]) == pytest.approx(score * count / (count + 16), abs=1e-4)


def test_a_weighted_reward_has_the_weighted_potential_and_score() -> None:
    llm = tiny_llm()
    first, second = _head(llm, 1), _head(llm, 2)
    both = _sum(first=(first, 1.0), second=(second, -0.5))
    answers = [_trajectory((70, 90)), _trajectory((71, 72, 73))]
    conversations = [Conversation([{"role": "user", "content": "ab"}], "xyz")]

    joined = prefix_potentials(judging_heads(both), answers)

    parts = [prefix_potentials([(head, 1.0)], answers) for head in (first, second)]
    for index, potential in enumerate(joined):
        torch.testing.assert_close(potential, parts[0][index] - 0.5 * parts[1][index])
    torch.testing.assert_close(
        both.score(conversations), first.score(conversations) - 0.5 * second.score(conversations)
    )


def test_heads_that_read_alike_have_an_answer_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = tiny_llm()
    first, second, other = _head(llm, 1), _head(llm, 2), _head(llm, 3, with_last_token=True)
    model = _sum(first=(first, 1.0), second=(second, 2.0), other=(other, 1.0))
    read: list[int] = []
    plain = FrozenLLM.hidden_states

    def counted(self: FrozenLLM, sequences: Sequence[Sequence[int]], taps: Sequence[int]) -> list[torch.Tensor]:
        read.append(len(sequences))
        return plain(self, sequences, taps)

    monkeypatch.setattr(FrozenLLM, "hidden_states", counted)
    model.score([Conversation([{"role": "user", "content": "ab"}], "xyz")] * 3)
    prefix_potentials(judging_heads(model), [_trajectory((70, 90))])

    assert read == [3, 3, 1]  # first and second, other; first and second


def test_a_head_that_reads_the_last_token_has_no_opinion_on_prefixes() -> None:
    llm = tiny_llm()
    plain, last = _head(llm), _head(llm, with_last_token=True)

    assert judging_heads(last) == []
    assert judging_heads(_sum(plain=(plain, 0.5), last=(last, 1.0))) == [(plain, 0.5)]
    assert judging_heads(_sum(last=(last, 1.0))) == []
