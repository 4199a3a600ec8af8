"""A running server at the other end of a conversation, streamed by server-sent events."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx

from cli.speaker import ChatOptions, Message
from proxy_model.errors import InvalidParameter, ProxyRlhfError

_TIMEOUT = httpx.Timeout(10.0, read=120.0)


class NoAnswer(ProxyRlhfError):
    """The server cannot be reached, broke off, or refused; then the message is the server's own."""


class RemoteSpeaker:
    """One model of one server."""

    def __init__(self, client: httpx.Client, model: str, options: ChatOptions) -> None:
        self.model = model
        self.note = ""
        self._client = client
        self._options = options

    @classmethod
    def connect(cls, url: str, api_key: str | None, model: str | None, proxy: str | None, options: ChatOptions) -> Self:
        """Look the server's models up unless one is named. Raises `NoAnswer`."""
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        if not url.startswith(("http://", "https://")):
            raise InvalidParameter("url", url, "an address such as http://127.0.0.1:8000")
        client = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT)
        llm = model or _first_model(client)
        return cls(client, f"{llm}:{proxy}" if proxy else llm, options)

    def answer(self, messages: list[Message]) -> Iterator[str]:
        """The answer in pieces. Raises `NoAnswer`."""
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self._options.max_tokens,
            "temperature": self._options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._options.seed is not None:
            body["seed"] = self._options.seed
        with _reaching(self._client), self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            _require_success(response)
            for chunk in _events(response):
                self.note = _note(chunk) or self.note
                for choice in chunk["choices"]:
                    if choice["delta"].get("content"):
                        yield choice["delta"]["content"]


def _first_model(client: httpx.Client) -> str:
    with _reaching(client):
        response = client.get("/v1/models")
    _require_success(response)
    try:
        return str(response.json()["data"][0]["id"])
    except (ValueError, LookupError, TypeError) as error:
        raise NoAnswer(f"{client.base_url} does not list its models as OpenAI's API does") from error


@contextmanager
def _reaching(client: httpx.Client) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        hint = "is `proxy-rlhf serve` running?" if isinstance(error, httpx.ConnectError) else "it broke off"
        raise NoAnswer(f"no answer from {client.base_url}: {str(error) or type(error).__name__} ({hint})") from error


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise NoAnswer(str(chunk["error"]["message"]))
        yield chunk


def _note(chunk: dict[str, Any]) -> str:
    """What the chunk with the usage says of the answer."""
    usage, proxy = chunk.get("usage"), chunk.get("proxy")
    if not usage:
        return ""
    if not proxy:
        return f"[the LLM alone, {usage['completion_tokens']} tokens]"
    name = f"{proxy['id']}@{proxy['version']}"
    return f"[{name}, {usage['completion_tokens']} tokens, {proxy['rejections']} rejected, {proxy['forced']} forced]"


def _require_success(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    raise NoAnswer(f"the server answered {response.status_code}: {message}")
