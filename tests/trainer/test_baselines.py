"""Rewards against those of the other answers to the same prompt."""

import pytest
import torch
from torch import Tensor

from trainer.algorithm_config import Baseline
from trainer.baselines import against_baseline

REWARDS = torch.tensor([1.0, 2.0, 6.0, -1.0, -1.0, -1.0])
"""Two prompts, three answers each."""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [1.0, 2.0, 6.0, -1.0, -1.0, -1.0]),
        ("leave_one_out", [1 - 8 / 2, 2 - 7 / 2, 6 - 3 / 2, 0.0, 0.0, 0.0]),
        ("mean", [-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]),
        ("group_norm", [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5, 0.0, 0.0, 0.0]),  # variance (4 + 1 + 9) / 2
    ],
)
def test_a_reward_is_compared_with_its_own_prompt_only(kind: Baseline, expected: list[float]) -> None:
    found: Tensor = against_baseline(REWARDS, 3, kind)

    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_one_answer_a_prompt_has_nothing_to_be_compared_with() -> None:
    assert against_baseline(REWARDS, 1, "leave_one_out") is REWARDS
