"""Server-sent events, and the client that goes away in their middle."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.errors import internal

logger = logging.getLogger(__name__)

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"

_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """The client hung up; nobody reads the answer."""


class ClientStuck(ClientGone):
    """The client does not read; what is buffered for it will never be sent."""


def event(data: bytes | str) -> bytes:
    """One event of one line of JSON."""
    return b"data: " + (data.encode() if isinstance(data, str) else data) + b"\n\n"


def named_event(name: str, data: str) -> bytes:
    """One event of one line of JSON, under a name."""
    return b"event: " + name.encode() + b"\n" + event(data)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client hangs up: then raises `ClientGone`.

    The request's body must have been read.
    """
    worker = asyncio.create_task(work)
    watcher = asyncio.create_task(_hang_up(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            return await worker
        raise ClientGone
    finally:
        await _cancelled(worker, watcher)


class EventStream(Response):
    """Sends events as they come; runs `close` at the end, at a hang-up and at a cancellation."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[bytes], headers: Mapping[str, str], close: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(headers={**_HEADERS, **headers})
        del self.headers["content-length"]
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        seconds = scope["app"].state.service.settings.write_seconds

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(seconds):
                await send(message)

        try:
            await while_connected(receive, self._send_all(send_in_time))
        finally:
            await self._events.aclose()
            await self._close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for data in self._events:
                await _send_part(send, data)
        except ClientGone:
            raise
        except Exception:
            logger.exception("an answer broke off in the middle of its stream")
            await _send_part(send, event(json.dumps(internal().envelope())) + DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_part(send: Send, data: bytes) -> None:
    try:
        await send({"type": "http.response.body", "body": data, "more_body": True})
    except TimeoutError as error:
        raise ClientStuck from error
    except OSError as error:
        raise ClientGone from error


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
