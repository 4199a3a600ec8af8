"""A version that leaves between a request's arrival and its place in the queue."""

import asyncio
from collections.abc import Sequence

import pytest

from proxy_model.tokenizer import Message
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import publish
from tests.server.test_reload import loaded, serves


def test_a_takeover_while_the_prompt_is_tokenized_fails_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    tokenize = server.service.backend.tokenize

    async def tokenize_slowly(messages: Sequence[Message]) -> tuple[int, ...]:
        publish(server.proxies, server.llm)
        await asyncio.to_thread(eventually, lambda: loaded(server) == ["helpful@2"])
        return await tokenize(messages)

    monkeypatch.setattr(server.service.backend, "tokenize", tokenize_slowly)
    answer = server.chat()

    assert answer.status_code == 200, answer.text
    assert answer.json()["proxy"]["version"] == 2
