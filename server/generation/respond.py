"""A run's answer as an HTTP response: whole, or as a stream of events."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from server.generation.run import Run
from server.sse import EventStream, while_connected


async def respond(
    request: Request,
    start: Coroutine[Any, Any, Run],
    whole: Callable[[Run], Coroutine[Any, Any, BaseModel]],
    events: Callable[[Run], AsyncGenerator[bytes]],
) -> Response:
    """Run what `start` begins; a client that hangs up ends it at any point."""
    run = await while_connected(request.receive, start)
    if run.order.body.stream:
        return EventStream(events(run), run.headers, run.aclose)
    try:
        answer = await while_connected(request.receive, whole(run))
    finally:
        await run.aclose()
    return Response(answer.model_dump_json(), media_type="application/json", headers=run.headers)
