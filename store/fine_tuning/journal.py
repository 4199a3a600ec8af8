"""What happened to a job: events, its metrics among them, and the versions that it published."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Table, insert, select

from store.completions import now
from store.database import Database
from store.page import Page, read_page
from store.schema import job_checkpoints, job_events

Level = Literal["info", "warn", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened."""

    id: str
    job_id: str
    stored_at: int
    level: Level
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCheckpoint:
    """A version of the proxy that a job published."""

    id: str
    job_id: str
    stored_at: int
    step: int
    model: str
    """The name that requests may use."""

    metrics: dict[str, float]


class Journal:
    """Reads of one job's events and checkpoints; whether it is the caller's is for `Jobs.get` to say."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(self, job_id: str, page: Page) -> tuple[Sequence[Event], bool]:
        """A page and whether there are more. Raises `UnknownCursor`."""
        with self._database.read() as connection:
            rows, has_more = read_page(connection, job_events, job_events.c.job_id == job_id, page)
            return [Event(**row._mapping) for row in rows], has_more

    def checkpoints(self, job_id: str, page: Page) -> tuple[Sequence[JobCheckpoint], bool]:
        """A page and whether there are more. Raises `UnknownCursor`."""
        with self._database.read() as connection:
            rows, has_more = read_page(connection, job_checkpoints, job_checkpoints.c.job_id == job_id, page)
            return [JobCheckpoint(**row._mapping) for row in rows], has_more


def add(
    connection: Connection, job_id: str, message: str, *, level: Level = "info", data: dict[str, Any] | None = None
) -> None:
    """Note a message now."""
    stored_at = now()
    row = {"job_id": job_id, "stored_at": stored_at, "level": level, "type": "message", "message": message}
    name = _name("ftevent", job_id, message, stored_at)
    connection.execute(insert(job_events).values(id=name, data=data, **row))


def add_metrics(connection: Connection, job_id: str, step: int, metrics: Mapping[str, float]) -> bool:
    """Note an iteration's metrics; False if that was done before."""
    row = {"job_id": job_id, "stored_at": now(), "level": "info", "type": "metrics"}
    row |= {"id": _name("ftevent", job_id, "metrics", step), "message": f"Step {step}", "data": dict(metrics)}
    return _add_once(connection, job_events, row)


def add_checkpoint(connection: Connection, job_id: str, step: int, model: str, metrics: Mapping[str, float]) -> bool:
    """Note a published version; False if that was done before."""
    row = {"job_id": job_id, "stored_at": now(), "step": step, "model": model, "metrics": dict(metrics)}
    return _add_once(connection, job_checkpoints, row | {"id": _name("ftckpt", job_id, model, step)})


def _add_once(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Only the holder of a job's row writes these, so nobody comes between the look and the insertion."""
    if connection.scalar(select(table.c.id).where(table.c.id == row["id"])) is not None:
        return False
    connection.execute(insert(table).values(row))
    return True


def _name(prefix: str, *parts: object) -> str:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    return f"{prefix}-{digest[:24]}"
