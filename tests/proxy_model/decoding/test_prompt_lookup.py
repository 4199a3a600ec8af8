"""What is drafted comes out of the history."""

from proxy_model.decoding.prompt_lookup import PromptLookup


def _after(lookup: PromptLookup, *tokens: int) -> PromptLookup:
    for token in tokens:
        lookup.add(token)
    return lookup


def test_nothing_is_drafted_behind_two_tokens_that_never_stood_together() -> None:
    lookup = _after(PromptLookup([1, 2, 3]), 1)

    assert lookup.draft(4) == []


def test_what_followed_two_tokens_in_the_prompt_is_drafted_again() -> None:
    lookup = _after(PromptLookup([5, 1, 2, 3, 4, 9]), 1, 2)

    assert lookup.draft(3) == [3, 4, 9]


def test_where_two_tokens_stood_together_last_counts() -> None:
    lookup = _after(PromptLookup([1, 2, 3, 1, 2, 8, 1, 2]), 7, 1, 2)

    assert lookup.draft(1) == [7]


def test_a_text_that_repeats_itself_is_taken_to_go_on_with_it() -> None:
    lookup = _after(PromptLookup([6]), 1, 2, 1, 2)

    assert lookup.draft(5) == [1, 2, 1, 2, 1]


def test_a_draft_that_was_right_is_followed_even_where_its_tokens_stand_elsewhere_too() -> None:
    lookup = _after(PromptLookup([1, 2, 3, 4, 5, 9, 3, 4, 6]), 1, 2)
    assert lookup.draft(2) == [3, 4]

    _after(lookup, 3, 4)

    assert lookup.draft(2) == [5, 9]


def test_a_wrong_draft_is_left() -> None:
    lookup = _after(PromptLookup([1, 2, 3, 4, 5, 9, 3, 4, 6]), 1, 2)
    lookup.draft(2)

    _after(lookup, 7, 3, 4)

    assert lookup.draft(1) == [6]


def test_a_prediction_is_drafted_from_its_beginning_and_again_behind_what_differs() -> None:
    lookup = _after(PromptLookup([7, 8], prediction=[1, 2, 3, 4, 5, 6]), 1)
    assert lookup.draft(3) == [2, 3, 4]

    _after(lookup, 2, 9)
    assert lookup.draft(3) == []

    _after(lookup, 4, 5)
    assert lookup.draft(1) == [6]


def test_nothing_is_drafted_where_there_is_no_room() -> None:
    lookup = _after(PromptLookup([1, 2, 3]), 1, 2)

    assert lookup.draft(0) == []
    assert lookup.draft(-1) == []


def test_a_prompt_of_one_token_has_nothing_to_look_up() -> None:
    assert PromptLookup([4]).draft(3) == []
    assert _after(PromptLookup([4]), 4, 4).draft(2) == [4, 4]
