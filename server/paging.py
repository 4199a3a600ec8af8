"""Lists in OpenAI's pages: `after`, `limit`, `order` in the URL; `first_id`, `last_id`, `has_more` in the answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, Response

from server.error_handlers import answer_api_error
from server.errors import invalid
from store.page import Order, Page, UnknownCursor

MAX_LIMIT = 100

_LABEL = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_MAX_LABELS = 16

METADATA_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "description": "Labels that must all be there: `metadata[key]=value`.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}
"""What a route that reads `metadata_filter` passes as `openapi_extra`."""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What the URL says; the default order is the route's."""

    after: str | None
    limit: int
    order: Order | None

    def page(self, default_order: Order = "asc") -> Page:
        """For the store."""
        return Page(limit=self.limit, after=self.after, order=self.order or default_order)


async def _page_query(
    after: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 20,
    order: Annotated[Literal["asc", "desc"] | None, Query()] = None,
) -> PageQuery:
    return PageQuery(after, limit, order)


PageDep = Annotated[PageQuery, Depends(_page_query)]


def metadata_filter(request: Request) -> dict[str, str]:
    """The labels of `metadata[key]=value`. Raises 400 for more than 16."""
    found = {match[1]: value for key, value in request.query_params.multi_items() if (match := _LABEL.fullmatch(key))}
    if len(found) > _MAX_LABELS:
        raise invalid(f"Invalid value for 'metadata': at most {_MAX_LABELS} labels.", param="metadata")
    return found


def listed(data: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page as the API shows it."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def listed_items(items: Sequence[dict[str, Any]], page: Page) -> dict[str, Any]:
    """A page of what is in memory already, oldest first. Raises `UnknownCursor`."""
    ordered = list(items if page.order == "asc" else reversed(items))
    names = [item["id"] for item in ordered]
    if page.after is not None:
        if page.after not in names:
            raise UnknownCursor(page.after)
        ordered = ordered[names.index(page.after) + 1 :]
    return listed(ordered[: page.limit], has_more=len(ordered) > page.limit)


async def answer_unknown_cursor(request: Request, error: Exception) -> Response:
    """The exception handler of `UnknownCursor`: 400, what `after` names is not in the list."""
    message = "Invalid value for 'after': there is nothing of that id in the list."
    return await answer_api_error(request, invalid(message, param="after"))
