import pytest
import torch

from proxy_model.errors import GraderFailed, InvalidParameter
from store.fine_tuning.rule_graders import DistinctGrader, JsonGrader, KeywordsGrader, LengthGrader, RegexGrader
from tests.trainer.tiny_llm import tiny_llm
from trainer.rewards.model import Conversation, RewardModel
from trainer.rewards.rules import DistinctRule, JsonRule, KeywordsRule, LengthRule, RegexRule


def scores(model: RewardModel, *answers: str) -> list[float]:
    return model.score([Conversation([{"role": "user", "content": "?"}], answer) for answer in answers]).tolist()


@pytest.mark.parametrize(
    ("grader", "expected"),
    [
        (LengthGrader(name="x", target=4), [0.0, 0.75, 1.0, 0.5, 0.0]),
        (LengthGrader(name="x", upper_bound=4), [1.0, 1.0, 1.0, 0.5, 0.0]),
        (LengthGrader(name="x", per_token=-0.5), [0.0, -1.5, -2.0, -3.0, -4.5]),
    ],
)
def test_length_counts_the_llm_s_tokens(grader: LengthGrader, expected: list[float]) -> None:
    rule = LengthRule(grader, tiny_llm().tokenizer)

    assert scores(rule, "", "abc", "abcd", "abcdef", "a" * 9) == expected  # a token is a byte


def test_what_an_answer_says_again_counts_against_it() -> None:
    rule = DistinctRule(DistinctGrader(name="x", n=2), tiny_llm().tokenizer)

    found = scores(rule, "", "a", "abcd", "ababa", "aaaaa")

    assert found == pytest.approx([1, 1, 1, 0.5, 0.25])  # a token is a byte: ab ba ab ba, aa aa aa aa


@pytest.mark.parametrize("n", [0, 65, 2.0, True])
def test_runs_have_a_length(n: object) -> None:
    with pytest.raises(InvalidParameter, match=r"n must be a number of tokens in \[1, 64\]"):
        DistinctGrader(name="x", n=n)  # type: ignore[arg-type]


def test_keywords_are_whole_words_in_any_case() -> None:
    rule = KeywordsRule(KeywordsGrader(name="x", wanted=("please", "thank you"), forbidden=("hell", "C++", "no")))

    found = scores(rule, "Please! Thank you.", "please, hello", "HELL, no c++", "thank  you", "nothing")

    assert found == pytest.approx([1.0, 0.5, -1.0, 0.0, 0.0])


def test_an_answer_is_json_as_a_whole_or_not_at_all() -> None:
    rule = JsonRule(JsonGrader(name="x"))

    found = scores(rule, '{"a": [1, null]}', ' "text" ', "Sure: {}", "{'a': 1}", "NaN", "", "[" * 100_000)

    assert found == [1, 1, 0, 0, 0, 0, 0]


def test_json_can_be_held_against_a_schema() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
    rule = JsonRule(JsonGrader(name="x", schema=schema))

    assert scores(rule, '{"age": 3}', '{"age": -3}', '{"age": "3"}', "{}", "[3]") == [1, 0, 0, 0, 0]


def test_a_pattern_is_searched_for() -> None:
    rule = RegexRule(RegexGrader(name="x", pattern=r"^\d+ (cats|dogs)$"))

    assert scores(rule, "12 cats", "12 cats!", "twelve dogs", "") == [1, 0, 0, 0]


def test_a_pattern_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.rewards.rules._MATCH_SECONDS", 0.05)
    rule = RegexRule(RegexGrader(name="evil", pattern="(a|aa)+$"))

    with pytest.raises(GraderFailed, match=r"'evil' failed: its pattern takes more than 0\.05 s"):
        scores(rule, "a" * 60 + "b")


def test_no_answers_have_no_scores() -> None:
    for rule in (
        KeywordsRule(KeywordsGrader(name="x", wanted=("a",))),
        LengthRule(LengthGrader(name="x", target=1), tiny_llm().tokenizer),
    ):
        assert torch.equal(rule.score([]), torch.zeros(0))
