"""By when a request must be over: the server's setting, and what whoever passed the request on still waits for."""

import math
import time

from starlette.requests import Request

from server.errors import invalid

HEADER = "x-envoy-expected-rq-timeout-ms"
"""Envoy tells those behind it so how long it will wait; other proxies and clients may as well."""


def deadline_of(request: Request, max_seconds: float | None) -> float | None:
    """Monotonic seconds, None without any limit. Raises `ApiError` 400 for a header that is no positive number."""
    seconds = math.inf if max_seconds is None else max_seconds
    text = request.headers.get(HEADER)
    if text is not None:
        if not (text.isascii() and text.isdecimal() and int(text[:12]) > 0):
            raise invalid(f"Invalid value for '{HEADER}': must be a positive number of milliseconds.", param=HEADER)
        seconds = min(seconds, int(text[:12]) / 1000)
    return None if seconds == math.inf else time.monotonic() + seconds
