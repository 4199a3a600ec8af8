"""What is kept comes back whole, to its owner only, in pages, until it expires or is deleted."""

import sqlite3
import threading
from pathlib import Path

import pytest

from proxy_model.errors import StoreUnavailable
from store.completions import Completion, Completions, Filter, now
from store.database import Database, owner_of
from store.page import Page, UnknownCursor
from tests.store.rows import MINE, YOURS, completion

DAY = 86_400_000_000


def ids(kept: Completions, page: Page | None = None, **wanted: object) -> list[str]:
    rows, _ = kept.list(MINE, "chat.completion", page or Page(), Filter(**wanted))  # type: ignore[arg-type]
    return [row.id for row in rows]


def test_a_completion_comes_back_as_it_was(kept: Completions) -> None:
    odd = "a\0b\\0c\\\\ \U0001f600 \"'%"
    original = completion("c1", odd, metadata={odd: odd, "b": ""}, proxy=None, proxy_version=None, model=odd)

    kept.add(original)

    assert kept.get(MINE, "chat.completion", "c1") == original


def test_others_see_nothing_and_change_nothing(kept: Completions) -> None:
    kept.add(completion("c1", metadata={"a": "1"}))

    assert kept.get(YOURS, "chat.completion", "c1") is None
    assert kept.get(MINE, "response", "c1") is None
    assert kept.list(YOURS, "chat.completion", Page(), Filter()) == ([], False)
    assert kept.set_metadata(YOURS, "chat.completion", "c1", {}) is None
    assert not kept.delete(YOURS, "chat.completion", "c1")
    with pytest.raises(UnknownCursor):
        kept.list(YOURS, "chat.completion", Page(after="c1"), Filter())
    assert kept.get(MINE, "chat.completion", "c1") == completion("c1", metadata={"a": "1"})


def test_pages_cover_the_list_once_in_either_order(kept: Completions) -> None:
    for name, stored_at in (("e", 5), ("c", 3), ("b", 3), ("d", 3), ("a", 9)):
        kept.add(completion(name, stored_at=stored_at))
    for order, expected in (("asc", "bcdea"), ("desc", "aedcb")):
        heard, after = "", None
        while True:
            page = Page(limit=2, after=after, order=order)  # type: ignore[arg-type]
            rows, has_more = kept.list(MINE, "chat.completion", page, Filter())
            heard += "".join(row.id for row in rows)
            if not has_more:
                break
            after = rows[-1].id

        assert heard == expected


def test_lists_are_filtered_by_model_and_every_label(kept: Completions) -> None:
    kept.add(completion("a", metadata={"team": "x", "run": "1"}))
    kept.add(completion("b", metadata={"team": "x"}, stored_at=2_000))
    kept.add(completion("c", metadata={"team": "y", "run": "1"}, model="tiny:base", stored_at=3_000))

    assert ids(kept, metadata={"team": "x"}) == ["a", "b"]
    assert ids(kept, metadata={"team": "x", "run": "1"}) == ["a"]
    assert ids(kept, metadata={"run": "1"}, model="tiny:base") == ["c"]
    assert ids(kept, metadata={"run": "x"}) == []
    assert ids(kept, Page(after="a"), metadata={"team": "x"}) == ["b"]


def test_labels_are_replaced_as_a_whole(kept: Completions) -> None:
    kept.add(completion("a", metadata={"team": "x", "run": "1"}))

    changed = kept.set_metadata(MINE, "chat.completion", "a", {"run": "2"})

    assert changed == completion("a", metadata={"run": "2"}) == kept.get(MINE, "chat.completion", "a")
    assert ids(kept, metadata={"team": "x"}) == []


def test_what_is_older_than_the_days_is_gone_before_it_is_deleted(database: Database) -> None:
    kept = Completions(database, days=2)
    kept.add(completion("old", stored_at=now() - 2 * DAY - 60_000_000))
    kept.add(completion("young", stored_at=now() - 2 * DAY + 60_000_000))

    assert kept.get(MINE, "chat.completion", "old") is None
    assert kept.set_metadata(MINE, "chat.completion", "old", {}) is None
    assert ids(kept) == ["young"]
    assert Completions(database).get(MINE, "chat.completion", "old") is not None
    assert (kept.delete_expired(), kept.delete_expired()) == (1, 0)
    assert Completions(database).get(MINE, "chat.completion", "old") is None


def test_nothing_of_a_deleted_completion_stays_in_sqlites_files(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/store.sqlite3")
    kept = Completions(database)
    kept.add(completion("keep", "harmless"))
    kept.add(completion("gone", "SECRET" * 2_000, metadata={"name": "SECRET"}))
    assert any(b"SECRETSECRET" in path.read_bytes() for path in tmp_path.iterdir())

    assert kept.delete(MINE, "chat.completion", "gone")

    assert not any(b"SECRET" in path.read_bytes() for path in tmp_path.iterdir())
    assert ids(kept) == ["keep"]
    database.close()


def test_the_file_is_for_its_owners_eyes(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    database = Database(f"sqlite:///{path}")
    Completions(database).add(completion("a"))

    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}

    assert set(modes.values()) == {0o600}
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_many_threads_and_two_databases_on_one_store_lose_nothing(url: str) -> None:
    databases = [Database(url, busy_seconds=30), Database(url, busy_seconds=30)]

    def write(thread: int) -> None:
        kept = Completions(databases[thread % 2])
        for number in range(10):
            kept.add(completion(f"{thread}-{number}"))

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids(Completions(databases[0]), Page(limit=100))) == 60
    for database in databases:
        database.close()


def test_an_owner_is_a_hash_that_differs_between_keys() -> None:
    assert owner_of(None) == ""
    assert len(owner_of("key-one")) == 64
    assert owner_of("key-one") != owner_of("key-two")
    assert "key-one" not in owner_of("key-one")


def test_the_same_id_twice_is_refused(kept: Completions) -> None:
    first: Completion = completion("a")
    kept.add(first)

    with pytest.raises(StoreUnavailable, match=r"UNIQUE|duplicate"):
        kept.add(completion("a", "other"))

    assert kept.get(MINE, "chat.completion", "a") == first
