import pytest

from trainer.evaluation.text_metrics import Dictionary, distinct, english_words, repetition, without_broken_end, words


def test_words_are_lower_case_runs_of_letters_with_inner_apostrophes() -> None:
    assert words("Don\u2019t  PANIC: it's 42nd_street, naïve-ly!") == [
        "don't", "panic", "it's", "nd", "street", "naïve", "ly",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "expected", "why"),
    [
        ([1, 2, 3, 4, 5], 0.0, "both 4-grams differ"),
        ([1, 1, 1, 1, 1, 1], 2 / 3, "one 4-gram three times"),
        ([1, 2, 3], 0.0, "no 4-gram at all"),
        ([1, 2, 3, 4, 1, 2, 3, 4], 0.2, "the first of five comes twice"),
    ],
)
def test_rep_4_counts_repeated_4_grams(tokens: list[int], expected: float, why: str) -> None:
    assert repetition(tokens, 4) == pytest.approx(expected), why


def test_distinct_2_counts_over_all_texts_together() -> None:
    assert distinct([[1, 2, 3], [1, 2, 4], [5]], 2) == 3 / 4
    assert distinct([[1], []], 2) == 0.0


def test_garbled_words_are_those_that_neither_the_texts_nor_other_base_answers_know() -> None:
    base = ["the zorbly cat", "a blue dog"]
    dictionary = Dictionary.of(["The cat sat with a dog"], base)

    assert dictionary.garble_rate(base) == 2 / 6  # zorbly and blue: only their own answer knows them
    assert dictionary.garble_rate(["a blue cat", "the zorbly dogs"]) == 0.0  # now another base answer knows each
    assert dictionary.garble_rate(["cat's qwrt 17", ""]) == 1 / 2
    assert dictionary.garble_rate(["", ""]) == 0.0


def test_a_cut_text_loses_its_last_word() -> None:
    assert without_broken_end("one two thr") == "one two"


def test_the_english_dictionary_knows_names_and_no_invented_words() -> None:
    known = english_words()

    assert {"bread", "steinbeck", "udemy"} <= known
    assert not known & {"malunen", "adductable", "pyroclasticum"}
