"""What routes ask for: the service, and a caller who may be there."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from server.access.api_keys import NamedKey
from server.access.auth import bearer_key, require
from server.access.deadline import deadline_of
from server.errors import ApiError
from server.exchange import Exchange, current
from server.service import Service
from store.database import owner_of


async def get_service(request: Request) -> Service:
    """The application's service. Like all dependencies a coroutine: FastAPI would call a function in a thread."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]

# These put the keys into the OpenAPI document; the key itself is read and compared by `auth`.
_API_KEY = HTTPBearer(scheme_name="apiKey", description="One of PROXY_RLHF_API_KEYS, if any.", auto_error=False)
_ADMIN_KEY = HTTPBearer(scheme_name="adminKey", description="PROXY_RLHF_ADMIN_KEY.", auto_error=False)
_WithApiKey = Annotated[HTTPAuthorizationCredentials | None, Security(_API_KEY)]
_WithAdminKey = Annotated[HTTPAuthorizationCredentials | None, Security(_ADMIN_KEY)]


async def require_api_key(request: Request, service: ServiceDep, _: _WithApiKey = None) -> None:
    """Raise 401 without a good key; without configured keys everyone may (the server is on loopback then)."""
    key = require(request, service.access.api) if service.access.api else None
    exchange = current()
    if exchange is not None:
        _admit(exchange, key, request, service)


async def require_admin(request: Request, service: ServiceDep, _: _WithAdminKey = None) -> None:
    """Raise 403 when no admin key is configured, 401 without it. An API key opens nothing here."""
    if not service.access.admin:
        message = "The admin routes are closed: no admin key is configured (PROXY_RLHF_ADMIN_KEY)."
        raise ApiError(403, message, "admin_disabled")
    _note(require(request, service.access.admin))


async def require_reader(
    request: Request, service: ServiceDep, _: _WithApiKey = None, __: _WithAdminKey = None
) -> None:
    """For /metrics: an API key or the admin key, once API keys are configured."""
    if service.access.api:
        _note(require(request, service.access.api, service.access.admin))


async def get_owner(request: Request, service: ServiceDep) -> str:
    """Whose rows in the store this caller sees; without configured keys everyone's are the same."""
    return owner_of(bearer_key(request) if service.access.api else None)


OwnerDep = Annotated[str, Depends(get_owner)]


def _admit(exchange: Exchange, key: NamedKey | None, request: Request, service: Service) -> None:
    """Count the request against its key's limits; what only looks is free. Raises `ApiError` 429, 400."""
    if key is not None:
        exchange.key, exchange.holder = key.name, key.holder
    exchange.deadline = deadline_of(request, service.settings.deadline_seconds)
    exchange.limits = partial(service.limiter.headers, key)
    if request.method in ("GET", "HEAD"):
        return
    try:
        exchange.ticket = service.limiter.enter(key)
    except ApiError:
        service.metrics.reject_admission("rate_limit_requests")
        raise


def _note(key: NamedKey) -> None:
    exchange = current()
    if exchange is not None:
        exchange.key = key.name


ApiKey = Depends(require_api_key)
AdminKey = Depends(require_admin)
ReaderKey = Depends(require_reader)
