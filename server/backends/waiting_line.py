"""Who waits for a slot of the engine, how many tokens that is, and how long it will take. Belongs to its thread."""

from collections import deque
from dataclasses import dataclass

from proxy_model.decoding.request import GenerationRequest
from proxy_model.errors import EngineFull

_NUM_MEASURED = 64
"""Answers whose time in a slot makes the measured service rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """How long the line may get."""

    max_tokens: int = 1 << 20
    """Prompts and `max_tokens` of all that wait."""

    max_seconds: float = 600.0
    """Who has waited longer is sent away."""

    num_slots: int = 32


@dataclass(slots=True)
class _Place:
    num_tokens: int
    since: float
    """Monotonic seconds: when it came; once it has a slot, since when."""


class WaitingLine:
    """First come, first served, as the scheduler does it."""

    def __init__(self, limits: LineLimits) -> None:
        self._limits = limits
        self._waiting: dict[str, _Place] = {}
        self._running: dict[str, _Place] = {}
        self._num_tokens = 0
        self._seconds_in_slot: deque[float] = deque(maxlen=_NUM_MEASURED)

    def check(self, request: GenerationRequest, now: float) -> None:
        """Raises `EngineFull` when the tokens of those who wait leave no room; who finds nobody waiting may come in."""
        if self._waiting and self._num_tokens + _size(request) > self._limits.max_tokens:
            words = f"the queue holds {self._num_tokens} of at most {self._limits.max_tokens} tokens"
            raise EngineFull(words, self.seconds_to_serve(now))

    def join(self, request: GenerationRequest, now: float) -> None:
        """The engine took `request`."""
        self._waiting[request.id] = _Place(_size(request), now)
        self._num_tokens += _size(request)

    def move_up(self, num_running: int, now: float) -> None:
        """After a step: `num_running` requests hold a slot, those that came first. Call it before `leave`."""
        while self._waiting and len(self._running) < num_running:
            request_id = next(iter(self._waiting))
            place = self._waiting.pop(request_id)
            self._num_tokens -= place.num_tokens
            place.since = now
            self._running[request_id] = place

    def leave(self, request_id: str, now: float) -> None:
        """A request is over, wherever it was; others are ignored."""
        place = self._waiting.pop(request_id, None)
        if place is not None:
            self._num_tokens -= place.num_tokens
            return
        place = self._running.pop(request_id, None)
        if place is not None:
            self._seconds_in_slot.append(now - place.since)

    def overdue(self, now: float) -> list[str]:
        """Ids of those who have waited too long."""
        late = []
        for request_id, place in self._waiting.items():
            if now - place.since <= self._limits.max_seconds:
                break
            late.append(request_id)
        return late

    def seconds_to_serve(self, now: float) -> float:
        """Until everyone who waits now has been served: their number times the mean time in a slot, over the slots."""
        measured = self._seconds_in_slot or [max((now - place.since for place in self._running.values()), default=1.0)]
        mean = sum(measured) / len(measured)
        return (len(self._waiting) + 1) * mean / self._limits.num_slots


def _size(request: GenerationRequest) -> int:
    return len(request.prompt_token_ids) + request.params.max_tokens
