"""Answers that were asked to be kept, each with all that it takes to show it again and to replay it."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, insert, select

from store.database import Database
from store.page import Page, read_page
from store.schema import completion_metadata, completions

Kind = Literal["chat.completion", "response"]
Message = dict[str, Any]
"""A turn as the LLM's chat template takes it: `role`, `content` and whatever else the template knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChoice:
    """One answer text of a completion."""

    text: str
    token_ids: tuple[int, ...]
    """The end token included."""

    finish_reason: str
    num_accepted: int
    num_rejected: int
    num_forced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What was asked, how it was decoded, what came out, and how the API showed it."""

    id: str
    kind: Kind
    owner: str
    stored_at: int
    """Microseconds since 1970."""

    model: str
    """As the request named it."""

    system_fingerprint: str
    proxy: str | None
    proxy_version: int | None
    """None: the LLM alone."""

    request: dict[str, Any]
    """The body as it was sent, without what `items` and `metadata` hold."""

    items: tuple[dict[str, Any], ...]
    """Messages or input items as the API lists them, each with an id."""

    prompt: tuple[Message, ...]
    prompt_token_ids: tuple[int, ...]
    sampling: dict[str, Any]
    """Settings of the decode loop, defaults filled in."""

    choices: tuple[StoredChoice, ...]
    body: dict[str, Any]
    """The API's object, without `metadata`."""

    metadata: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which completions of an owner are listed."""

    model: str | None = None
    metadata: Mapping[str, str] | None = None


class Completions:
    """The stored answers. With `days`, older ones are as good as deleted."""

    def __init__(self, database: Database, days: float | None = None) -> None:
        self._database = database
        self._days = days

    def add(self, completion: Completion) -> None:
        """Keep `completion`; it is on disk when this returns."""
        row = asdict(completion) | {"prompt_digest": prompt_digest(completion.prompt)}
        labels = row.pop("metadata")
        with self._database.write() as connection:
            connection.execute(insert(completions).values(row))
            _add_metadata(connection, completion.id, labels)

    def get(self, owner: str, kind: Kind, completion_id: str) -> Completion | None:
        """One of the owner's; None if there is none."""
        with self._database.read() as connection:
            found = connection.execute(select(completions).where(self._is(owner, kind, completion_id))).one_or_none()
            return None if found is None else _completions(connection, [found])[0]

    def list(self, owner: str, kind: Kind, page: Page, wanted: Filter) -> tuple[Sequence[Completion], bool]:
        """A page, oldest first unless `order` is `desc`, and whether there are more. Raises `UnknownCursor`."""
        with self._database.read() as connection:
            rows, has_more = read_page(connection, completions, self._is(owner, kind), page, _wanted(wanted))
            return _completions(connection, rows), has_more

    def set_metadata(self, owner: str, kind: Kind, completion_id: str, labels: Mapping[str, str]) -> Completion | None:
        """Replace the labels; None if there is no such completion."""
        with self._database.write() as connection:
            mine = select(completions).where(self._is(owner, kind, completion_id)).with_for_update()
            found = connection.execute(mine).one_or_none()
            if found is None:
                return None
            connection.execute(delete(completion_metadata).where(completion_metadata.c.completion_id == completion_id))
            _add_metadata(connection, completion_id, labels)
            return _completions(connection, [found])[0]

    def delete(self, owner: str, kind: Kind, completion_id: str) -> bool:
        """Delete one with its labels and all feedback on it; False if there is none."""
        with self._database.write() as connection:
            is_deleted = (
                connection.execute(delete(completions).where(self._is(owner, kind, completion_id))).rowcount > 0
            )
        if is_deleted:
            self._database.scrub()
        return is_deleted

    def delete_expired(self) -> int:
        """Delete what is older than `days`, with its feedback; returns how many completions that were."""
        if self._days is None:
            return 0
        with self._database.write() as connection:
            num_deleted = connection.execute(
                delete(completions).where(completions.c.stored_at < self.oldest())
            ).rowcount
        if num_deleted:
            self._database.scrub()
        return num_deleted

    def oldest(self) -> int:
        """What was stored before this has expired."""
        return 0 if self._days is None else now() - int(self._days * 86_400e6)

    def _is(self, owner: str, kind: Kind, completion_id: str | None = None) -> ColumnElement[bool]:
        columns = completions.c
        mine = and_(columns.owner == owner, columns.kind == kind, columns.stored_at >= self.oldest())
        return mine if completion_id is None else and_(mine, columns.id == completion_id)


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def prompt_digest(prompt: Sequence[Message]) -> str:
    """Equal for conversations that are equal to the LLM."""
    canonical = json.dumps(list(prompt), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _wanted(wanted: Filter) -> list[ColumnElement[bool]]:
    labels = completion_metadata.c
    conditions: list[ColumnElement[bool]] = [] if wanted.model is None else [completions.c.model == wanted.model]
    for key, value in (wanted.metadata or {}).items():
        is_label = and_(labels.completion_id == completions.c.id, labels.key == key, labels.value == value)
        conditions.append(exists().where(is_label))
    return conditions


def _add_metadata(connection: Connection, completion_id: str, labels: Mapping[str, str]) -> None:
    if labels:
        rows = [{"completion_id": completion_id, "key": key, "value": value} for key, value in labels.items()]
        connection.execute(insert(completion_metadata), rows)


def _completions(connection: Connection, rows: Sequence[Row[Any]]) -> list[Completion]:
    labels: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    columns = completion_metadata.c
    for found in connection.execute(select(completion_metadata).where(columns.completion_id.in_(list(labels)))):
        labels[found.completion_id][found.key] = found.value
    return [_completion(row, labels[row.id]) for row in rows]


def _completion(row: Row[Any], labels: dict[str, str]) -> Completion:
    values = dict(row._mapping)
    del values["prompt_digest"]
    for name in ("items", "prompt", "prompt_token_ids"):
        values[name] = tuple(values[name])
    values["choices"] = tuple(
        StoredChoice(**choice | {"token_ids": tuple(choice["token_ids"])}) for choice in values["choices"]
    )
    return Completion(**values, metadata=labels)
