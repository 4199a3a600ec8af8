"""Jobs as workers see them: validated by whoever comes first, then done by one worker at a time under a lease."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, and_, case, or_, select, update

from store.completions import now
from store.database import Database
from store.files import is_kept
from store.fine_tuning import journal
from store.fine_tuning.jobs import FILE_PARAMS, UNFINISHED, Job, JobError, file_gone, read_jobs
from store.schema import jobs as table

MAX_FAILURES = 4
"""Attempts without progress after which an error is final."""

MAX_TAKEOVERS = 20
"""Attempts without progress after which a job that ends its workers is given up."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job in the hands of a worker."""

    job: Job
    worker: str


class LeaseLost(Exception):
    """The job was cancelled, paused, or taken over: whatever its former worker says does not count any more."""


class JobQueue:
    """Every call is one transaction; those with a lease raise `LeaseLost` and change nothing once it is lost."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unvalidated(self) -> Job | None:
        """The oldest job whose files nobody has looked at. Several workers may get the same one."""
        query = select(table).where(table.c.status == "validating_files").order_by(table.c.stored_at).limit(1)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            return read_jobs(connection, rows)[0] if rows else None

    def accept(self, job_id: str, message: str) -> bool:
        """Its files are good; False when it is not waiting for that any more."""
        with self._database.write() as connection:
            changed = update(table).values(status="queued", is_validated=True)
            if not _apply(connection, changed, and_(table.c.id == job_id, table.c.status == "validating_files")):
                return False
            journal.add(connection, job_id, message)
            journal.add(connection, job_id, "Files validated, moving job to queued state")
            return True

    def reject(self, job_id: str, error: JobError) -> bool:
        """Its files are bad; False when it is not waiting for that any more."""
        with self._database.write() as connection:
            return _end_failed(
                connection, job_id, and_(table.c.id == job_id, table.c.status == "validating_files"), error
            )

    def fail_without_files(self) -> None:
        """End the jobs of which a file was deleted or has expired; those that are under way are taken back."""
        for param in FILE_PARAMS:
            file_id = table.c[param]
            is_gone = and_(table.c.status.in_(UNFINISHED), file_id.is_not(None), ~is_kept(table.c.owner, file_id))
            with self._database.read() as connection:
                found = connection.scalars(select(table.c.id).where(is_gone)).all()
            for job_id in found:
                with self._database.write() as connection:
                    _end_failed(connection, job_id, and_(table.c.id == job_id, is_gone), file_gone(param))

    def take(self, worker: str, seconds: float) -> Lease | None:
        """The oldest job that waits, or whose worker is gone; None if there is none. It is `worker`'s for `seconds`."""
        with self._database.write() as connection:
            waits = and_(table.c.status == "queued", table.c.retry_at <= now())
            is_left = and_(table.c.status == "running", table.c.lease_until <= now())
            query = select(table.c.id, table.c.status, table.c.attempts).where(or_(waits, is_left))
            query = query.order_by(table.c.stored_at, table.c.id).limit(1).with_for_update(skip_locked=True)
            found = connection.execute(query).one_or_none()
            if found is None:
                return None
            if found.attempts >= MAX_TAKEOVERS:
                error = JobError(code="worker_died", message="Training ended its process again and again.")
                _end_failed(connection, found.id, table.c.id == found.id, error)
                return None
            taken = {"status": "running", "worker": worker, "lease_until": _in(seconds)}
            changed = update(table).values(**taken, attempts=table.c.attempts + 1)
            connection.execute(changed.where(table.c.id == found.id))
            is_first = found.status == "queued"
            journal.add(
                connection, found.id, "Fine-tuning job started" if is_first else "Taken over from a lost worker"
            )
            return Lease(
                read_jobs(connection, connection.execute(select(table).where(table.c.id == found.id)).all())[0], worker
            )

    def holds(self, lease: Lease) -> bool:
        """Whether it is still the worker's."""
        with self._database.read() as connection:
            return connection.scalar(select(table.c.id).where(_held(lease))) is not None

    def has_ended(self, job_id: str) -> bool:
        """Whether there is nothing to do for it, ever again. A job of another store has not."""
        with self._database.read() as connection:
            status = connection.scalar(select(table.c.status).where(table.c.id == job_id))
            return status is not None and status not in UNFINISHED

    def renew(self, lease: Lease, seconds: float) -> None:
        """Hold on to it for `seconds` from now."""
        with self._database.write() as connection:
            self._apply(connection, lease, update(table).values(lease_until=_in(seconds)))

    def release(self, lease: Lease) -> None:
        """Put it back for the next worker: nothing is wrong with it."""
        with self._database.write() as connection:
            changed = update(table).values(
                status="queued", attempts=case((table.c.attempts > 0, table.c.attempts - 1), else_=0)
            )
            self._apply(connection, lease, _without_worker(changed))

    def retry(self, lease: Lease, message: str, seconds: float) -> None:
        """It failed by what may pass: put it back for later."""
        with self._database.write() as connection:
            changed = update(table).values(status="queued", retry_at=_in(seconds), estimated_finish=None)
            self._apply(connection, lease, _without_worker(changed))
            journal.add(connection, lease.job.id, message, level="warn")

    def record(
        self, lease: Lease, step: int, metrics: Mapping[str, float], *, estimated_finish: int | None = None
    ) -> bool:
        """An iteration is done; False if that is known. What is known changes nothing."""
        with self._database.write() as connection:
            self._hold(connection, lease)
            if not journal.add_metrics(connection, lease.job.id, step, metrics):
                return False
            changed = update(table).values(step=step, attempts=0, estimated_finish=estimated_finish)
            self._apply(connection, lease, changed)
            return True

    def record_checkpoint(self, lease: Lease, step: int, model: str, metrics: Mapping[str, float]) -> None:
        """A version is published; said twice it is noted once."""
        with self._database.write() as connection:
            self._hold(connection, lease)
            if journal.add_checkpoint(connection, lease.job.id, step, model, metrics):
                journal.add(connection, lease.job.id, f"Checkpoint created at step {step}: {model}")

    def note(
        self, lease: Lease, message: str, *, level: journal.Level = "warn", data: dict[str, Any] | None = None
    ) -> None:
        """Add to its events."""
        with self._database.write() as connection:
            self._hold(connection, lease)
            journal.add(connection, lease.job.id, message, level=level, data=data)

    def succeed(self, lease: Lease, model: str, trained_tokens: int, result_files: tuple[str, ...] = ()) -> None:
        """It is done, and `model` is its name."""
        with self._database.write() as connection:
            values = {"status": "succeeded", "fine_tuned_model": model, "trained_tokens": trained_tokens}
            values |= {"result_files": list(result_files), "finished_at": now(), "estimated_finish": None}
            self._apply(connection, lease, _without_worker(update(table).values(**values)))
            journal.add(connection, lease.job.id, f"New fine-tuned model created: {model}")
            journal.add(connection, lease.job.id, "The job has successfully completed")

    def fail(self, lease: Lease, error: JobError) -> None:
        """It cannot be done."""
        with self._database.write() as connection:
            if not _end_failed(connection, lease.job.id, _held(lease), error):
                raise LeaseLost(lease.job.id)

    def _apply(self, connection: Connection, lease: Lease, changed: Update) -> None:
        if not _apply(connection, changed, _held(lease)):
            raise LeaseLost(lease.job.id)

    def _hold(self, connection: Connection, lease: Lease) -> None:
        """Keep the row until the transaction ends."""
        query = select(table.c.id).where(_held(lease)).with_for_update()
        if connection.scalar(query) is None:
            raise LeaseLost(lease.job.id)


def _end_failed(connection: Connection, job_id: str, which: ColumnElement[bool], error: JobError) -> bool:
    values = {"status": "failed", "error": asdict(error), "finished_at": now(), "estimated_finish": None}
    if not _apply(connection, _without_worker(update(table).values(**values)), which):
        return False
    journal.add(connection, job_id, error.message, level="error")
    return True


def _apply(connection: Connection, changed: Update, which: ColumnElement[bool]) -> bool:
    return connection.execute(changed.where(which)).rowcount > 0


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(table.c.id == lease.job.id, table.c.status == "running", table.c.worker == lease.worker)


def _without_worker(changed: Update) -> Update:
    return changed.values(worker=None, lease_until=None)


def _in(seconds: float) -> int:
    return now() + int(seconds * 1e6)
