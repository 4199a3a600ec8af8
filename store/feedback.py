"""What people thought of stored answers: a rating, a correction, or which of two answers to one prompt is better."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from store.completions import Completions, now
from store.database import Database
from store.page import Page, read_page
from store.schema import completions
from store.schema import feedback as table

FeedbackKind = Literal["rating", "correction", "preference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One choice of a stored completion."""

    completion_id: str
    choice: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What somebody says about `about`: exactly one of `rating`, `correction` and `rejected` is set."""

    about: Target
    """Of a preference: the better one."""

    rating: Literal[-1, 1] | None = None
    correction: str | None = None
    """What the answer should have been."""

    rejected: Target | None = None
    """The worse one, another answer to the same prompt."""

    consent: bool = False
    """Whether it may be trained on."""

    @property
    def kind(self) -> FeedbackKind:
        """Which of the three it is."""
        if self.rejected is not None:
            return "preference"
        return "rating" if self.correction is None else "correction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A kept opinion."""

    id: str
    """Follows from the owner, the kind and the answers: saying it again replaces what was said before."""

    owner: str
    stored_at: int
    opinion: Opinion


class NoSuchAnswer(LookupError):
    """`target` is no choice of a completion that the owner has stored."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.target = target


class NotComparable(ValueError):
    """The two answers of a preference are not two answers to one prompt; the message says why."""


class FeedbackBook:
    """All kept opinions."""

    def __init__(self, database: Database, kept: Completions) -> None:
        self._database = database
        self._kept = kept

    def put(self, owner: str, opinion: Opinion) -> Feedback:
        """Keep `opinion`, in place of the owner's former one of that kind on the same answers.

        It is on disk when this returns. Raises `NoSuchAnswer`, `NotComparable`.
        """
        feedback = Feedback(id=_id(owner, opinion), owner=owner, stored_at=now(), opinion=opinion)
        with self._database.write() as connection:
            self._check(connection, owner, opinion)
            row = _row(feedback)
            make = sqlite.insert if self._database.is_sqlite else postgresql.insert
            changed = {name: value for name, value in row.items() if name not in ("id", "owner", "stored_at")}
            statement = make(table).values(row).on_conflict_do_update(index_elements=["id"], set_=changed)
            connection.execute(statement)
            return _feedback(connection.execute(select(table).where(table.c.id == feedback.id)).one())

    def get(self, owner: str, feedback_id: str) -> Feedback | None:
        """One of the owner's; None if there is none."""
        with self._database.read() as connection:
            found = connection.execute(select(table).where(self._is(owner), table.c.id == feedback_id)).one_or_none()
            return None if found is None else _feedback(found)

    def list(self, owner: str, page: Page, completion_id: str | None = None) -> tuple[Sequence[Feedback], bool]:
        """A page, maybe of one completion only, and whether there are more. Raises `UnknownCursor`."""
        either = or_(table.c.completion_id == completion_id, table.c.rejected_id == completion_id)
        with self._database.read() as connection:
            wanted = [] if completion_id is None else [either]
            rows, has_more = read_page(connection, table, self._is(owner), page, wanted)
            return [_feedback(row) for row in rows], has_more

    def delete(self, owner: str, feedback_id: str) -> bool:
        """Delete one; False if there is none."""
        with self._database.write() as connection:
            mine = and_(table.c.owner == owner, table.c.id == feedback_id)
            is_deleted = connection.execute(delete(table).where(mine)).rowcount > 0
        if is_deleted:
            self._database.scrub()
        return is_deleted

    def _check(self, connection: Connection, owner: str, opinion: Opinion) -> None:
        chosen = self._answer(connection, owner, opinion.about)
        if opinion.rejected is None:
            return
        if opinion.rejected == opinion.about:
            raise NotComparable("the chosen and the rejected answer are the same")
        rejected = self._answer(connection, owner, opinion.rejected)
        if chosen.prompt_digest != rejected.prompt_digest:
            raise NotComparable("the two completions answer different prompts")
        if chosen.choices[opinion.about.choice]["text"] == rejected.choices[opinion.rejected.choice]["text"]:
            raise NotComparable("the two answers have the same text")

    def _answer(self, connection: Connection, owner: str, target: Target) -> Row[Any, Any]:
        """The completion, which stays until the transaction ends."""
        columns = completions.c
        mine = and_(
            columns.owner == owner, columns.id == target.completion_id, columns.stored_at >= self._kept.oldest()
        )
        query = select(columns.prompt_digest, columns.choices).where(mine).with_for_update(read=True, key_share=True)
        found = connection.execute(query).one_or_none()
        if found is None or not 0 <= target.choice < len(found.choices):
            raise NoSuchAnswer(target)
        return found

    def _is(self, owner: str) -> ColumnElement[bool]:
        """The owner's, on answers that have not expired."""
        columns = completions.c
        is_kept = columns.stored_at >= self._kept.oldest()
        alive = select(columns.id).where(columns.owner == owner, is_kept)
        is_gone = and_(table.c.rejected_id.is_not(None), table.c.rejected_id.not_in(alive))
        return and_(table.c.owner == owner, table.c.completion_id.in_(alive), ~is_gone)


def _id(owner: str, opinion: Opinion) -> str:
    """The same for two answers in either order: a person who changes sides replaces the former preference."""
    targets = [opinion.about] if opinion.rejected is None else [opinion.about, opinion.rejected]
    names = sorted(f"{target.completion_id}#{target.choice}" for target in targets)
    return "fb_" + hashlib.sha256("\0".join((owner, opinion.kind, *names)).encode()).hexdigest()[:32]


def _row(feedback: Feedback) -> dict[str, Any]:
    opinion = feedback.opinion
    rejected = opinion.rejected
    return {
        "id": feedback.id,
        "owner": feedback.owner,
        "stored_at": feedback.stored_at,
        "kind": opinion.kind,
        **asdict(opinion.about),
        "rejected_id": None if rejected is None else rejected.completion_id,
        "rejected_choice": None if rejected is None else rejected.choice,
        "rating": opinion.rating,
        "correction": opinion.correction,
        "consent": opinion.consent,
    }


def _feedback(row: Row[Any]) -> Feedback:
    has_rejected = row.rejected_id is not None
    rejected = Target(completion_id=row.rejected_id, choice=row.rejected_choice) if has_rejected else None
    opinion = Opinion(
        about=Target(completion_id=row.completion_id, choice=row.choice),
        rating=row.rating,
        correction=row.correction,
        rejected=rejected,
        consent=row.consent,
    )
    return Feedback(id=row.id, owner=row.owner, stored_at=row.stored_at, opinion=opinion)
