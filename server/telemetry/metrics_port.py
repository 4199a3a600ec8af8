"""/metrics on a port of its own, so that the one that users reach need not show it."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from server.error_handlers import answer_api_error, answer_http_error
from server.errors import ApiError
from server.middleware import RequestContext
from server.routes import metrics
from server.service import Service


class MetricsServer(uvicorn.Server):
    """Beside the main server in its event loop; leaves the signals to that."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """None are captured."""
        yield


async def serve_metrics(service: Service, listener: socket.socket) -> None:
    """Answer on `listener` until cancelled."""
    config = uvicorn.Config(_metrics_app(service), lifespan="off", log_config=None, access_log=False)
    server = MetricsServer(config)
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving


def _metrics_app(service: Service) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    app.include_router(metrics.router)
    app.add_middleware(RequestContext, service=service)
    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    return app
