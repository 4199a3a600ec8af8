"""The tables, and how a database of an older version becomes one of this.

    store_version        one row: the version of the schema
    completions          answers of chat and of responses, with all that a replay needs
    completion_metadata  the caller's labels, by which answers are found
    feedback             ratings, corrections and preferences; goes when one of its completions goes

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


def _create_completions(connection: Connection) -> None:
    metadata.create_all(connection, tables=[completions, completion_metadata])


def _create_feedback(connection: Connection) -> None:
    metadata.create_all(connection, tables=[feedback])


MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {1: _create_completions, 2: _create_feedback}
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
