"""Prompts of several kinds: as many of each in an iteration, and scores that are standardised by themselves."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from proxy_model.errors import InvalidParameter
from tests.trainer.runs import Brevity, small_config, two_sided_parts, two_sided_reward
from trainer.advantages import RunningMoments
from trainer.config_file import config_from_mapping, config_to_mapping
from trainer.kinds import KindMoments, dealt_within, with_kinds
from trainer.loop import Supervision, train
from trainer.rewards.weighted import WeightedReward, WeightedTerm
from trainer.rollout import EncodedPrompt, prompt_indices


def encoded(*sources: str) -> list[EncodedPrompt]:
    return [EncodedPrompt(messages=[], token_ids=(7,), source=source) for source in sources]


def test_a_kind_is_the_terms_that_a_prompt_has() -> None:
    both = WeightedTerm(name="both", weight=1.0, model=Brevity())
    long, short = two_sided_reward().terms

    prompts = with_kinds(encoded("short_b", "long_a", "short_c", "long"), WeightedReward((long, both, short)))

    assert [prompt.kind for prompt in prompts] == [1, 0, 1, 0]
    assert [prompt.kind for prompt in with_kinds(encoded("x", "y"), WeightedReward((both,)))] == [0, 0]


@pytest.mark.parametrize(
    ("sources", "named", "says"),
    [
        (("long_a", "short_b", "other"), "rewards", "prompts of source 'other'"),
        (("long_a", "longer"), "rewards[1].sources", "which are ['long_a', 'longer']"),
    ],
)
def test_prompts_without_a_reward_and_rewards_without_a_prompt_are_refused(
    sources: tuple[str, ...], named: str, says: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        with_kinds(encoded(*sources), two_sided_reward())

    assert refused.value.name == named
    assert says in str(refused.value)


def test_every_iteration_has_as_many_prompts_of_each_kind() -> None:
    kinds = [0, 1, 1, 1, 1, 0, 1]

    seen = [prompt_indices(kinds, 4, iteration, seed=3) for iteration in range(5)]

    assert [sum(kinds[index] for index in some) for some in seen] == [2] * 5
    rare = [index for some in seen for index in some if kinds[index] == 0]
    assert all(sorted(rare[start : start + 2]) == [0, 5] for start in range(0, 10, 2))
    often = [index for some in seen for index in some if kinds[index] == 1]
    assert sorted(often[:5]) == sorted(often[5:]) == [1, 2, 3, 4, 6]


def test_each_kind_is_standardised_by_itself() -> None:
    kinds = torch.tensor([0, 1, 0, 1])

    moments = KindMoments().updated(torch.tensor([1.0, 100.0, 5.0, 300.0]), kinds)

    assert moments.normalised(torch.tensor([3.0, 400.0, 9.0, 0.0]), kinds, 2.5).tolist() == [0.0, 2.0, 2.5, -2.0]
    assert moments.deviations(torch.tensor([1, 0, 2])) == [100.0, 2.0, 1.0]
    assert moments.updated(torch.tensor([6.0]), torch.tensor([0])).of_kind(0).count == 3


def test_moments_from_before_there_were_kinds_are_those_of_one() -> None:
    old = RunningMoments(count=3, mean=0.5, squares=2.0)
    new = KindMoments((old, RunningMoments(count=1, mean=4.0)))

    assert KindMoments.from_json(asdict(old)) == KindMoments((old,))
    assert KindMoments.from_json(json.loads(json.dumps(asdict(new)))) == new


def test_shuffled_scores_stay_within_their_kind() -> None:
    scores, kinds = torch.arange(40.0), torch.tensor([0, 1] * 20)

    dealt = dealt_within(scores, kinds, torch.Generator().manual_seed(2))

    assert (dealt % 2).tolist() == kinds.tolist()
    assert dealt.tolist() != scores.tolist()
    assert dealt.sort().values.tolist() == scores.tolist()


def test_several_files_of_prompts_survive_their_way_through_json(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=1, prompts=(Path("a.jsonl"), Path("b.jsonl")))

    saved = config_to_mapping(config)

    assert saved["prompts"] == ["a.jsonl", "b.jsonl"]
    assert config_from_mapping(json.loads(json.dumps(saved))) == config
    assert config_to_mapping(replace(config, prompts=(Path("a.jsonl"),)))["prompts"] == "a.jsonl"


def test_a_proxy_learns_to_answer_two_kinds_of_prompts_in_opposite_ways(tmp_path: Path) -> None:
    """Over seeds 5, 6 and 7 from 11 to 14 characters to 20 to 22, and from 9 to 10 to 3 to 4."""
    config = small_config(tmp_path / "run", iterations=24)

    train(config, parts=two_sided_parts())

    rows = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["reward/term/long"] for row in rows[-4:]) / 4 > 18
    assert sum(row["reward/term/short"] for row in rows[-4:]) / 4 > -600


def test_a_resumed_run_of_two_kinds_is_the_unbroken_run(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=4)
    whole = train(config, parts=two_sided_parts())
    broken = small_config(tmp_path / "broken", iterations=4)

    answers = iter([False, False, True])
    train(broken, parts=two_sided_parts(), supervision=Supervision(must_stop=lambda: next(answers)))
    resumed = train(broken, parts=two_sided_parts(), is_resumed=True)

    for name, weights in whole.policy.state_dict().items():
        assert torch.equal(weights, resumed.policy.state_dict()[name]), name
