"""One database: connections, transactions, and what its failures are called here."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from proxy_model.errors import InvalidParameter, StoreUnavailable
from proxy_model.paths import store_file
from store.schema import is_current, migrate

logger = logging.getLogger(__name__)

_MIGRATION_LOCK = 0x70726F7879  # "proxy": any number that others of the same Postgres do not use
_MODE = "transaction"
"""Execution option: `read`, `write`, or `none` for what SQLite does outside of transactions only."""


class Database:
    """A database by SQLAlchemy URL. It is opened, created and migrated by the first transaction.

    `busy_seconds` bounds how long a transaction waits for another one's lock.
    """

    def __init__(self, url: str, *, busy_seconds: float = 5.0) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._busy_seconds = busy_seconds
        self._engine = self._make_engine()
        self._is_ready = False
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database. Raises `StoreUnavailable`, `StoreTooNew`."""
        with self._transaction("read") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is on disk when the block has ended. Raises `StoreUnavailable`, `StoreTooNew`."""
        with self._transaction("write") as connection:
            yield connection

    def is_there(self) -> bool:
        """Whether somebody has made the database: of SQLite whether its file is there, of Postgres always."""
        return not self.is_sqlite or Path(self.url.database or "").exists()

    def prepare(self) -> None:
        """Create or migrate what must be; does nothing the second time. Raises `StoreUnavailable`, `StoreTooNew`."""
        with self._lock:
            if not self._is_ready:
                with self._named_failures():
                    self._prepare()
                self._is_ready = True

    def scrub(self) -> None:
        """Let nothing of deleted rows stay in the files, as far as other readers permit just now (SQLite)."""
        if self.is_sqlite:
            with self._named_failures():
                self._run_pragma("wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[Connection]:
        self.prepare()
        with self._named_failures(), self._begin(mode) as connection:
            yield connection

    @contextmanager
    def _begin(self, mode: str) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection.execution_options(**{_MODE: mode})
            with connection.begin():
                yield connection

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        """The driver's errors as `StoreUnavailable`; the next transaction opens the database anew."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            self._is_ready = False
            self._engine.dispose()
            raise StoreUnavailable(_reason(error)) from error

    def _prepare(self) -> None:
        if self.is_sqlite:
            self._make_file()
        with self._begin("read") as connection:
            if is_current(connection):
                return
        with self._begin("write") as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            migrate(connection)

    def _make_file(self) -> None:
        """The file, readable by its owner only, in WAL mode: readers and a writer do not wait for each other."""
        path = Path(self.url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                self._run_pragma("journal_mode = WAL")
                return
            except DBAPIError as error:
                # Two processes that make a new file WAL at once do not wait for each other as others do.
                if "locked" not in str(error.orig) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _run_pragma(self, pragma: str) -> None:
        with self._engine.connect() as connection:
            connection.execution_options(**{_MODE: "none"})
            connection.exec_driver_sql(f"PRAGMA {pragma}")

    def _make_engine(self) -> Engine:
        if self.is_sqlite:
            engine = create_engine(self.url, connect_args={"timeout": self._busy_seconds}, pool_size=8)
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        milliseconds = int(self._busy_seconds * 1000)
        options = f"-c lock_timeout={milliseconds} -c statement_timeout={6 * milliseconds}"
        arguments = {"connect_timeout": max(1, int(self._busy_seconds)), "options": options}
        return create_engine(self.url, connect_args=arguments, pool_size=8, pool_pre_ping=True)


def owner_of(key: str | None) -> str:
    """Who owns what `key` writes: a hash from which the key can't be had. Without keys all is one owner's."""
    return "" if key is None else hashlib.sha256(f"proxy-rlhf owner\0{key}".encode()).hexdigest()


def database_url(given: str | None, home: Path) -> str:
    """The store of an installation: what the operator gave, or a file in its home."""
    return given or f"sqlite:///{store_file(home)}"


def parse_url(url: str) -> URL:
    """With the driver that we have. Raises `InvalidParameter` for what is no URL of a SQLite file or of Postgres."""
    allowed = "sqlite:///<file> or postgresql://<user>@<host>/<database>"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidParameter("store_url", "***", allowed) from error
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif parsed.drivername != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise InvalidParameter("store_url", "***", allowed)
    try:
        parsed.get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError) as error:
        raise InvalidParameter("store_url", "***", "of SQLite unless psycopg is installed") from error
    return parsed


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Transactions are begun by us; a commit is on disk; what is deleted is overwritten; references are kept."""
    connection.isolation_level = None
    for pragma in ("foreign_keys = ON", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: one that has read before could only fail when it comes to write."""
    mode = connection.get_execution_options().get(_MODE, "read")
    if mode != "none":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if mode == "write" else "BEGIN")


def _reason(error: SQLAlchemyError | OSError) -> str:
    """The driver's own words, which hold neither statements nor values."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(original).__name__}: {original}".strip()
