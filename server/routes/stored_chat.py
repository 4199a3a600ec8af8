"""/v1/chat/completions that were stored: list, get, label, delete, and the messages that they answered."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.body import read_body
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.errors import ApiError
from server.openapi import json_body
from server.paging import METADATA_PARAMETER, PageDep, listed, listed_items, metadata_filter
from server.schemas.stored_chat import (
    ChatCompletionDeleted,
    MetadataUpdate,
    StoredChatCompletion,
    StoredChatCompletionList,
    StoredMessageList,
)
from server.service import Service
from store.completions import Completion, Filter

router = APIRouter(dependencies=[ApiKey])

_KIND: Literal["chat.completion"] = "chat.completion"
_PATH = "/v1/chat/completions/{completion_id}"
_ECHOED = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")


@router.get("/v1/chat/completions", response_model=StoredChatCompletionList, openapi_extra=METADATA_PARAMETER)
async def list_chat_completions(
    request: Request, service: ServiceDep, owner: OwnerDep, page: PageDep, model: str | None = None
) -> JSONResponse:
    """The caller's stored completions, the oldest first."""
    wanted = Filter(model=model, metadata=metadata_filter(request))
    rows, has_more = await service.storage.call(
        lambda shelves: shelves.completions.list(owner, _KIND, page.page(), wanted)
    )
    return JSONResponse(listed([_shown(row) for row in rows], has_more=has_more))


@router.get(_PATH, response_model=StoredChatCompletion)
async def get_chat_completion(completion_id: str, service: ServiceDep, owner: OwnerDep) -> JSONResponse:
    """One stored completion."""
    return JSONResponse(_shown(await _find(service, owner, completion_id)))


@router.post(_PATH, response_model=StoredChatCompletion, openapi_extra=json_body(MetadataUpdate))
async def update_chat_completion(
    completion_id: str, request: Request, service: ServiceDep, owner: OwnerDep
) -> JSONResponse:
    """Replace its labels."""
    labels = (await read_body(request, MetadataUpdate, service.settings.max_body_bytes)).metadata or {}
    found = await service.storage.call(
        lambda shelves: shelves.completions.set_metadata(owner, _KIND, completion_id, labels)
    )
    return JSONResponse(_shown(_required(found)))


@router.delete(_PATH)
async def delete_chat_completion(completion_id: str, service: ServiceDep, owner: OwnerDep) -> ChatCompletionDeleted:
    """Delete it and all feedback on it."""
    if not await service.storage.call(lambda shelves: shelves.completions.delete(owner, _KIND, completion_id)):
        raise _not_found()
    return ChatCompletionDeleted(id=completion_id)


@router.get(f"{_PATH}/messages", response_model=StoredMessageList)
async def list_chat_completion_messages(
    completion_id: str, service: ServiceDep, owner: OwnerDep, page: PageDep
) -> JSONResponse:
    """The messages that it answers, the first one first."""
    found = await _find(service, owner, completion_id)
    return JSONResponse(listed_items(found.items, page.page()))


async def _find(service: Service, owner: str, completion_id: str) -> Completion:
    return _required(await service.storage.call(lambda shelves: shelves.completions.get(owner, _KIND, completion_id)))


def _required(found: Completion | None) -> Completion:
    if found is None:
        raise _not_found()
    return found


def _not_found() -> ApiError:
    return ApiError(404, "There is no stored chat completion of that id.", "not_found", "completion_id")


def _shown(row: Completion) -> dict[str, Any]:
    settings = {name: row.request.get(name) for name in _ECHOED}
    return row.body | settings | {"input_user": row.request.get("user"), "metadata": row.metadata}
