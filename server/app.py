"""The ASGI application."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as version_of

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from proxy_model.errors import ProxyRlhfError
from server.backends.protocol import Backend
from server.error_handlers import answer_api_error, answer_core_error, answer_http_error, answer_validation_error
from server.errors import ApiError
from server.middleware import RequestContext
from server.openapi import document, operation_id
from server.paging import answer_unknown_cursor
from server.routes import (
    admin,
    chat,
    completions,
    feedback,
    files,
    fine_tuning,
    health,
    metrics,
    models,
    playground,
    responses,
    stored_chat,
    tokens,
    version,
)
from server.service import Service
from server.settings import Settings
from server.telemetry.metrics_port import serve_metrics
from store.page import UnknownCursor

_ROUTES = (
    chat,
    stored_chat,
    completions,
    responses,
    feedback,
    files,
    fine_tuning,
    models,
    tokens,
    health,
    version,
    admin,
    playground,
)


def create_app(backend: Backend, settings: Settings, metrics_listener: socket.socket | None = None) -> FastAPI:
    """The application; its lifespan loads the backend, and /ready tells when that is done.

    With a `metrics_listener` /metrics is answered there and nowhere else.
    """
    service = Service(settings, backend)
    app = FastAPI(
        title="proxy-rlhf",
        version=version_of("proxy-rlhf"),
        summary="An OpenAI-compatible server of a frozen LLM under a proxy that accepts or rejects every token",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
    )
    app.state.service, app.state.metrics_listener = service, metrics_listener
    for routes in (*_ROUTES, *([metrics] if metrics_listener is None else [])):
        app.include_router(routes.router, tags=[routes.__name__.rpartition(".")[2]])
    app.add_middleware(RequestContext, service=service)
    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(ProxyRlhfError, answer_core_error)
    app.add_exception_handler(UnknownCursor, answer_unknown_cursor)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    running = [asyncio.create_task(service.run())]
    if app.state.metrics_listener is not None:
        running.append(asyncio.create_task(serve_metrics(service, app.state.metrics_listener)))
    yield
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await service.backend.stop()
    await service.storage.close()
