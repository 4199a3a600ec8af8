"""Opinions on stored answers: kept once, for their owner, as long as the answers; and read as rows to train on."""

from dataclasses import replace

import pytest

from store.completions import Completions, Filter, now
from store.database import Database
from store.feedback import FeedbackBook, NoSuchAnswer, NotComparable, Opinion, Target
from store.page import Page
from store.training import Answer, PreferredAnswer, RatedAnswer, preferred_answers, rated_answers, usable_feedback
from tests.store.rows import MINE, YOURS, completion

A, B = Target(completion_id="a"), Target(completion_id="b")
GOOD = Opinion(about=A, rating=1, consent=True)


@pytest.fixture
def answers(kept: Completions) -> Completions:
    """`a` and `b` answer the same question, `c` another one; `a` has two choices."""
    whole = completion("a", "Bake it.")
    kept.add(replace(whole, choices=(*whole.choices, replace(whole.choices[0], text="Fry it.", token_ids=(8, 2)))))
    kept.add(completion("b", "Buy it.", kind="response"))
    kept.add(completion("c", "No.", prompt=({"role": "user", "content": "bread?"},)))
    return kept


def test_saying_it_again_is_said_once(answers: Completions, book: FeedbackBook) -> None:
    first = book.put(MINE, GOOD)

    assert book.put(MINE, GOOD) == first
    assert book.list(MINE, Page()) == ([first], False)
    assert book.get(MINE, first.id) == first


def test_a_changed_mind_replaces_what_was_said(answers: Completions, book: FeedbackBook) -> None:
    first = book.put(MINE, Opinion(about=A, rejected=B, consent=True))

    second = book.put(MINE, Opinion(about=B, rejected=A))

    assert second == replace(first, opinion=Opinion(about=B, rejected=A))
    assert book.list(MINE, Page()) == ([second], False)


def test_choices_and_kinds_are_told_apart(answers: Completions, book: FeedbackBook) -> None:
    opinions = [
        GOOD,
        replace(GOOD, about=Target(completion_id="a", choice=1)),
        Opinion(about=A, correction="Bake it\0 well."),
        Opinion(about=A, rejected=Target(completion_id="a", choice=1)),
        Opinion(about=B, rating=-1),
    ]

    put = [book.put(MINE, opinion) for opinion in opinions]

    assert [kept.opinion for kept in put] == opinions
    assert [kept.opinion.kind for kept in put] == ["rating", "rating", "correction", "preference", "rating"]
    assert len({kept.id for kept in put}) == 5
    on_b, _ = book.list(MINE, Page(), "b")
    assert [kept.opinion for kept in on_b] == opinions[4:]


@pytest.mark.parametrize(
    ("about", "rejected"),
    [
        (Target(completion_id="?"), None),  # never stored
        (Target(completion_id="a", choice=2), None),  # has two choices
        (Target(completion_id="a", choice=-1), None),  # would be the last one of a list
        (A, Target(completion_id="?")),
    ],
)
def test_an_answer_that_is_not_there_has_no_feedback(
    answers: Completions, book: FeedbackBook, about: Target, rejected: Target | None
) -> None:
    with pytest.raises(NoSuchAnswer):
        book.put(MINE, Opinion(about=about, rejected=rejected, rating=None if rejected else 1))

    assert book.list(MINE, Page()) == ([], False)


def test_another_owners_answer_is_not_there(answers: Completions, book: FeedbackBook) -> None:
    mine = book.put(MINE, GOOD)

    with pytest.raises(NoSuchAnswer):
        book.put(YOURS, GOOD)
    assert book.get(YOURS, mine.id) is None
    assert book.list(YOURS, Page()) == ([], False)
    assert not book.delete(YOURS, mine.id)
    assert book.delete(MINE, mine.id)
    assert not book.delete(MINE, mine.id)


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [(Target(completion_id="c"), "different prompts"), (A, "are the same"), (Target(completion_id="d"), "same text")],
)
def test_a_preference_needs_two_answers_to_one_prompt(
    answers: Completions, book: FeedbackBook, rejected: Target, reason: str
) -> None:
    answers.add(completion("d", "Bake it."))

    with pytest.raises(NotComparable, match=reason):
        book.put(MINE, Opinion(about=A, rejected=rejected))


def test_feedback_goes_with_either_of_its_answers(answers: Completions, book: FeedbackBook) -> None:
    book.put(MINE, GOOD)
    book.put(MINE, Opinion(about=A, rejected=B))
    rated_b = book.put(MINE, Opinion(about=B, rating=-1))

    assert answers.delete(MINE, "chat.completion", "a")

    assert book.list(MINE, Page()) == ([rated_b], False)


def test_feedback_expires_with_its_answers(database: Database, answers: Completions, book: FeedbackBook) -> None:
    answers.add(completion("new", "New.", stored_at=now()))
    new = Target(completion_id="new")
    rated = book.put(MINE, replace(GOOD, about=new))
    book.put(MINE, Opinion(about=new, rejected=B, consent=True))
    book.put(MINE, GOOD)
    young = Completions(database, days=1)

    book_of_today = FeedbackBook(database, young)

    assert book_of_today.list(MINE, Page()) == ([rated], False)
    assert len(list(rated_answers(database, young))) == 1
    assert list(preferred_answers(database, young)) == []
    with pytest.raises(NoSuchAnswer):
        book_of_today.put(MINE, GOOD)
    assert young.delete_expired() == 3
    assert book.list(MINE, Page()) == ([rated], False)
    assert [row.id for row in answers.list(MINE, "chat.completion", Page(), Filter())[0]] == ["new"]


def test_pages_of_feedback(answers: Completions, book: FeedbackBook) -> None:
    put = [book.put(MINE, Opinion(about=about, rating=1)) for about in (A, B, Target(completion_id="c"))]

    first, has_more = book.list(MINE, Page(limit=2, order="desc"))
    second, is_not_over = book.list(MINE, Page(limit=2, order="desc", after=first[-1].id))

    assert [*first, *second] == put[::-1]
    assert (has_more, is_not_over) == (True, False)


def test_the_trainer_reads_what_was_given_with_consent(
    database: Database, answers: Completions, book: FeedbackBook
) -> None:
    fried = Target(completion_id="a", choice=1)
    thumb = book.put(MINE, replace(GOOD, about=fried, rating=-1)).id
    book.put(MINE, Opinion(about=B, rating=1))
    better = book.put(MINE, Opinion(about=B, rejected=fried, consent=True)).id
    corrected = book.put(MINE, Opinion(about=A, correction="Knead, rest, bake.", consent=True)).id
    book.put(MINE, Opinion(about=B, correction="Buy it.", consent=True))
    book.put(MINE, Opinion(about=A, rejected=B, consent=False))

    rated, preferred = list(rated_answers(database, answers)), list(preferred_answers(database, answers))

    question = ({"role": "user", "content": "Bread?"},)
    answer = Answer(
        text="Fry it.",
        token_ids=(8, 2),
        prompt_token_ids=(1, 2),
        sampling={"temperature": 0.5},
        system_fingerprint="tiny-1:helpful@7",
    )
    assert rated == [RatedAnswer(feedback_id=thumb, prompt=question, answer=answer, rating=-1)]
    assert preferred == [
        PreferredAnswer(feedback_id=better, prompt=question, chosen="Buy it.", rejected="Fry it.", source="preference"),
        PreferredAnswer(
            feedback_id=corrected,
            prompt=question,
            chosen="Knead, rest, bake.",
            rejected="Bake it.",
            source="correction",
        ),
    ]


def test_usable_is_what_has_consent_and_has_not_expired(
    database: Database, kept: Completions, book: FeedbackBook
) -> None:
    """Of two answers of which one is of 1970, and a third without consent."""
    kept.add(completion("old"))
    for name in ("new", "silent"):
        kept.add(completion(name, stored_at=now()))
    said = [
        book.put(MINE, Opinion(about=Target(completion_id=name), rating=1, consent=name != "silent")).id
        for name in ("old", "new", "silent")
    ]

    assert usable_feedback(database, kept) == {said[0], said[1]}
    assert usable_feedback(database, Completions(database, days=30)) == {said[1]}
    kept.delete(MINE, "chat.completion", "new")
    assert usable_feedback(database, kept) == {said[0]}


def test_the_trainer_reads_more_rows_than_it_fetches_at_once(
    database: Database, kept: Completions, book: FeedbackBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.training._ROWS_AT_ONCE", 3)
    for number in range(7):
        kept.add(completion(f"c{number}", f"text {number}"))
        book.put(MINE, Opinion(about=Target(completion_id=f"c{number}"), rating=1, consent=True))

    assert [row.answer.text for row in rated_answers(database, kept)] == [f"text {number}" for number in range(7)]
