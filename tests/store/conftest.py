"""The same store on SQLite and on a real Postgres."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from store.completions import Completions
from store.database import Database
from store.feedback import FeedbackBook
from tests.store.postgres_process import running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a Postgres that lives as long as the test run."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite3"
    found: str = request.getfixturevalue("postgres")
    with psycopg.connect(found, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return found


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Opened on it."""
    database = Database(url, busy_seconds=0.5)
    yield database
    database.close()


@pytest.fixture
def kept(database: Database) -> Completions:
    """The stored answers, which never expire."""
    return Completions(database)


@pytest.fixture
def book(database: Database, kept: Completions) -> FeedbackBook:
    """The feedback on them."""
    return FeedbackBook(database, kept)
