"""POST /v1/completions."""

from fastapi import APIRouter, Request, Response

from server.body import read_body
from server.completions.answer import whole_completion
from server.completions.order import start_completion
from server.completions.stream import stream_completion
from server.dependencies import ApiKey, ServiceDep
from server.generation.respond import respond
from server.openapi import event_stream, json_body
from server.schemas.completion_request import CompletionRequest
from server.schemas.completion_response import Completion

router = APIRouter(dependencies=[ApiKey])


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses=event_stream(Completion, description="The answers; events with `stream`."),
    openapi_extra=json_body(CompletionRequest),
)
async def create_completion(request: Request, service: ServiceDep) -> Response:
    """Continue texts, whole or as a stream of chunks."""
    service.serving()
    body = await read_body(request, CompletionRequest, service.settings.max_body_bytes)
    return await respond(
        request,
        start_completion(service, body),
        lambda run: whole_completion(run, body),
        lambda run: stream_completion(run, body),
    )
