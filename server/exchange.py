"""One HTTP request and what is known about it so far; whoever learns something notes it here."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Exchange:
    """For the log line, the limits and the trace. Never holds a key, a prompt or an answer."""

    request_id: str
    key: str | None = None
    """The name of the API key; None while nobody has been recognised, or where no keys are configured."""

    facts: dict[str, Any] = field(default_factory=dict)
    """For the log: model, proxy, version, tokens, rejections."""


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def begin(request_id: str) -> Exchange:
    """A new one, current in this task and those that it starts."""
    exchange = Exchange(request_id)
    _current.set(exchange)
    return exchange


def current() -> Exchange | None:
    """The one that is being answered here; None outside of any."""
    return _current.get()
