"""The handlers of the errors that routes and the router raise: they answer, and note why on the exchange."""

from collections.abc import Mapping

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from proxy_model.errors import ProxyRlhfError
from server.body import invalid_query
from server.errors import ApiError, to_api_error
from server.exchange import current

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


async def answer_api_error(request: Request, error: Exception) -> Response:
    """The exception handler of `ApiError`."""
    assert isinstance(error, ApiError)
    exchange = current()
    if exchange is not None:
        exchange.code = error.code
    return error.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The exception handler of what the router refuses."""
    assert isinstance(error, HTTPException)
    headers = {"allow": _allowed(request)} if error.status_code == 405 else error.headers
    return await answer_api_error(request, _of_status(error.status_code, request, headers))


async def answer_core_error(request: Request, error: Exception) -> Response:
    """The exception handler of the core's deliberate errors."""
    assert isinstance(error, ProxyRlhfError)
    return await answer_api_error(request, to_api_error(error))


async def answer_validation_error(request: Request, error: Exception) -> Response:
    """The exception handler of a query that FastAPI refuses."""
    assert isinstance(error, RequestValidationError)
    return await answer_api_error(request, invalid_query(error.errors()[0]))


def _of_status(status: int, request: Request, headers: Mapping[str, str] | None) -> ApiError:
    """The envelope of a status that the router gave: no such URL, no such method."""
    where = f"{request.method} {request.url.path}"
    messages = {
        404: (f"Invalid URL ({where})", "unknown_url"),
        405: (f"Not allowed to {request.method} on {request.url.path}", "method_not_allowed"),
    }
    message, code = messages.get(status, ("The request could not be processed.", f"http_{status}"))
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return ApiError(status, message, code, type=kind, headers=dict(headers or {}))


def _allowed(request: Request) -> str:
    """The methods that this URL has: the router names those of the first of its routes alone."""
    return ", ".join(method for method in _METHODS if _is_routed(request, method))


def _is_routed(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
