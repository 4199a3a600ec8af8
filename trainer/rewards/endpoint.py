"""Questions to an LLM behind an OpenAI-compatible endpoint: retried, counted, remembered."""

import random
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from proxy_model.errors import CostCeilingReached, GraderFailed, GraderUnclear
from trainer.api_key import bearer
from trainer.endpoint_errors import MAX_WAIT_SECONDS, retry_after_seconds, said
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.verdicts import Verdicts

Reading = TypeVar("Reading")

_MAX_QUOTED = 200
_ASKED_AGAIN = 2
"""Times that a model is asked which answers something else than what was asked for."""


class ChatEndpoint:
    """Asks `config.url`; `transport` and `sleep` stand in for the network and the clock in tests."""

    def __init__(
        self,
        config: EndpointConfig,
        verdicts: Verdicts,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `InvalidParameter` for a key file that cannot be read."""
        self.config = config
        self._verdicts = verdicts
        self._sleep = sleep
        self._key = config.key()
        self._client = httpx.Client(
            base_url=config.url.rstrip("/") + "/",
            headers=bearer(self._key),
            timeout=config.timeout_seconds,
            transport=transport,
        )
        weakref.finalize(self, self._client.close)

    def ask(self, name: str, question: Mapping[str, Any], read: Callable[[str], Reading | None]) -> Reading:
        """What `read` makes of the answer to a chat completion's body; None of it is an answer that is no use.

        `name` is the grader's, for errors. Raises `GraderFailed`, `GraderUnclear`, `CostCeilingReached`.
        """
        known = self._verdicts.find(question)
        if known is not None and (reading := read(known)) is not None:
            return reading
        text = ""
        for _ in range(_ASKED_AGAIN):
            text, num_tokens = self._answer(name, question)
            reading = read(text)
            if reading is not None:
                self._verdicts.keep(question, text, num_tokens)
                return reading
            self._verdicts.count(num_tokens)
        raise GraderUnclear(name, f"{question['model']} did not answer what was asked for, but {text[:_MAX_QUOTED]!r}")

    def _answer(self, name: str, question: Mapping[str, Any]) -> tuple[str, int]:
        """The answer's text and the tokens that were paid for."""
        self._require_means(name)
        response = self._post(name, question)
        try:
            body = response.json()
            text, usage = body["choices"][0]["message"]["content"], body.get("usage") or {}
            return str(text or ""), int(usage.get("total_tokens") or 0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise GraderFailed(name, "the endpoint's answer is no chat completion") from error

    def _require_means(self, name: str) -> None:
        config, spent = self.config, self._verdicts
        if spent.num_requests >= config.max_requests:
            raise CostCeilingReached(name, f"max_requests is {config.max_requests}, and as many were answered")
        if config.max_tokens and spent.num_tokens >= config.max_tokens:
            raise CostCeilingReached(name, f"max_tokens is {config.max_tokens}, and {spent.num_tokens} were used")

    def _post(self, name: str, question: Mapping[str, Any]) -> httpx.Response:
        problem, wait = "", 0.0
        for attempt in range(self.config.max_attempts):
            if attempt:
                self._sleep(wait)
            wait = min(MAX_WAIT_SECONDS, 2.0**attempt) * random.uniform(0.5, 1.0)
            try:
                response = self._client.post("chat/completions", json=question)
            except httpx.TransportError as error:
                problem = f"it cannot be reached ({type(error).__name__})"
                continue
            if response.is_success:
                return response
            problem = f"it answered {response.status_code}: {said(response, self._key)}"
            if response.status_code < 500 and response.status_code not in (408, 409, 429):
                break
            wait = max(wait, retry_after_seconds(response))
        raise GraderFailed(name, f"the endpoint {self._client.base_url.host} failed, {problem}")
