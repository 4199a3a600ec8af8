"""Uploaded files, in pieces in the database, so that every replica and every trainer has them."""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, insert, or_, select

from store.completions import now
from store.database import Database
from store.page import Page, read_page
from store.schema import file_chunks
from store.schema import files as table

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file without its content."""

    id: str
    owner: str
    stored_at: int
    """Microseconds since 1970, as `expires_at`."""

    filename: str
    purpose: str
    num_bytes: int
    sha256: str
    expires_at: int | None = None
    """None: it stays until it is deleted."""


class Files:
    """All files. One that has expired is as good as deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, owner: str, filename: str, purpose: str, content: IO[bytes], *, lifetime_seconds: int | None = None
    ) -> StoredFile:
        """Keep what `content` gives from where it stands; it is on disk when this returns."""
        file_id, stored_at = f"file-{secrets.token_hex(12)}", now()
        expires_at = None if lifetime_seconds is None else stored_at + lifetime_seconds * 1_000_000
        with self._database.write() as connection:
            row: dict[str, Any] = {
                "id": file_id,
                "owner": owner,
                "stored_at": stored_at,
                "filename": filename,
                "purpose": purpose,
            }
            row |= {"num_bytes": 0, "sha256": "", "expires_at": expires_at}
            connection.execute(insert(table).values(row))
            sizes = _add_chunks(connection, file_id, content)
            connection.execute(table.update().where(table.c.id == file_id).values(sizes))
        return StoredFile(**row | sizes)

    def get(self, owner: str, file_id: str) -> StoredFile | None:
        """One of the owner's; None if there is none."""
        with self._database.read() as connection:
            found = connection.execute(select(table).where(_is(owner), table.c.id == file_id)).one_or_none()
            return None if found is None else _file(found)

    def list(self, owner: str, page: Page, purpose: str | None = None) -> tuple[Sequence[StoredFile], bool]:
        """A page, maybe of one purpose only, and whether there are more. Raises `UnknownCursor`."""
        wanted = [] if purpose is None else [table.c.purpose == purpose]
        with self._database.read() as connection:
            rows, has_more = read_page(connection, table, _is(owner), page, wanted)
            return [_file(row) for row in rows], has_more

    def chunk(self, file_id: str, number: int) -> bytes | None:
        """A piece of the content, the first one is 0; None behind the last one."""
        columns = file_chunks.c
        with self._database.read() as connection:
            query = select(columns.data).where(columns.file_id == file_id, columns.number == number)
            found: bytes | None = connection.scalar(query)
            return found

    def content(self, file: StoredFile) -> Iterator[bytes]:
        """All pieces in order. Raises `LookupError` when the file is deleted meanwhile."""
        for number in range(num_chunks(file)):
            piece = self.chunk(file.id, number)
            if piece is None:
                raise LookupError(file.id)
            yield piece

    def delete(self, owner: str, file_id: str) -> bool:
        """Delete one; False if there is none."""
        return self._delete(and_(_is(owner), table.c.id == file_id)) > 0

    def delete_expired(self) -> int:
        """Delete what has expired; returns how many files that were."""
        return self._delete(table.c.expires_at <= now())

    def num_bytes(self, owner: str) -> int:
        """The size of all that the owner has."""
        with self._database.read() as connection:
            return int(connection.scalar(select(func.coalesce(func.sum(table.c.num_bytes), 0)).where(_is(owner))) or 0)

    def _delete(self, which: ColumnElement[bool]) -> int:
        with self._database.write() as connection:
            num_deleted = connection.execute(delete(table).where(which)).rowcount
        if num_deleted:
            self._database.scrub()
        return num_deleted


def num_chunks(file: StoredFile) -> int:
    """How many pieces its content has."""
    return -(-file.num_bytes // CHUNK_BYTES)


def is_there(connection: Connection, owner: str, file_id: str, purpose: str) -> bool:
    """Whether the owner has such a file for this purpose."""
    query = select(table.c.id).where(_is(owner), table.c.id == file_id, table.c.purpose == purpose)
    return connection.scalar(query) is not None


def is_kept(owner: ColumnElement[str], file_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Of each row of a query: whether its owner still has that file."""
    return exists().where(_is(owner), table.c.id == file_id)


def _add_chunks(connection: Connection, file_id: str, content: IO[bytes]) -> dict[str, Any]:
    """Insert the pieces; returns the columns that follow from them."""
    digest, number, num_bytes = hashlib.sha256(), 0, 0
    while data := content.read(CHUNK_BYTES):
        connection.execute(insert(file_chunks).values(file_id=file_id, number=number, data=data))
        digest.update(data)
        number, num_bytes = number + 1, num_bytes + len(data)
    return {"num_bytes": num_bytes, "sha256": digest.hexdigest()}


def _is(owner: str | ColumnElement[str]) -> ColumnElement[bool]:
    return and_(table.c.owner == owner, or_(table.c.expires_at.is_(None), table.c.expires_at > now()))


def _file(row: Row[Any]) -> StoredFile:
    return StoredFile(**row._mapping)
