"""Preference pairs that are replayed into decisions."""

from pathlib import Path

import pytest
import torch

from proxy_model.decision.config import SkamConfig
from proxy_model.errors import DataError, InvalidParameter
from tests.trainer.tiny_llm import tiny_llm
from trainer.offline.folder import ScoredAnswers, read_data
from trainer.offline.pairs import replay_pairs
from trainer.offline.replayed import ReplayConfig
from trainer.preferences import PreferencePair

SKAM = SkamConfig(top_p=0.95, p_t=0.0005, max_candidates=8)


def pair(question: str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(prompt=[{"role": "user", "content": question}], chosen=chosen, rejected=rejected)


PAIRS = [pair(f"question {number}", "abcdefg"[number:] + "hi", "Zeus") for number in range(5)]


def replayed(output: Path, pairs: list[PreferencePair], **changes: int) -> tuple[dict[str, float], ScoredAnswers]:
    config = ReplayConfig(**{"output": output, "skam": SKAM, "prompts_per_shard": 2, **changes})  # type: ignore[arg-type]
    llm = tiny_llm()
    return dict(replay_pairs(config, llm, pairs)), read_data(output, llm.fingerprint)


def test_every_pair_lies_side_by_side_chosen_first(tmp_path: Path) -> None:
    summary, found = replayed(tmp_path / "data", PAIRS)

    tokenizer = tiny_llm().tokenizer
    texts = [tokenizer.decode(list(each.token_ids[:-1])) for each in found.trajectories]
    assert texts == [text for each in PAIRS for text in (each.chosen, each.rejected)]
    assert found.scores.tolist() == [1, 0] * 5
    assert all(each.token_ids[-1] == 256 and each.finish_reason == "stop" for each in found.trajectories)
    assert found.trajectories[0].prompt_token_ids == found.trajectories[1].prompt_token_ids
    assert summary["answers"] == 10
    ranks = torch.cat([each.ranks for each in found.trajectories])
    assert summary["inadmissible_share"] == pytest.approx(float((ranks < 0).float().mean()))
    assert 0 < summary["inadmissible_share"] < 1


def test_pairs_are_counted_whose_answers_both_teach_something(tmp_path: Path) -> None:
    """Their shards hold two pairs each."""
    unlikely = pair("one more", "hi", "Z" * 40)

    summary, found = replayed(tmp_path / "data", [*PAIRS[:2], unlikely, *PAIRS[2:]], max_tokens=30)

    assert summary["answers"] == 12
    has_any = [bool((each.ranks >= 0).any()) for each in found.trajectories]
    assert has_any[4:6] == [True, False]
    assert summary["learnable_prompts"] == sum(map(all, zip(has_any[::2], has_any[1::2], strict=True)))
    assert 2 <= summary["learnable_prompts"] <= 5


def test_long_answers_are_cut_and_have_no_end(tmp_path: Path) -> None:
    _, found = replayed(tmp_path / "data", PAIRS, max_tokens=4)

    assert {each.num_positions for each in found.trajectories} == {4}
    assert {each.finish_reason for each in found.trajectories} == {"length"}


def test_pairs_that_do_not_fit_or_do_not_differ_are_left_out(tmp_path: Path) -> None:
    pairs = [*PAIRS[:1], pair("q" * 50, "a", "b"), pair("alike at first", "abcdX", "abcdY")]

    _, found = replayed(tmp_path / "data", pairs, max_tokens=4, max_prompt_tokens=40)

    assert len(found.trajectories) == 2


def test_no_pair_that_fits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 3 tokens"):
        replayed(tmp_path / "data", PAIRS, max_prompt_tokens=3)

    assert not (tmp_path / "data").exists()


def test_other_pairs_are_not_mixed_into_a_folder(tmp_path: Path) -> None:
    replayed(tmp_path / "data", PAIRS)

    with pytest.raises(InvalidParameter, match="texts_digest"):
        replayed(tmp_path / "data", [*PAIRS[:4], pair("question 4", "other", "Zeus")])


@pytest.mark.parametrize("name", ["max_tokens", "max_prompt_tokens", "prompts_per_shard"])
def test_replay_settings_have_their_ranges(name: str) -> None:
    with pytest.raises(InvalidParameter, match=name):
        ReplayConfig(output=Path("data"), **{name: 0})  # type: ignore[arg-type]
