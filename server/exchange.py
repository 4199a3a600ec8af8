"""One HTTP request and what is known about it so far; whoever learns something notes it here."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.request import Delta
from server.access.limits import Ticket

if TYPE_CHECKING:  # it needs the extra `otel`
    from server.telemetry.tracing import RequestTrace


@dataclass(slots=True)
class Exchange:
    """For the log line, the limits and the trace. Never holds a key, a prompt or an answer."""

    request_id: str
    address: str = ""
    """Where the request came from."""

    key: str | None = None
    """The name of the API key; None while nobody has been recognised, or where no keys are configured."""

    holder: str = ""
    """Whose requests share limits and kept prompts: `NamedKey.holder`; empty where no keys are configured."""

    ticket: Ticket | None = None
    """What the key's limits have granted."""

    limits: Callable[[], dict[str, str]] = dict
    """How much of the key's limits is left, as headers."""

    deadline: float | None = None
    """Monotonic seconds by which the answer must be over."""

    trace: "RequestTrace | None" = None
    """Its span, where traces are kept."""

    code: str | None = None
    """Why it was refused, as the error's `code`."""

    model: str | None = None
    proxy: ProxyRef | None = None
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_rejected: int = 0

    def note_prompt(self, num_tokens: int) -> None:
        """A prompt of so many tokens goes to the engine."""
        self.num_prompt_tokens += num_tokens
        if self.ticket is not None:
            self.ticket.use(num_tokens)

    def note(self, delta: Delta) -> None:
        """The engine has gone a step further."""
        self.num_completion_tokens += len(delta.token_ids)
        self.num_rejected += delta.num_rejected
        if self.ticket is not None:
            self.ticket.use(len(delta.token_ids))

    def facts(self) -> dict[str, str | int | None]:
        """For the log line."""
        facts: dict[str, str | int | None] = {"request_id": self.request_id, "key": self.key}
        if self.code is not None:
            facts["code"] = self.code
        if self.model is not None:
            facts |= {
                "model": self.model,
                "proxy": "base" if self.proxy is None else self.proxy.name,
                "version": None if self.proxy is None else self.proxy.version,
                "prompt_tokens": self.num_prompt_tokens,
                "completion_tokens": self.num_completion_tokens,
                "rejections": self.num_rejected,
            }
        return facts


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def begin(request_id: str, address: str) -> Exchange:
    """A new one, current in this task and those that it starts."""
    exchange = Exchange(request_id, address)
    _current.set(exchange)
    return exchange


def current() -> Exchange | None:
    """The one that is being answered here; None outside of any."""
    return _current.get()
