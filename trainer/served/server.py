"""One server as a run sees it: asked for an answer, left alone while it cannot give one."""

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from proxy_model.errors import ServersFailed
from trainer.endpoint_errors import retry_after_seconds, said
from trainer.served.answer import Question, ServedAnswer, read_answer

logger = logging.getLogger(__name__)

_SHORTEST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 10.0
"""A server that fails is asked again after as long as it has failed for, within these bounds."""

_PASSING = frozenset({404, 408, 409, 425, 429})
"""Statuses below 500 after which the same question may be answered."""

_REFUSED = re.compile(r"its checkpoint was refused \((\w+)\)")
_LASTING = frozenset({"fingerprint", "unsupported", "format", "not_finite"})
"""Why a version is refused that will not be in order in a moment, as one may be that a network disk brings."""


class Unavailable(Exception):
    """The server has not answered; somebody else, or itself a little later, may."""

    def __init__(self, problem: str, wait_seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_seconds = wait_seconds


@dataclass(slots=True)
class Server:
    """Lives as long as the event loop of one rollout."""

    url: str
    client: httpx.AsyncClient
    key: str | None
    failing_since: float | None = None
    """On the monotonic clock; None once it has answered."""

    problem: str = ""
    """What it said last that was no answer."""

    _num_under_way: int = 0
    _waits_until: float = 0.0
    _llm_name: str | None = None
    _introduction: asyncio.Lock = field(default_factory=asyncio.Lock)

    def may_be_asked(self) -> bool:
        """Whether it has been left alone for long enough; while it fails it is asked one question at a time."""
        has_room = self.failing_since is None or self._num_under_way == 0
        return has_room and time.monotonic() >= self._waits_until

    def has_failed_for(self, seconds: float) -> bool:
        """Whether it has given no answer for so long, though it was asked, and is not at work on one."""
        since = self.failing_since
        return since is not None and self._num_under_way == 0 and time.monotonic() - since >= seconds

    async def answer(self, question: Question) -> ServedAnswer:
        """Raises `Unavailable`, and `ServersFailed` where asking again is of no use."""
        self._num_under_way += 1
        try:
            name = await self._name()
            found = await self._asked("POST", "/v1/completions", json=question.body(name))
            answer = _read(question, found)
        except Unavailable as error:
            self._note_failure(error)
            raise
        finally:
            self._num_under_way -= 1
        self.failing_since = None
        return answer

    async def _name(self) -> str:
        """What it calls its LLM; asked once."""
        async with self._introduction:
            if self._llm_name is None:
                found = await self._asked("GET", "/v1/models")
                try:
                    self._llm_name = str(found["data"][0]["id"])
                except (KeyError, IndexError, TypeError) as error:
                    raise ServersFailed(f"{self.url} lists no models as these servers do") from error
            return self._llm_name

    async def _asked(self, method: str, path: str, **body: Any) -> Any:
        """The JSON of what it says."""
        try:
            response = await self.client.request(method, self.url.rstrip("/") + path, **body)
        except httpx.RequestError as error:
            raise Unavailable(f"it cannot be reached ({type(error).__name__})") from error
        if not response.is_success:
            raise self._refusal(response)
        try:
            return response.json()
        except ValueError as error:
            raise Unavailable("it says something else than JSON") from error

    def _refusal(self, response: httpx.Response) -> Exception:
        status, words = response.status_code, said(response, self.key)
        if status in (401, 403):
            return ServersFailed(f"{self.url} refuses the key: {words}")
        refused = _REFUSED.search(response.text)  # whole: a model may have a long name
        if refused is not None and refused[1] == "fingerprint":
            return ServersFailed(f"{self.url} serves another LLM than the run trains a proxy for: {words}")
        if (status < 500 and status not in _PASSING) or (refused is not None and refused[1] in _LASTING):
            return ServersFailed(f"{self.url} refuses what the run asks for: {words}")
        if status == 404:
            self._llm_name = None
            return Unavailable(f"it does not know the version in training; does it follow the run's registry? {words}")
        return Unavailable(f"it answers {status}: {words}", retry_after_seconds(response))

    def _note_failure(self, failure: Unavailable) -> None:
        """Told once a rollout."""
        if not self.problem:
            logger.warning("%s has not answered a prompt, which waits or goes to another server: %s", self.url, failure)
        self.problem, now = str(failure), time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
        wait = min(max(now - self.failing_since, _SHORTEST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)
        self._waits_until = max(self._waits_until, now + max(wait, failure.wait_seconds))


def _read(question: Question, body: Any) -> ServedAnswer:
    try:
        return read_answer(question, body)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Unavailable(f"its answer is none with the version's decisions ({error})") from error
