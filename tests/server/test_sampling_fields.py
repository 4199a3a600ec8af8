"""Sampling fields over HTTP: each one changes the answer as it says, and its range is OpenAI's."""

from typing import Any

import pytest

from tests.server.conftest import RunningServer


def text(server: RunningServer, **fields: Any) -> str:
    response = server.chat("hello", model="tiny:base", **{"max_tokens": 24, "ignore_eos": True} | fields)
    assert response.status_code == 200, response.text
    assert "x-ignored-fields" not in response.headers
    return str(response.json()["choices"][0]["message"]["content"])


def id_of(server: RunningServer, character: str) -> str:
    return str(server.llm.tokenizer.encode(character)[0])


def test_a_large_bias_says_nothing_else_and_a_low_one_nothing_of_it(server: RunningServer) -> None:
    plain = text(server)

    assert text(server, logit_bias={id_of(server, "q"): 100}) == "q" * 24
    without = text(server, logit_bias={id_of(server, character): -100 for character in set(plain)})
    assert not set(without) & set(plain)


@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty"])
def test_a_penalty_makes_an_answer_vary_and_a_negative_one_makes_it_dwell(server: RunningServer, field: str) -> None:
    num_distinct = [len(set(text(server, **{field: value}))) for value in (-2, 0, 2)]

    assert num_distinct == sorted(set(num_distinct))


def test_a_repetition_penalty_makes_an_answer_vary(server: RunningServer) -> None:
    assert len(set(text(server, repetition_penalty=5.0))) > len(set(text(server)))


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"min_p": 1.0}])
def test_the_narrowest_filter_is_greedy_at_any_temperature(server: RunningServer, narrow: dict[str, Any]) -> None:
    assert text(server, temperature=2.0, seed=3, **narrow) == text(server)
    assert text(server, temperature=2.0, seed=3) != text(server)


@pytest.mark.parametrize(
    "off",
    [
        {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0.0},
        {"top_k": 0, "logit_bias": {}},
        {"top_k": None, "min_p": None, "repetition_penalty": None, "presence_penalty": None, "logit_bias": None},
    ],
)
def test_values_that_ask_for_nothing_change_nothing(server: RunningServer, off: dict[str, Any]) -> None:
    assert text(server, **off) == text(server)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"presence_penalty": 2.1}, "presence_penalty", "decimal_above_max_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "decimal_below_min_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "decimal_below_min_value"),
        ({"repetition_penalty": 11}, "repetition_penalty", "decimal_above_max_value"),
        ({"min_p": 1.5}, "min_p", "decimal_above_max_value"),
        ({"top_k": -2}, "top_k", "integer_below_min_value"),
        ({"top_k": 1.5}, "top_k", "invalid_type"),
        ({"logit_bias": {"100000": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": "x"}}, "logit_bias.5", "invalid_type"),
        ({"logit_bias": {str(key): 1 for key in range(1025)}}, "logit_bias", "object_above_max_properties"),
        ({"logit_bias": [1]}, "logit_bias", "invalid_type"),
    ],
)
def test_values_out_of_range_are_refused(server: RunningServer, fields: dict[str, Any], param: str, code: str) -> None:
    response = server.chat("hello", **fields)

    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
