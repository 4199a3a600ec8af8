"""Databases that are locked, full, torn, of another release, or whose writer is killed."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from proxy_model.errors import InvalidParameter, StoreTooNew, StoreUnavailable
from store.completions import Completions, Filter
from store.database import Database
from store.feedback import FeedbackBook, Opinion, Target
from store.page import Page
from store.schema import MIGRATIONS, SCHEMA_VERSION, migrate
from tests.store.rows import MINE, completion

REPOSITORY = Path(__file__).parent.parent.parent
Steps = Mapping[int, Callable[[Connection], None]]


def made_with(url: str, steps: Steps) -> Database:
    """A database that has been brought to the last of `steps`."""
    database = Database(url, busy_seconds=0.5)
    try:
        with database._begin("write") as connection:
            migrate(connection, steps)
    except BaseException:
        database.close()
        raise
    return database


def test_a_store_of_the_first_release_is_migrated_with_what_it_holds(url: str) -> None:
    old = made_with(url, {1: MIGRATIONS[1]})
    with old._begin("read") as connection:
        assert connection.scalar(text("SELECT version FROM store_version")) == 1
    old.close()

    database = Database(url)
    kept = Completions(database)
    kept.add(completion("a"))

    said = FeedbackBook(database, kept).put(MINE, Opinion(about=Target(completion_id="a"), rating=1))
    assert FeedbackBook(database, kept).list(MINE, Page()) == ([said], False)
    with database.read() as connection:
        assert connection.scalar(text("SELECT version FROM store_version")) == SCHEMA_VERSION
    database.close()


def test_rows_survive_a_later_migration(url: str, kept: Completions) -> None:
    kept.add(completion("a"))

    def add_column(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE completions ADD COLUMN colour TEXT"))

    later = made_with(url, {**MIGRATIONS, SCHEMA_VERSION + 1: add_column})

    with later._begin("read") as connection:
        assert connection.execute(text("SELECT id, colour FROM completions")).all() == [("a", None)]
    later.close()


def test_a_migration_that_fails_changes_nothing(url: str, kept: Completions) -> None:
    kept.add(completion("a"))

    def fail(connection: Connection) -> None:
        connection.execute(text("DROP TABLE feedback"))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        made_with(url, {**MIGRATIONS, SCHEMA_VERSION + 1: fail})

    database = Database(url)
    assert FeedbackBook(database, Completions(database)).list(MINE, Page()) == ([], False)
    database.close()


def test_a_store_of_a_later_release_is_refused_and_left_alone(url: str) -> None:
    later = made_with(url, {**MIGRATIONS, SCHEMA_VERSION + 1: lambda connection: None})
    later.close()
    database = Database(url)

    with pytest.raises(StoreTooNew, match=f"version {SCHEMA_VERSION + 1}, this release knows {SCHEMA_VERSION}"):
        Completions(database).add(completion("a"))

    with database._begin("read") as connection:
        assert connection.scalar(text("SELECT version FROM store_version")) == SCHEMA_VERSION + 1
    database.close()


def test_a_locked_store_is_unavailable_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    database = Database(f"sqlite:///{path}", busy_seconds=0.2)
    kept = Completions(database)
    kept.add(completion("a"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="locked"):
        kept.add(completion("b"))
    assert kept.get(MINE, "chat.completion", "a") is not None

    other.execute("ROLLBACK")
    kept.add(completion("b"))
    assert kept.get(MINE, "chat.completion", "b") is not None
    other.close()
    database.close()


def test_a_full_disk_refuses_and_keeps_what_was_there(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/store.sqlite3")
    kept = Completions(database)
    kept.add(completion("a"))
    with database.write() as connection:
        # The pool gives this connection to the next one who asks.
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    with pytest.raises(StoreUnavailable, match="full"):
        kept.add(completion("big", "x" * 100_000))

    assert kept.get(MINE, "chat.completion", "a") is not None
    assert kept.get(MINE, "chat.completion", "big") is None
    kept.add(completion("big", "x" * 100_000))
    database.close()


@pytest.mark.parametrize("garbage", [b"this is no database " * 400, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_a_torn_store_is_unavailable_until_it_is_replaced(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "store.sqlite3"
    path.write_bytes(garbage)
    database = Database(f"sqlite:///{path}", busy_seconds=0.2)
    kept = Completions(database)

    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            kept.add(completion("a"))
    assert path.read_bytes() == garbage

    path.unlink()
    kept.add(completion("a"))
    assert kept.get(MINE, "chat.completion", "a") is not None
    database.close()


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    database = Database(f"sqlite:///{tmp_path}/file/store.sqlite3")

    with pytest.raises(StoreUnavailable):
        Completions(database).add(completion("a"))


def test_a_postgres_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql://nobody@/none?host={tmp_path}", busy_seconds=1)

    with pytest.raises(StoreUnavailable):
        Completions(database).add(completion("a"))


@pytest.mark.parametrize(
    "url", ["", "no url", "sqlite://", "sqlite:///:memory:", "mysql://a/b", "oracle://a:secret@b/c"]
)
def test_other_urls_are_refused_without_telling_secrets(url: str) -> None:
    with pytest.raises(InvalidParameter, match="store_url") as caught:
        Database(url)

    assert "secret" not in str(caught.value)


def test_a_killed_writer_loses_nothing_that_it_was_told_is_kept(url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    acknowledged: list[tuple[str, str]] = []
    for run in range(3):
        command = [sys.executable, "-m", "tests.store.writer_process", url, f"run{run}"]
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged.append(split(writer.stdout.readline()))
            time.sleep(0.1 + 0.05 * run)
            writer.kill()
            acknowledged += [split(line) for line in writer.stdout.read().splitlines(keepends=True) if "\n" in line]

    database = Database(url)
    kept = Completions(database)
    book = FeedbackBook(database, kept)
    assert len(acknowledged) > 6
    for completion_id, feedback_id in acknowledged:
        assert kept.get(MINE, "chat.completion", completion_id) is not None
        assert book.get(MINE, feedback_id) is not None
    if database.is_sqlite:
        with database.read() as connection:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    database.close()


def test_processes_that_open_a_new_store_at_once_share_it(url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.store.writer_process", url, f"writer{index}"],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(4)
    ]
    first = [split(writer.stdout.readline()) for writer in writers if writer.stdout is not None]
    for writer in writers:
        writer.kill()
        writer.communicate()

    database = Database(url)
    kept = Completions(database)
    for index, (completion_id, _) in enumerate(first):
        assert kept.get(MINE, "chat.completion", completion_id) is not None
        rows, _ = kept.list(MINE, "chat.completion", Page(), Filter(metadata={"writer": f"writer{index}"}))
        assert rows
    database.close()


def split(line: str) -> tuple[str, str]:
    completion_id, feedback_id = line.split()
    return completion_id, feedback_id
