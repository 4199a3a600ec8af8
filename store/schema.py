"""The tables, and how a database of an older version becomes one of this.

    store_version        one row: the version of the schema
    completions          answers of chat and of responses, with all that a replay needs
    completion_metadata  the caller's labels, by which answers are found
    feedback             ratings, corrections and preferences; goes when one of its completions goes
    files                uploaded and resulting files, in pieces in file_chunks
    proxy_owners         whose fine-tuned proxies are; the first job that names one decides
    jobs                 fine-tuning jobs, with who works on them and until when; job_metadata: the caller's labels
    job_events           what happened to a job, its metrics included
    job_checkpoints      versions that a job published

An owner is the hash of the API key that wrote a row (`owner_of`). Times are microseconds since 1970.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.types import TypeDecorator

from proxy_model.errors import StoreTooNew


class AnyText(TypeDecorator[str]):
    """Text of any characters: Postgres has no NUL, so it is escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What the database holds."""
        return None if value is None else value.replace("\\", "\\\\").replace("\0", "\\0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """What was put in."""
        if value is None or "\\" not in value:
            return value
        return "\\".join(part.replace("\\0", "\0") for part in value.split("\\\\"))


metadata = MetaData()

store_version = Table("store_version", metadata, Column("version", Integer, nullable=False))

completions = Table(
    "completions",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("kind", AnyText, nullable=False),
    Column("owner", AnyText, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("model", AnyText, nullable=False),
    Column("system_fingerprint", AnyText, nullable=False),
    Column("proxy", AnyText),
    Column("proxy_version", Integer),
    Column("request", JSON, nullable=False),
    Column("items", JSON, nullable=False),
    Column("prompt", JSON, nullable=False),
    Column("prompt_digest", AnyText, nullable=False),
    Column("prompt_token_ids", JSON, nullable=False),
    Column("sampling", JSON, nullable=False),
    Column("choices", JSON, nullable=False),
    Column("body", JSON, nullable=False),
    Index("completions_by_owner", "owner", "kind", "stored_at", "id"),
    Index("completions_by_age", "stored_at"),
)

completion_metadata = Table(
    "completion_metadata",
    metadata,
    Column("completion_id", AnyText, ForeignKey("completions.id", ondelete="CASCADE"), primary_key=True),
    Column("key", AnyText, primary_key=True),
    Column("value", AnyText, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("owner", AnyText, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("kind", AnyText, nullable=False),
    Column("completion_id", AnyText, ForeignKey("completions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("choice", Integer, nullable=False),
    Column("rejected_id", AnyText, ForeignKey("completions.id", ondelete="CASCADE"), index=True),
    Column("rejected_choice", Integer),
    Column("rating", Integer),
    Column("correction", AnyText),
    Column("consent", Boolean, nullable=False),
    Index("feedback_by_owner", "owner", "stored_at", "id"),
)

files = Table(
    "files",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("owner", AnyText, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("filename", AnyText, nullable=False),
    Column("purpose", AnyText, nullable=False),
    Column("num_bytes", BigInteger, nullable=False),
    Column("sha256", AnyText, nullable=False),
    Column("expires_at", BigInteger),
    Index("files_by_owner", "owner", "stored_at", "id"),
)

file_chunks = Table(
    "file_chunks",
    metadata,
    Column("file_id", AnyText, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

proxy_owners = Table(
    "proxy_owners",
    metadata,
    Column("proxy", AnyText, primary_key=True),
    Column("owner", AnyText, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("owner", AnyText, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("status", AnyText, nullable=False),
    Column("is_validated", Boolean, nullable=False),
    Column("specification", JSON, nullable=False),
    Column("training_file", AnyText, nullable=False),
    Column("validation_file", AnyText),
    Column("worker", AnyText),
    Column("lease_until", BigInteger),
    Column("retry_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("estimated_finish", BigInteger),
    Column("finished_at", BigInteger),
    Column("fine_tuned_model", AnyText),
    Column("trained_tokens", BigInteger),
    Column("result_files", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Index("jobs_by_owner", "owner", "stored_at", "id"),
    Index("jobs_by_status", "status", "stored_at"),
)

job_metadata = Table(
    "job_metadata",
    metadata,
    Column("job_id", AnyText, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", AnyText, primary_key=True),
    Column("value", AnyText, nullable=False),
)

job_events = Table(
    "job_events",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("job_id", AnyText, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("level", AnyText, nullable=False),
    Column("type", AnyText, nullable=False),
    Column("message", AnyText, nullable=False),
    Column("data", JSON(none_as_null=True)),
    Index("job_events_by_job", "job_id", "stored_at", "id"),
)

job_checkpoints = Table(
    "job_checkpoints",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("job_id", AnyText, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("stored_at", BigInteger, nullable=False),
    Column("step", Integer, nullable=False),
    Column("model", AnyText, nullable=False),
    Column("metrics", JSON, nullable=False),
    Index("job_checkpoints_by_job", "job_id", "stored_at", "id"),
)


def _create_completions(connection: Connection) -> None:
    metadata.create_all(connection, tables=[completions, completion_metadata])


def _create_feedback(connection: Connection) -> None:
    metadata.create_all(connection, tables=[feedback])


def _create_fine_tuning(connection: Connection) -> None:
    tables = [files, file_chunks, proxy_owners, jobs, job_metadata, job_events, job_checkpoints]
    metadata.create_all(connection, tables=tables)


MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {
    1: _create_completions,
    2: _create_feedback,
    3: _create_fine_tuning,
}
"""What leads to each version from the one before. Once shipped, a table changes by a new step, never in an old one."""

SCHEMA_VERSION = max(MIGRATIONS)


def migrate(connection: Connection, steps: Mapping[int, Callable[[Connection], None]] = MIGRATIONS) -> None:
    """Bring the database up to the last of `steps`, within the caller's transaction. Raises `StoreTooNew`."""
    found, wanted = _version(connection), max(steps)
    if found > wanted:
        raise StoreTooNew(found, wanted)
    for version in range(found + 1, wanted + 1):
        steps[version](connection)
    if found != wanted:
        connection.execute(update(store_version).values(version=wanted))


def is_current(connection: Connection) -> bool:
    """Whether there is nothing to migrate. Raises `StoreTooNew`."""
    if not inspect(connection).has_table(store_version.name):
        return False
    found = connection.scalar(select(store_version.c.version))
    if found is not None and found > SCHEMA_VERSION:
        raise StoreTooNew(found, SCHEMA_VERSION)
    return found == SCHEMA_VERSION


def _version(connection: Connection) -> int:
    """Of the database; 0, and noted so, for an empty one."""
    metadata.create_all(connection, tables=[store_version])
    found = connection.scalar(select(store_version.c.version))
    if found is None:
        connection.execute(insert(store_version).values(version=0))
    return found or 0
