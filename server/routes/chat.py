"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from server.body import read_body
from server.chat import start_chat
from server.chat_answer import whole_answer
from server.chat_stream import stream_answer
from server.dependencies import ApiKey, ServiceDep
from server.openapi import event_stream, json_body
from server.schemas.chat_request import ChatRequest
from server.schemas.chat_response import ChatChunk, ChatCompletion
from server.sse import EventStream, while_connected

router = APIRouter(dependencies=[ApiKey])


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=event_stream(ChatChunk, description="The answer; events with `stream`."),
    openapi_extra=json_body(ChatRequest),
)
async def create_chat_completion(request: Request, service: ServiceDep) -> Response:
    """Answer a conversation, whole or as a stream of chunks."""
    service.serving()
    chat = await read_body(request, ChatRequest, service.settings.max_body_bytes)
    run = await while_connected(request.receive, start_chat(service, chat))
    if chat.stream:
        return EventStream(stream_answer(run), run.headers, run.aclose)
    try:
        answer = await while_connected(request.receive, whole_answer(run))
    finally:
        await run.aclose()
    return Response(answer.model_dump_json(), media_type="application/json", headers=run.headers)
