"""Who asks: the bearer's key, looked up in constant time."""

from starlette.requests import Request

from server.access.api_keys import Keyring, NamedKey
from server.errors import ApiError


def bearer_key(request: Request) -> str | None:
    """The key of `Authorization: Bearer ...`, None without one."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def require(request: Request, *keyrings: Keyring) -> NamedKey:
    """Whose request it is. Raises 401 unless it carries a key of one of `keyrings`."""
    key = bearer_key(request)
    if key is None:
        raise _unauthorised(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    found = [holder for keyring in keyrings if (holder := keyring.find(key)) is not None]
    if not found:
        raise _unauthorised("Incorrect API key provided.")
    return found[0]


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, "invalid_api_key", headers={"www-authenticate": "Bearer"})
