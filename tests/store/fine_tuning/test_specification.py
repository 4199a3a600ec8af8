"""What can be ordered, and what is refused by its dotted name and with what is allowed."""

import json
from typing import Any

import pytest

from proxy_model.errors import InvalidParameter
from store.fine_tuning.hyperparameters import (
    RANGES,
    DpoHyperparameters,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
)
from store.fine_tuning.specification import Method, Specification

GRADER = {"type": "reward_model", "name": "calm", "model": "helpful"}


def method(hyperparameters: Any = None, **changed: Any) -> dict[str, Any]:
    body = {"grader": GRADER, "hyperparameters": hyperparameters or {}}
    return {"type": "reinforcement", "reinforcement": body, **changed}


def specification(**changed: Any) -> Specification:
    values = {"llm": "tiny", "llm_source": "/llms/tiny", "method": Method.parse(method()), "proxy": "polite", "seed": 3}
    return Specification(**{**values, **changed})


def test_auto_is_openais_word_for_the_trainers_choice() -> None:
    parsed = Method.parse(
        method({"n_epochs": "auto", "batch_size": 8, "compute_multiplier": "auto", "reasoning_effort": "default"})
    )

    assert parsed.hyperparameters == ReinforcementHyperparameters(batch_size=8)
    assert parsed.to_json()["reinforcement"]["hyperparameters"] == {
        "algorithm": "ppo",
        "n_epochs": "auto",
        "batch_size": 8,
        "learning_rate_multiplier": "auto",
    }


def test_a_specification_survives_its_way_through_json() -> None:
    ordered = Method.parse(method({"algorithm": "rwr", "beta": 2, "p_t": 0.02, "num_prompts": 96}))
    whole = specification(method=ordered, alias="canary", start="polite@3")

    assert Specification.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert whole.model == "tiny:polite@canary"
    assert specification().model == "tiny:polite"


@pytest.mark.parametrize("name", RANGES)
def test_every_number_may_be_at_its_bounds_and_not_beyond(name: str) -> None:
    bounds = RANGES[name]
    is_offline = name == "rejections_per_token"
    kind: Any = DpoHyperparameters if is_offline else ReinforcementHyperparameters
    others: dict[str, Any] = {} if is_offline else {"algorithm": "rwr"}

    for value in (bounds.low, bounds.high):
        assert getattr(kind(**others | {name: value}), name) == value
    wrong: list[Any] = [bounds.low - 1e-4, bounds.high + 1, True, "many", float("nan")]
    for value in wrong:
        with pytest.raises(InvalidParameter) as refused:
            kind(**others | {name: value})
        assert refused.value.name == name


@pytest.mark.parametrize(
    ("value", "name", "allowed"),
    [
        ("ppo", "method", "reinforcement"),
        ({"type": "supervised", "supervised": {"grader": GRADER}}, "method.supervised.grader", "left out"),
        ({"type": "supervised", "supervised": [1]}, "method.supervised", "hyperparameters"),
        (
            {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}},
            "method.supervised.hyperparameters.beta",
            "n_epochs",
        ),
        (
            {"type": "dpo", "dpo": {"hyperparameters": {"rejections_per_token": 0.95}}},
            "method.dpo.hyperparameters.rejections_per_token",
            "[0, 0.9]",
        ),
        ({"type": "magic"}, "method.type", "reinforcement"),
        (method(dpo={}), "method.dpo", "left out"),
        ({"type": "reinforcement"}, "method.reinforcement", "grader"),
        ({"type": "reinforcement", "reinforcement": {"grader": GRADER, "x": 1}}, "method.reinforcement.x", "left out"),
        (
            {"type": "reinforcement", "reinforcement": {"grader": {"type": "python"}}},
            "method.reinforcement.grader.type",
            "string_check",
        ),
        (method({"lr": 1}), "method.reinforcement.hyperparameters.lr", "learning_rate_multiplier"),
        (method({"algorithm": "sft"}), "method.reinforcement.hyperparameters.algorithm", "rloo"),
        (method({"n_epochs": 0}), "method.reinforcement.hyperparameters.n_epochs", "[1, 50]"),
        (method({"n_epochs": 1.5}), "method.reinforcement.hyperparameters.n_epochs", "[1, 50]"),
        (method({"eval_samples": 3}), "method.reinforcement.hyperparameters.eval_samples", "auto"),
        (method({"beta": 1.0}), "method.reinforcement.hyperparameters.beta", "rwr or awr"),
        (method({"n_epochs": 1, "num_prompts": 9}), "method.reinforcement.hyperparameters.num_prompts", "n_epochs"),
        (
            method({"algorithm": "rloo", "responses_per_prompt": 1}),
            "method.reinforcement.hyperparameters.responses_per_prompt",
            "at least 2",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(value: object, name: str, allowed: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        Method.parse(value)

    assert refused.value.name == name
    assert allowed in refused.value.allowed


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"proxy": "base"}, "suffix"),
        ({"proxy": "../x"}, "suffix"),
        ({"alias": "history"}, "proxy.alias"),
        ({"seed": -1}, "seed"),
    ],
)
def test_names_and_seeds_have_their_forms(changed: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        specification(**changed)

    assert refused.value.name == name


@pytest.mark.parametrize("value", [{"type": "dpo"}, {"type": "dpo", "dpo": {"hyperparameters": {"beta": "auto"}}}])
def test_methods_that_learn_from_given_answers_need_no_grader(value: Any) -> None:
    parsed = Method.parse(value)

    assert (parsed.grader, parsed.hyperparameters) == (None, DpoHyperparameters())
    auto = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert parsed.to_json() == {"type": "dpo", "dpo": {"hyperparameters": auto}}
    chosen = Method.parse({"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}})
    assert chosen.hyperparameters == SupervisedHyperparameters(n_epochs=3)
    assert Method.parse(chosen.to_json()) == chosen
