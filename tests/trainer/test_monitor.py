import pytest

from trainer.monitor import warnings, warnings_until_now

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


def scored(*scores: tuple[float, float], prompts: int = 4) -> list[dict[str, float]]:
    """Rows of a calm run with these means and deviations, of so many prompts each, as a reward gave them."""
    return [
        {
            **CALM,
            "reward/raw_mean": mean,
            "reward/raw_sd": deviation,
            "reward/term/long": mean,
            "progress/prompts": prompts * (number + 1),
        }
        for number, (mean, deviation) in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("rows", "is_constant"),
    [
        (scored((0.0, 0.0), prompts=12), True),  # a run of one iteration
        (scored(*[(0.7, 3e-8)] * 3), True),  # equal but for rounding
        (scored((0.1, 0.2), *[(0.7, 0.0)] * 5), True),  # it has come to that
        (scored(*[(0.7, 0.0)] * 2), False),  # eight prompts: chance
        (scored(*[(0.7, 0.0)] * 2, (0.8, 0.0)), False),  # equal within each iteration only
        (scored(*[(0.7, 0.0)] * 5, (0.7, 0.1)), False),
        (
            [{k: v for k, v in row.items() if "term" not in k} for row in scored(*[(1.0, 0.0)] * 5)],
            False,
        ),  # given answers
    ],
)
def test_a_reward_that_never_changes_is_no_signal(rows: list[dict[str, float]], is_constant: bool) -> None:
    assert (warnings(rows) == ["no signal: all answers had the same score"]) == is_constant


def test_what_was_ever_wrong_with_a_run_is_found_in_its_rows() -> None:
    rows = scored(*[(0.0, 0.0)] * 6, *[(1.0, 0.3), (1.01, 0.2)] * 4, *[(0.0, 0.1)] * 9)
    for row in rows[8:14]:
        row["answer/nll"] = 1.9

    assert warnings(rows) == []
    assert [each.split(":")[0] for each in sorted(warnings_until_now(rows))] == ["drift", "no signal"]
    assert warnings_until_now(rows) == {each for end in range(len(rows) + 1) for each in warnings(rows[:end])}
