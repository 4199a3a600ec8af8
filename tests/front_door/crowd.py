"""Clients of the OpenAI SDK that stream one answer after another, and what they hear."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.front_door.conftest import LLM
from tests.front_door.server_process import PATIENCE_SECONDS

PROMPT = "How do I stay calm?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One streamed answer."""

    text: str
    finish_reasons: tuple[str, ...]
    num_tokens: int
    fingerprints: frozenset[str | None]
    """`system_fingerprint` of every chunk: one value unless the answer is mixed."""

    proxy: dict[str, Any]
    """The last chunk's."""

    @property
    def version(self) -> int:
        """The version that all chunks name; fails on a mixed answer."""
        (fingerprint,) = self.fingerprints
        return int(str(fingerprint).rpartition("@")[2])


def new_client(url: str) -> openai.AsyncOpenAI:
    """One that hides nothing: a failure is not tried again."""
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10 * PATIENCE_SECONDS)


async def hear(client: openai.AsyncOpenAI, max_tokens: int, begun: Callable[[], object] = lambda: None) -> Heard:
    """Stream one answer to its end; `begun` is called at its first chunk."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
    stream = await client.chat.completions.create(
        model=LLM,
        messages=messages,
        max_tokens=max_tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks: list[ChatCompletionChunk] = []
    async for chunk in stream:
        if not chunks:
            begun()
        chunks.append(chunk)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    usage, last = chunks[-1].usage, chunks[-1].model_extra or {}
    assert usage is not None
    return Heard(
        text="".join(choice.delta.content or "" for choice in choices),
        finish_reasons=tuple(choice.finish_reason for choice in choices if choice.finish_reason),
        num_tokens=usage.completion_tokens,
        fingerprints=frozenset(chunk.system_fingerprint for chunk in chunks),
        proxy=last["proxy"],
    )


def crowd(url: str, num_clients: int, max_tokens: int, work: Callable[[], object]) -> list[Heard]:
    """Everything that `num_clients` hear while `work` runs in a thread; the first failure of any is raised."""
    return asyncio.run(_crowd(url, num_clients, max_tokens, work))


async def _crowd(url: str, num_clients: int, max_tokens: int, work: Callable[[], object]) -> list[Heard]:
    heard: list[Heard] = []
    is_over = asyncio.Event()

    async def listen(client: openai.AsyncOpenAI) -> None:
        while not is_over.is_set():
            heard.append(await hear(client, max_tokens))

    async def watch() -> None:
        try:
            await asyncio.to_thread(work)
        finally:
            is_over.set()

    async with new_client(url) as client, asyncio.TaskGroup() as group:
        group.create_task(watch())
        for _ in range(num_clients):
            group.create_task(listen(client))
    return heard
