"""Around every request: an id that is echoed, one log line, one count, and no exception that gets out."""

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import internal
from server.exchange import begin
from server.service import Service
from server.sse import ClientGone, ClientStuck
from server.telemetry.request_log import log_request

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_PROBES = ("/health", "/ready", "/metrics")
_CLIENT_CLOSED_REQUEST = 499
"""The status in the log when nobody was there to read one (nginx's number)."""


class RequestContext:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_probe = scope["path"] in _PROBES
        self._service.num_open += not is_probe
        try:
            await self._answer(scope, receive, send)
        finally:
            self._service.num_open -= not is_probe

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, request_id, status = time.perf_counter(), _request_id(scope), _CLIENT_CLOSED_REQUEST
        exchange = begin(request_id, (scope.get("client") or ("",))[0])
        if self._service.tracing is not None and scope["path"] not in _PROBES:
            exchange.trace = self._service.tracing.begin(scope)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.update(exchange.limits())
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except (ClientGone, ClientDisconnect) as gone:
            logger.debug("the client hung up", extra={"request_id": request_id})
            if isinstance(gone, ClientStuck):
                _cut_off(receive)
        except Exception:
            logger.exception("a request failed", extra={"request_id": request_id})
            if status != _CLIENT_CLOSED_REQUEST:
                raise
            await internal().response()(scope, receive, send_with_id)
        finally:
            if exchange.ticket is not None:
                exchange.ticket.leave()
            route = getattr(scope.get("route"), "path", "unmatched")
            self._service.metrics.http_request(route, status)
            if exchange.trace is not None:
                exchange.trace.end(route, status, exchange.request_id, exchange.key)
            log_request(scope["method"], route, status, began, exchange)


def _cut_off(receive: Receive) -> None:
    """Drop the connection and what is buffered for it: ASGI has no word for that, uvicorn's `receive` a transport."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if isinstance(transport, asyncio.Transport):
        transport.abort()


def _request_id(scope: Scope) -> str:
    """The caller's own, if it is harmless in a header and a log."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
