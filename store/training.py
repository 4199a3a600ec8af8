"""Feedback as rows to train on: every owner's, but only what was given with consent and has not expired."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, true

from store.completions import Completions, Message
from store.database import Database
from store.schema import completions
from store.schema import feedback as table

_ROWS_AT_ONCE = 200
_ABOUT, _REJECTED = completions.alias("about"), completions.alias("rejected")
_JOINED = table.join(_ABOUT, _ABOUT.c.id == table.c.completion_id).outerjoin(
    _REJECTED, _REJECTED.c.id == table.c.rejected_id
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it was decoded: enough to replay it."""

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    sampling: dict[str, Any]
    system_fingerprint: str
    """Names the LLM's weights, the proxy and its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedAnswer:
    """One answer and the thumb that it got."""

    feedback_id: str
    prompt: tuple[Message, ...]
    answer: Answer
    rating: Literal[-1, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferredAnswer:
    """Two answers to one prompt, one of which is better: as a preference, or since it corrects the other one."""

    feedback_id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: Literal["preference", "correction"]


def rated_answers(database: Database, kept: Completions) -> Iterator[RatedAnswer]:
    """Every rating, the oldest first. Raises `StoreUnavailable`."""
    for row in _feedback(database, kept, ("rating",)):
        yield RatedAnswer(feedback_id=row.id, prompt=tuple(row.prompt), answer=_answer(row), rating=row.rating)


def preferred_answers(database: Database, kept: Completions) -> Iterator[PreferredAnswer]:
    """Every preference and every correction that changes something, the oldest first. Raises `StoreUnavailable`."""
    for row in _feedback(database, kept, ("preference", "correction")):
        said = row.choices[row.choice]["text"]
        is_corrected = row.kind == "correction"
        rejected = said if is_corrected else row.rejected_choices[row.rejected_choice]["text"]
        chosen = row.correction if is_corrected else said
        if chosen != rejected:
            prompt = tuple(row.prompt)
            yield PreferredAnswer(feedback_id=row.id, prompt=prompt, chosen=chosen, rejected=rejected, source=row.kind)


def usable_feedback(database: Database, kept: Completions) -> frozenset[str]:
    """The ids of all feedback that may be trained on now. Raises `StoreUnavailable`."""
    query = select(table.c.id).select_from(_JOINED).where(table.c.consent, _is_kept(kept))
    with database.read() as connection:
        return frozenset(connection.execute(query).scalars())


def _feedback(database: Database, kept: Completions, kinds: tuple[str, ...]) -> Iterator[Row[Any]]:
    """With the completions that it is on; in short transactions, so that a slow reader holds nobody up."""
    about, rejected, said = _ABOUT, _REJECTED, table.c
    columns = (about.c.prompt, about.c.prompt_token_ids, about.c.sampling, about.c.system_fingerprint, about.c.choices)
    query = select(table, *columns, rejected.c.choices.label("rejected_choices")).select_from(_JOINED)
    query = query.where(said.kind.in_(kinds), said.consent).order_by(said.stored_at, said.id).limit(_ROWS_AT_ONCE)
    behind: ColumnElement[bool] = true()
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(_is_kept(kept), behind)).all()
        yield from rows
        if len(rows) < _ROWS_AT_ONCE:
            return
        is_tie = and_(said.stored_at == rows[-1].stored_at, said.id > rows[-1].id)
        behind = or_(said.stored_at > rows[-1].stored_at, is_tie)


def _is_kept(kept: Completions) -> ColumnElement[bool]:
    """Whether what the feedback is on has not expired."""
    oldest = kept.oldest()
    return and_(_ABOUT.c.stored_at >= oldest, func.coalesce(_REJECTED.c.stored_at >= oldest, True))


def _answer(row: Row[Any]) -> Answer:
    choice = row.choices[row.choice]
    return Answer(
        text=choice["text"],
        token_ids=tuple(choice["token_ids"]),
        prompt_token_ids=tuple(row.prompt_token_ids),
        sampling=row.sampling,
        system_fingerprint=row.system_fingerprint,
    )
