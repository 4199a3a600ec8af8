"""Who may ask: API keys for /v1, another key for /admin; compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable

from starlette.requests import Request

from server.errors import ApiError


class Keys:
    """A set of keys; keeps hashes only."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests: tuple[bytes, ...] = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __add__(self, other: "Keys") -> "Keys":
        joined = Keys(())
        joined._digests = self._digests + other._digests
        return joined

    def accepts(self, key: str) -> bool:
        """Whether `key` is one of them; takes as long for a near miss as for a far one."""
        digest = _digest(key)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


def bearer_key(request: Request) -> str | None:
    """The key of `Authorization: Bearer ...`, None without one."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def require(keys: Keys, request: Request) -> None:
    """Raise 401 unless the request carries one of `keys`."""
    key = bearer_key(request)
    if key is None:
        raise _unauthorised(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    if not keys.accepts(key):
        raise _unauthorised("Incorrect API key provided.")


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, "invalid_api_key", headers={"www-authenticate": "Bearer"})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
