"""Lists in pages: rows in the order in which they were stored, each page behind the last row of the one before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, select

Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a list: at most `limit` rows behind the one whose id is `after`, the oldest first if `asc`."""

    limit: int = 20
    after: str | None = None
    order: Order = "asc"


class UnknownCursor(LookupError):
    """The row that a page should begin behind is not there."""


def read_page(
    connection: Connection,
    table: Table,
    mine: ColumnElement[bool],
    page: Page,
    wanted: Sequence[ColumnElement[bool]] = (),
) -> tuple[Sequence[Row[Any]], bool]:
    """The page of those `mine` that are `wanted`, and whether there are more. Raises `UnknownCursor`."""
    keys = (table.c.stored_at, table.c.id)
    query = select(table).where(mine, *wanted).limit(page.limit + 1)
    query = query.order_by(*(key.asc() if page.order == "asc" else key.desc() for key in keys))
    if page.after is not None:
        query = query.where(_behind(connection, table, mine, page))
    rows = connection.execute(query).all()
    return rows[: page.limit], len(rows) > page.limit


def _behind(connection: Connection, table: Table, mine: ColumnElement[bool], page: Page) -> ColumnElement[bool]:
    stored_at, name = table.c.stored_at, table.c.id
    found = connection.execute(select(stored_at, name).where(and_(mine, name == page.after))).one_or_none()
    if found is None:
        raise UnknownCursor(page.after)
    if page.order == "asc":
        return or_(stored_at > found[0], and_(stored_at == found[0], name > found[1]))
    return or_(stored_at < found[0], and_(stored_at == found[0], name < found[1]))
