"""Fine-tuning jobs as their owners see them: ordered, listed, cancelled, paused, resumed."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Row, Update, and_, case, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store.completions import now
from store.database import Database
from store.files import is_there
from store.fine_tuning import journal
from store.page import Page, read_page
from store.schema import job_metadata, proxy_owners
from store.schema import jobs as table

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]

FileParam = Literal["training_file", "validation_file"]
"""The parameters of an order that name files."""

FILE_PARAMS: tuple[FileParam, ...] = get_args(FileParam)

UNFINISHED: tuple[Status, ...] = ("validating_files", "queued", "running", "paused")
_ACTIVE: tuple[Status, ...] = ("validating_files", "queued", "running")
TRAINING_PURPOSE = "fine-tune"
"""What a file must have been uploaded for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job failed, in words for its owner."""

    code: str
    message: str
    param: str | None = None
    """The parameter of the order that is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for."""

    owner: str
    proxy: str
    """Name that its versions are published under."""

    specification: dict[str, Any]
    training_file: str
    validation_file: str | None = None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job. Times are microseconds since 1970."""

    id: str
    owner: str
    stored_at: int
    status: Status
    is_validated: bool
    specification: dict[str, Any]
    """See `store.fine_tuning.specification`."""

    training_file: str
    validation_file: str | None
    worker: str | None
    lease_until: int | None
    retry_at: int
    """A queued job is not taken before this."""

    attempts: int
    """How often it was taken since it last got on."""

    step: int
    """Iterations done."""

    estimated_finish: int | None
    finished_at: int | None
    fine_tuned_model: str | None
    trained_tokens: int | None
    result_files: tuple[str, ...]
    error: JobError | None
    metadata: dict[str, str]


class IllegalTransition(ValueError):
    """A job of this status cannot be cancelled, paused or resumed."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status


class ProxyTaken(ValueError):
    """The proxy of that name is another owner's."""


class NoSuchFile(LookupError):
    """The owner has no such file to train on; `param` says which of the two."""

    def __init__(self, param: FileParam) -> None:
        super().__init__(param)
        self.param = param


def file_gone(param: FileParam) -> JobError:
    """What the owner is told of a file that was there when the job was ordered."""
    message = f"The {param.replace('_', ' ')} has been deleted or has expired."
    return JobError(code=f"{param}_gone", message=message, param=param)


class Jobs:
    """All jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, order: Order) -> Job:
        """Take an order; it is on disk when this returns. Raises `NoSuchFile`, `ProxyTaken`."""
        job_id = f"ftjob-{secrets.token_hex(12)}"
        with self._database.write() as connection:
            _require_files(connection, order)
            self._claim_proxy(connection, order)
            connection.execute(insert(table).values(_new_row(job_id, order)))
            _add_metadata(connection, job_id, order.metadata)
            journal.add(connection, job_id, f"Created fine-tuning job: {job_id}")
            journal.add(connection, job_id, f"Validating training file: {order.training_file}")
            return _required(connection, job_id)

    def get(self, owner: str, job_id: str) -> Job | None:
        """One of the owner's; None if there is none."""
        with self._database.read() as connection:
            query = select(table).where(table.c.owner == owner, table.c.id == job_id)
            found = connection.execute(query).one_or_none()
            return None if found is None else read_jobs(connection, [found])[0]

    def list(self, owner: str, page: Page, labels: Mapping[str, str]) -> tuple[Sequence[Job], bool]:
        """A page of the jobs that have all `labels`, and whether there are more. Raises `UnknownCursor`."""
        with self._database.read() as connection:
            rows, has_more = read_page(connection, table, table.c.owner == owner, page, _labelled(labels))
            return read_jobs(connection, rows), has_more

    def cancel(self, owner: str, job_id: str) -> Job | None:
        """End it; None if there is none. Raises `IllegalTransition` when it has ended."""
        changed = update(table).values(status="cancelled", finished_at=now(), estimated_finish=None)
        return self._change(owner, job_id, UNFINISHED, changed, "The job has been cancelled")

    def pause(self, owner: str, job_id: str) -> Job | None:
        """Let it rest; None if there is none. Raises `IllegalTransition` unless it is under way."""
        changed = update(table).values(status="paused", estimated_finish=None)
        return self._change(owner, job_id, _ACTIVE, changed, "The job has been paused")

    def resume(self, owner: str, job_id: str) -> Job | None:
        """Go on where it was paused; None if there is none. Raises `IllegalTransition` unless it is paused."""
        status = case((table.c.is_validated, "queued"), else_="validating_files")
        changed = update(table).values(status=status, retry_at=0, attempts=0)
        return self._change(owner, job_id, ("paused",), changed, "The job has been resumed")

    def proxy_owner(self, proxy: str) -> str | None:
        """Whose fine-tuned proxy this is; None for one that no job has named."""
        with self._database.read() as connection:
            found: str | None = connection.scalar(select(proxy_owners.c.owner).where(proxy_owners.c.proxy == proxy))
            return found

    def holding(self, owner: str, proxy: str, version: str | None = None) -> str | None:
        """The id of an unfinished job of the owner that trains `proxy`, or starts from that version of it.

        None for a `version` means any. None if there is no such job.
        """
        trained, start = table.c.specification["proxy"].as_string(), table.c.specification["start"].as_string()
        is_start = start.startswith(f"{proxy}@", autoescape=True) if version is None else start == f"{proxy}@{version}"
        query = select(table.c.id).where(table.c.owner == owner, table.c.status.in_(UNFINISHED))
        query = query.where(or_(trained == proxy, is_start)).order_by(table.c.stored_at, table.c.id).limit(1)
        with self._database.read() as connection:
            found: str | None = connection.scalar(query)
            return found

    def counts(self) -> dict[str, int]:
        """How many jobs have each status."""
        with self._database.read() as connection:
            rows = connection.execute(select(table.c.status, func.count()).group_by(table.c.status)).all()
            return {row[0]: row[1] for row in rows}

    def _change(self, owner: str, job_id: str, before: tuple[Status, ...], changed: Update, message: str) -> Job | None:
        """Apply `changed` if the status is one of `before`; whoever works on the job loses it."""
        with self._database.write() as connection:
            mine = and_(table.c.owner == owner, table.c.id == job_id)
            statement = changed.values(worker=None, lease_until=None).where(mine, table.c.status.in_(before))
            if connection.execute(statement).rowcount == 0:
                status: Status | None = connection.scalar(select(table.c.status).where(mine))
                if status is None:
                    return None
                raise IllegalTransition(status)
            journal.add(connection, job_id, message)
            return _required(connection, job_id)

    def _claim_proxy(self, connection: Connection, order: Order) -> None:
        """Note whose it is, unless that is known. Raises `ProxyTaken`."""
        make = sqlite.insert if self._database.is_sqlite else postgresql.insert
        claim = make(proxy_owners).values(proxy=order.proxy, owner=order.owner).on_conflict_do_nothing()
        connection.execute(claim)
        owner = connection.scalar(select(proxy_owners.c.owner).where(proxy_owners.c.proxy == order.proxy))
        if owner != order.owner:
            raise ProxyTaken(order.proxy)


def read_jobs(connection: Connection, rows: Sequence[Row[Any]]) -> list[Job]:
    """Rows of the table with their labels."""
    labels: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    for found in connection.execute(select(job_metadata).where(job_metadata.c.job_id.in_(list(labels)))):
        labels[found.job_id][found.key] = found.value
    return [_job(row, labels[row.id]) for row in rows]


def _required(connection: Connection, job_id: str) -> Job:
    return read_jobs(connection, [connection.execute(select(table).where(table.c.id == job_id)).one()])[0]


def _require_files(connection: Connection, order: Order) -> None:
    if not is_there(connection, order.owner, order.training_file, TRAINING_PURPOSE):
        raise NoSuchFile("training_file")
    other = order.validation_file
    if other is not None and not is_there(connection, order.owner, other, TRAINING_PURPOSE):
        raise NoSuchFile("validation_file")


def _new_row(job_id: str, order: Order) -> dict[str, Any]:
    return {
        "id": job_id,
        "owner": order.owner,
        "stored_at": now(),
        "status": "validating_files",
        "is_validated": False,
        "specification": order.specification,
        "training_file": order.training_file,
        "validation_file": order.validation_file,
        "retry_at": 0,
        "attempts": 0,
        "step": 0,
        "result_files": [],
    }


def _add_metadata(connection: Connection, job_id: str, labels: Mapping[str, str]) -> None:
    if labels:
        rows = [{"job_id": job_id, "key": key, "value": value} for key, value in labels.items()]
        connection.execute(insert(job_metadata), rows)


def _labelled(labels: Mapping[str, str]) -> list[ColumnElement[bool]]:
    columns = job_metadata.c
    return [
        exists().where(columns.job_id == table.c.id, columns.key == key, columns.value == value)
        for key, value in labels.items()
    ]


def _job(row: Row[Any], labels: dict[str, str]) -> Job:
    values = dict(row._mapping)
    values["result_files"] = tuple(values["result_files"])
    values["error"] = None if values["error"] is None else JobError(**values["error"])
    return Job(**values, metadata=labels)
