"""Every answer passes here on its way from a route to the engine and back: limits, deadlines, and what is noted."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from proxy_model.decoding.request import Delta, GenerationRequest
from server.backends.protocol import OVERDUE, UNREAD, Answer, Backend, LLMCard
from server.errors import ApiError, internal, unavailable
from server.exchange import Exchange, current
from server.proxies.canary_guard import CanaryGuard, Observation
from server.telemetry.metrics import Metrics

T = TypeVar("T")


class Admission:
    """Hands requests to `backend` under the limits of whoever asks."""

    def __init__(self, backend: Backend, metrics: Metrics, guard: CanaryGuard) -> None:
        self._backend = backend
        self._guard = guard
        self._metrics = metrics

    def generate(self, requests: Sequence[GenerationRequest], llm: LLMCard) -> tuple[Answer, ...]:
        """Queue one HTTP request's `requests` at once; what refuses them comes from `admitted()` of the answers."""
        exchange = current() or Exchange("")
        exchange.model, exchange.proxy = llm.name, requests[0].proxy
        prompts = {id(request.prompt_token_ids): len(request.prompt_token_ids) for request in requests}
        try:
            if exchange.ticket is not None:
                exchange.ticket.reserve(sum(prompts.values()) + sum(_promised(each, llm) for each in requests))
        except ApiError as refusal:
            self._metrics.reject_admission("rate_limit_tokens")
            return tuple(RefusedAnswer(refusal) for _ in requests)
        exchange.note_prompt(sum(prompts.values()))
        if exchange.trace is not None:
            for request in requests:
                exchange.trace.expect(request.id, llm.name)
        answers = [self._backend.generate(request) for request in requests]
        return tuple(
            AdmittedAnswer(
                each,
                exchange,
                self._to_error,
                observation=self._guard.observe(exchange.proxy),
                must_start=each is answers[0],
            )
            for each in answers
        )

    def _to_error(self, reason: str | None) -> ApiError:
        """What a client hears when an answer ends with the error `reason`."""
        if reason == OVERDUE:
            self._metrics.reject_admission("queue_timeout")
            message = "The server is overloaded: the request has waited too long. Please retry later."
            return unavailable(message, code="queue_timeout", retry_after_seconds=self._backend.seconds_to_serve())
        if reason == UNREAD:
            return ApiError(503, "The answer was not read fast enough.", "slow_reader", type="server_error")
        return internal(reason)


class RefusedAnswer:
    """An answer that will not be."""

    def __init__(self, refusal: ApiError) -> None:
        self._refusal = refusal

    async def admitted(self) -> None:
        """Raises the refusal."""
        raise self._refusal

    def __aiter__(self) -> "RefusedAnswer":
        return self

    async def __anext__(self) -> Delta:
        raise self._refusal

    async def aclose(self) -> None:
        """There is nothing to abort."""


class AdmittedAnswer:
    """An answer until its end or its deadline.

    With `must_start` it counts as admitted only with its first delta: whoever has to wait in vain gets a status, not a
    stream that was opened and then breaks.
    """

    def __init__(
        self,
        answer: Answer,
        exchange: Exchange,
        to_error: Callable[[str | None], ApiError],
        *,
        observation: Observation | None,
        must_start: bool,
    ) -> None:
        self._observation = observation
        self._answer = answer
        self._to_error = to_error
        self._exchange = exchange
        self._must_start = must_start
        self._first: Delta | None = None

    async def admitted(self) -> None:
        """Wait until the engine has the request. Raises its refusal, or `ApiError`."""
        await self._in_time(self._answer.admitted())
        if self._must_start and self._first is None:
            self._first = await self._next()
        self._must_start = False

    def __aiter__(self) -> "AdmittedAnswer":
        return self

    async def __anext__(self) -> Delta:
        if self._first is not None:
            delta, self._first = self._first, None
            return delta
        return await self._next()

    async def aclose(self) -> None:
        """Abort the request if it has not ended."""
        await self._answer.aclose()

    async def _next(self) -> Delta:
        delta = await self._in_time(anext(self._answer))
        self._exchange.note(delta)
        if self._observation is not None and delta.error not in (OVERDUE, UNREAD):
            self._observation.add(delta)
        if delta.finish_reason == "error":
            raise self._to_error(delta.error)
        return delta

    async def _in_time(self, step: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._seconds_left()):
                return await step
        except TimeoutError as error:
            await self._answer.aclose()
            message = "The answer was not finished within the request's deadline."
            raise ApiError(504, message, "deadline_exceeded", type="server_error") from error

    def _seconds_left(self) -> float | None:
        deadline = self._exchange.deadline
        return None if deadline is None else deadline - time.monotonic()


def _promised(request: GenerationRequest, llm: LLMCard) -> int:
    """The answer's length where the caller limited it; 0 for "as long as fits"."""
    max_tokens = request.params.max_tokens
    return max_tokens if len(request.prompt_token_ids) + max_tokens < llm.max_context else 0
