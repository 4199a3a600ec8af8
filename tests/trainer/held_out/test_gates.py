import math

import pytest
import torch

from trainer.held_out.config import GatesConfig
from trainer.held_out.gates import Reading, Summary, readings


def summary(**changes: object) -> Summary:
    values: dict[str, object] = {
        "name": "x",
        "scores": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "garble_rate": 0.002,
        "length": 40.0,
        "rejections_per_token": 0.3,
        "seconds_per_token": 0.02,
        "kl": 0.15,
    }
    return Summary(**{**values, **changes})  # type: ignore[arg-type]


OTHER = summary(length=50.0, garble_rate=0.001, seconds_per_token=0.016)


@pytest.mark.parametrize(
    ("limits", "gate", "value", "excess"),
    [
        ({"max_garble_rise": 0.0025}, "garble_rise", 0.001, -0.0015),
        ({"max_garble_rise": 0.0004}, "garble_rise", 0.001, 0.0006),
        ({"max_length_drift": 0.25}, "length_drift", 0.2, -0.05),
        ({"max_length_drift": 0.1}, "length_drift", 0.2, 0.1),
        ({"max_kl": 0.1}, "kl", 0.15, 0.05),
        ({"max_rejections_per_token": 0.5}, "rejections_per_token", 0.3, -0.2),
        ({"max_latency_ratio": 1.2}, "latency_ratio", 1.25, 0.05),
    ],
)
def test_a_gate_tells_by_how_much_its_limit_is_missed(
    limits: dict[str, float], gate: str, value: float, excess: float
) -> None:
    found = readings(summary(), OTHER, GatesConfig(**limits))

    assert [(each.gate, each.is_passed) for each in found] == [(gate, excess <= 0)]
    assert [found[0].value, found[0].excess] == pytest.approx([value, excess])


def test_growing_shorter_and_growing_longer_are_the_same_drift() -> None:
    limits = GatesConfig(max_length_drift=0.3)

    longer, shorter = (readings(summary(length=length), OTHER, limits)[0] for length in (70.0, 30.0))

    assert [longer.value, shorter.value] == pytest.approx([0.4, 0.4])


def test_the_reward_s_gate_reads_the_lower_end_of_the_paired_interval() -> None:
    """Every prompt gains a deviation of the other's scores, so that the interval is a point."""
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    gained = summary(scores=scores + scores.std())

    found = readings(gained, summary(scores=scores), GatesConfig(min_reward_gain=0.25))[0]

    assert found.gate == "reward_gain"
    assert [found.value, found.excess] == pytest.approx([1.0, -0.75])


def test_a_gain_that_may_be_chance_does_not_pass() -> None:
    """The mean gain is above 0, the lower end is not."""
    better = summary(scores=torch.tensor([3.0, 1.0, 4.0, 3.0]))

    found = readings(better, summary(), GatesConfig(min_reward_gain=0.0))[0]

    assert not found.is_passed
    assert found.value < 0


def test_what_cannot_be_measured_does_not_pass() -> None:
    reading = Reading(gate="kl", value=math.nan, limit=1.0, excess=math.nan)

    assert not reading.is_passed


def test_without_limits_nothing_is_asked() -> None:
    assert readings(summary(), OTHER, GatesConfig()) == []


def test_the_words_hold_gate_value_limit_and_excess() -> None:
    found = readings(summary(), OTHER, GatesConfig(max_latency_ratio=1.2))

    assert str(found[0]) == "latency_ratio is 1.25, limit 1.2: off by 0.05"
