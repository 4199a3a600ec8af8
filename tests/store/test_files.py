"""Files in pieces, in either database: what was put in comes out, for its owner, until it is deleted or expires."""

import hashlib
import io

import pytest
from sqlalchemy import select

import store.files
from store.database import Database
from store.files import CHUNK_BYTES, Files, num_chunks
from store.page import Page, UnknownCursor
from store.schema import file_chunks
from tests.store.rows import MINE, YOURS


@pytest.fixture
def files(database: Database) -> Files:
    return Files(database)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that one sets, in microseconds."""
    time = [1_000_000_000]
    monkeypatch.setattr(store.files, "now", lambda: time[0])
    return time


def add(files: Files, name: str, content: bytes = b"{}\n", owner: str = MINE, purpose: str = "fine-tune") -> str:
    return files.add(owner, name, purpose, io.BytesIO(content)).id


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1])
def test_content_comes_back_byte_by_byte(files: Files, size: int) -> None:
    content = bytes(index * 7 % 256 for index in range(size))

    kept = files.add(MINE, "a\0b.jsonl", "fine-tune", io.BytesIO(content))

    assert files.get(MINE, kept.id) == kept
    assert (kept.num_bytes, kept.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert b"".join(files.content(kept)) == content
    assert kept.filename == "a\0b.jsonl"


def test_each_owner_has_their_own(files: Files) -> None:
    mine, yours = add(files, "mine"), add(files, "yours", owner=YOURS)

    assert files.get(MINE, yours) is None
    assert [kept.id for kept in files.list(MINE, Page())[0]] == [mine]
    assert not files.delete(MINE, yours)
    assert files.delete(YOURS, yours)
    assert files.num_bytes(YOURS) == 0
    assert files.num_bytes(MINE) == 3


def test_lists_have_pages_and_a_purpose(files: Files) -> None:
    names = [add(files, str(number), purpose="batch" if number == 1 else "fine-tune") for number in range(4)]

    first, has_more = files.list(MINE, Page(limit=2, order="desc"), "fine-tune")
    second, is_more = files.list(MINE, Page(limit=2, order="desc", after=first[-1].id), "fine-tune")

    assert ([kept.id for kept in first], has_more) == ([names[3], names[2]], True)
    assert ([kept.id for kept in second], is_more) == ([names[0]], False)
    with pytest.raises(UnknownCursor):
        files.list(YOURS, Page(after=names[0]))


def test_a_deleted_file_leaves_no_piece(files: Files, database: Database) -> None:
    kept = files.add(MINE, "a", "fine-tune", io.BytesIO(b"x" * (CHUNK_BYTES + 5)))
    assert num_chunks(kept) == 2

    assert files.delete(MINE, kept.id)

    with database.read() as connection:
        assert connection.execute(select(file_chunks)).all() == []
    with pytest.raises(LookupError):
        list(files.content(kept))


def test_a_file_expires_at_its_second(files: Files, clock: list[int]) -> None:
    kept = files.add(MINE, "a", "fine-tune", io.BytesIO(b"x"), lifetime_seconds=3600)
    add(files, "b")

    clock[0] += 3600 * 1_000_000 - 1
    assert files.get(MINE, kept.id) == kept
    assert files.delete_expired() == 0
    clock[0] += 1
    assert files.get(MINE, kept.id) is None
    assert len(files.list(MINE, Page())[0]) == 1
    assert files.delete_expired() == 1
