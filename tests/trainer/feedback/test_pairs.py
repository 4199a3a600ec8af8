from typing import Literal

import pytest

from store.training import Answer, PreferredAnswer, RatedAnswer
from trainer.feedback.pairs import preference_pairs

BREAD, FISH = ({"role": "user", "content": "Bread?"},), ({"role": "user", "content": "Fish?"},)


def rated(text: str, rating: Literal[-1, 1], prompt: tuple[dict[str, str], ...] = BREAD) -> RatedAnswer:
    answer = Answer(text=text, token_ids=(), prompt_token_ids=(), sampling={}, system_fingerprint="")
    return RatedAnswer(feedback_id=f"{text}{rating}", prompt=prompt, answer=answer, rating=rating)


def preferred(chosen: str, rejected: str, prompt: tuple[dict[str, str], ...] = BREAD) -> PreferredAnswer:
    return PreferredAnswer(feedback_id="f", prompt=prompt, chosen=chosen, rejected=rejected, source="preference")


def texts(rated: list[RatedAnswer], preferred: list[PreferredAnswer]) -> list[tuple[str, str, str]]:
    found = preference_pairs(rated, preferred)
    return [(pair.prompt[0]["content"], pair.chosen, pair.rejected) for pair in found]


def test_what_is_said_twice_is_one_pair() -> None:
    assert texts([], [preferred("a", "b"), preferred("a", "b"), preferred("a", "b", FISH)]) == [
        ("Bread?", "a", "b"),
        ("Fish?", "a", "b"),
    ]


def test_every_liked_answer_beats_every_disliked_one_to_its_prompt() -> None:
    said = [rated("good", 1), rated("fine", 1), rated("bad", -1), rated("worse", -1, FISH)]

    assert texts(said, []) == [("Bread?", "good", "bad"), ("Bread?", "fine", "bad")]


@pytest.mark.parametrize(
    ("said", "pairs"),
    [
        ([rated("a", 1), rated("a", 1), rated("a", -1), rated("b", -1)], [("Bread?", "a", "b")]),
        ([rated("a", 1), rated("a", -1), rated("b", -1)], []),  # as many like a as do not
    ],
)
def test_an_answer_is_liked_when_most_like_it(said: list[RatedAnswer], pairs: list[tuple[str, str, str]]) -> None:
    assert texts(said, []) == pairs


def test_the_majority_decides_between_two_answers_and_a_tie_decides_nothing() -> None:
    assert texts([], [preferred("a", "b"), preferred("b", "a")]) == []
    assert texts([], [preferred("a", "b"), preferred("b", "a"), preferred("b", "a")]) == [("Bread?", "b", "a")]
    assert texts([rated("b", 1), rated("a", -1)], [preferred("a", "b")]) == []


@pytest.mark.parametrize(
    "prompt",
    [
        ({"role": "user", "content": "Bread?"}, {"role": "tool", "content": "7"}),
        ({"role": "user", "content": "Bread?", "name": "ann"},),
        ({"role": "user", "content": " "},),
    ],
)
def test_a_conversation_that_no_reward_model_reads_is_left_out(prompt: tuple[dict[str, str], ...]) -> None:
    assert texts([], [preferred("a", "b", prompt), preferred("a", " ")]) == []
