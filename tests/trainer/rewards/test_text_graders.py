import math
from typing import Any

import pytest

from proxy_model.errors import GraderFailed
from store.fine_tuning.graders import Metric, StringCheckGrader, parse_grader
from tests.trainer.tiny_llm import tiny_llm
from trainer.rewards.build import RewardBuilder
from trainer.rewards.model import Conversation
from trainer.rewards.text_graders import StringCheck, similarity

USER = [{"role": "user", "content": "?"}]


def score(grader: dict[str, Any], answer: str, item: dict[str, Any]) -> float:
    model = RewardBuilder(tiny_llm()).build(parse_grader({"name": "x", **grader}))
    return float(model.score([Conversation(USER, answer, item)])[0])


@pytest.mark.parametrize(
    ("operation", "answer", "expected"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "paris", 0.0),
        ("ne", "Paris", 0.0),
        ("ne", "Lyon", 1.0),
        ("like", "It is Paris.", 1.0),
        ("like", "It is paris.", 0.0),
        ("ilike", "IT IS PARIS.", 1.0),
        ("ilike", "Lyon", 0.0),
    ],
)
def test_a_string_check_compares_with_the_row(operation: str, answer: str, expected: float) -> None:
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.capital}}"}

    assert score({"type": "string_check", "operation": operation, **texts}, answer, {"capital": "Paris"}) == expected


def test_a_row_without_the_field_fails_by_the_grader_s_name() -> None:
    grader = StringCheckGrader(
        name="capital", input="{{sample.output_text}}", reference="{{item.city}}", operation="eq"
    )

    with pytest.raises(GraderFailed, match="'capital' failed: a prompt's item has no field 'city'"):
        StringCheck(grader).score([Conversation(USER, "Paris", {"capital": "Paris"})])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("fuzzy_match", 1 - 6 / 30),  # three characters out and three in, of 15 + 15
        ("rouge_1", 0.75),  # 3 of 4 words, both ways
        ("rouge_2", 1 / 3),  # of 3 pairs only "the big"
        ("rouge_3", 0.0),
        ("rouge_l", 0.75),
        ("gleu", 4 / 10),  # 3 + 1 of 4 + 3 + 2 + 1 runs of one to four words
        ("bleu", (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25),  # no run of three: half of one in 2; of four: a quarter in 1
    ],
)
def test_similarity_is_what_one_counts_by_hand(metric: Metric, expected: float) -> None:
    assert similarity(metric)("the big cat sat", "the big dog sat") == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_5", "rouge_l"])
def test_equal_texts_are_alike_and_an_empty_answer_is_not(metric: Metric) -> None:
    text = "one two three four five six"

    assert similarity(metric)(text, text) == pytest.approx(1.0)
    assert similarity(metric)("", text) == 0.0
    assert similarity(metric)("seven", text) < 0.5


def test_a_formula_weighs_graders_of_the_same_answer() -> None:
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.capital}}"}
    graders = {
        "same": {"type": "string_check", "name": "same", "operation": "ilike", **texts},
        "short": {"type": "length", "name": "short", "per_token": 0.125},
    }
    multi = {"type": "multi", "graders": graders, "calculate_output": "2 * same - short ^ 2"}

    assert score(multi, "It's Rome", {"capital": "rome"}) == 2 - (9 / 8) ** 2


def test_a_formula_without_a_value_fails_and_shows_where() -> None:
    graders = {"short": {"type": "length", "name": "short", "per_token": 1}}
    multi = {"type": "multi", "graders": graders, "calculate_output": "log(short)"}

    assert score(multi, "ab", {}) == pytest.approx(math.log(2))
    with pytest.raises(GraderFailed, match=r"log\(short\) has no value at \{'short': 0.0\}"):
        score(multi, "", {})
