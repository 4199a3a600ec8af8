import pytest

from trainer.monitor import warnings

CALM = {"reward/raw_mean": 0.0, "answer/length": 30.0, "answer/kl_to_prior": 0.1, "answer/nll": 1.0}


def history(after: dict[str, float]) -> list[dict[str, float]]:
    """Six rows of a calm start, six of `after`, with a small wobble so that there is a deviation."""
    rows = [CALM] * 6 + [{**CALM, **after}] * 6
    return [{name: value * (1 + 0.01 * (-1) ** row) for name, value in each.items()} for row, each in enumerate(rows)]


COLLAPSE = {"reward/raw_mean": 1.0, "answer/length": 60.0, "answer/kl_to_prior": 0.5, "answer/nll": 0.4}


def test_a_run_that_improves_quietly_raises_no_alarm() -> None:
    assert warnings(history({"reward/raw_mean": 1.0, "answer/kl_to_prior": 0.3, "answer/nll": 1.1})) == []


def test_reward_length_and_kl_up_with_perplexity_down_is_a_collapse() -> None:
    assert [warning.split(":")[0] for warning in warnings(history(COLLAPSE))] == ["pattern collapse"]


@pytest.mark.parametrize("calm", sorted(CALM))
def test_three_signs_of_four_are_no_collapse(calm: str) -> None:
    assert warnings(history({**COLLAPSE, calm: CALM[calm]})) == []


def test_reward_bought_with_perplexity_is_drift() -> None:
    found = warnings(history({"reward/raw_mean": 1.0, "answer/nll": 1.5}))

    assert [warning.split(":")[0] for warning in found] == ["drift"]


def test_a_short_history_says_nothing() -> None:
    assert warnings(history(COLLAPSE)[2:8]) == []
