"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from server.body import read_body
from server.chat.answer import whole_answer
from server.chat.record import start_stored_chat
from server.chat.stream import stream_answer
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.generation.respond import respond
from server.openapi import event_stream, json_body
from server.schemas.chat_request import ChatRequest
from server.schemas.chat_response import ChatChunk, ChatCompletion

router = APIRouter(dependencies=[ApiKey])


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=event_stream(ChatChunk, description="The answer; events with `stream`."),
    openapi_extra=json_body(ChatRequest),
)
async def create_chat_completion(request: Request, service: ServiceDep, owner: OwnerDep) -> Response:
    """Answer a conversation, whole or as a stream of chunks."""
    service.serving()
    chat = await read_body(request, ChatRequest, service.settings.max_body_bytes)
    return await respond(request, start_stored_chat(service, chat, owner), whole_answer, stream_answer)
