"""The ASGI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from proxy_model.errors import ProxyRlhfError
from server.backends.protocol import Backend
from server.errors import ApiError, invalid, of_status, to_api_error
from server.middleware import RequestContext
from server.openapi import document, operation_id
from server.routes import admin, chat, health, models
from server.service import Service
from server.settings import Settings


def create_app(backend: Backend, settings: Settings) -> FastAPI:
    """The application; its lifespan loads the backend, and /ready tells when that is done."""
    service = Service(settings, backend)
    app = FastAPI(
        title="proxy-rlhf",
        version=version("proxy-rlhf"),
        summary="An OpenAI-compatible server of a frozen LLM under a proxy that accepts or rejects every token",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
    )
    app.state.service = service
    for routes in (chat, models, health, admin):
        app.include_router(routes.router, tags=[routes.__name__.rpartition(".")[2]])
    app.add_middleware(RequestContext, service=service)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(ProxyRlhfError, _answer_core_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    running = asyncio.create_task(service.run())
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await service.backend.stop()


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _answer_core_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProxyRlhfError)
    return to_api_error(error).response()


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return of_status(error.status_code, request, error.headers).response()


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    return invalid("The URL's parameters are not valid.", param=None).response()
