"""/v1/responses: create, get, delete, and the items that were sent; running in the background is not offered."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from server.body import read_body
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.errors import ApiError, invalid
from server.generation.respond import respond
from server.openapi import event_stream, json_body
from server.paging import PageDep, listed_items
from server.responses.answer import start_stored_response, whole_response
from server.responses.draft import draft_of
from server.responses.stream import stream_response
from server.schemas.response_object import InputItemList, ResponseDeleted, ResponseEvent, ResponseObject
from server.schemas.response_request import ResponseRequest
from server.service import Service
from store.completions import Completion

router = APIRouter(prefix="/v1/responses", dependencies=[ApiKey])


@router.post(
    "",
    response_model=ResponseObject,
    responses=event_stream(ResponseEvent, description="The response; events with `stream`."),
    openapi_extra=json_body(ResponseRequest),
)
async def create_response(request: Request, service: ServiceDep, owner: OwnerDep) -> Response:
    """Continue a conversation, whole or as a stream of events; kept unless `store` is false."""
    service.serving()
    body = await read_body(request, ResponseRequest, service.settings.max_body_bytes)
    draft = await draft_of(service, body, owner)
    return await respond(
        request,
        start_stored_response(service, draft, owner),
        lambda run: whole_response(run, draft),
        lambda run: stream_response(run, draft),
    )


@router.get("/{response_id}", response_model=ResponseObject)
async def get_response(response_id: str, service: ServiceDep, owner: OwnerDep, stream: bool = False) -> JSONResponse:
    """One stored response."""
    found = await _find(service, owner, response_id)
    if stream:
        raise invalid("A stored response cannot be streamed again.", param="stream", code="unsupported_value")
    shown: dict[str, Any] = found.body | {"metadata": found.metadata}
    return JSONResponse(shown)


@router.delete("/{response_id}")
async def delete_response(response_id: str, service: ServiceDep, owner: OwnerDep) -> ResponseDeleted:
    """Delete it and all feedback on it; responses that continue it keep what they were asked."""
    if not await service.storage.call(lambda shelves: shelves.completions.delete(owner, "response", response_id)):
        raise _not_found(response_id)
    return ResponseDeleted(id=response_id)


@router.post("/{response_id}/cancel", response_model=ResponseObject)
async def cancel_response(response_id: str, service: ServiceDep, owner: OwnerDep) -> Response:
    """400: only responses in the background could be cancelled."""
    await _find(service, owner, response_id)
    raise invalid("Cannot cancel a synchronous response.", param="response_id", code="unsupported_value")


@router.get("/{response_id}/input_items", response_model=InputItemList)
async def list_input_items(response_id: str, service: ServiceDep, owner: OwnerDep, page: PageDep) -> JSONResponse:
    """What its request sent, the last item first; what an earlier response left to it is not among them."""
    found = await _find(service, owner, response_id)
    return JSONResponse(listed_items(found.items, page.page("desc")))


async def _find(service: Service, owner: str, response_id: str) -> Completion:
    found = await service.storage.call(lambda shelves: shelves.completions.get(owner, "response", response_id))
    if found is None:
        raise _not_found(response_id)
    return found


def _not_found(response_id: str) -> ApiError:
    return ApiError(404, f"Response with id '{response_id[:200]}' not found.", "not_found", "response_id")
