"""A version that leaves between a request's arrival and its place in the queue."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy_model.llm.tokenizer import ChatTokenizer
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import publish
from tests.server.test_reload import loaded, serves


def test_a_takeover_while_the_prompt_is_tokenized_fails_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    ask = server.service.backend.ask_tokenizer

    async def ask_slowly(question: Callable[[ChatTokenizer], Any]) -> Any:
        publish(server.proxies, server.llm)
        await asyncio.to_thread(eventually, lambda: loaded(server) == ["helpful@2"])
        return await ask(question)

    monkeypatch.setattr(server.service.backend, "ask_tokenizer", ask_slowly)
    answer = server.chat()

    assert answer.status_code == 200, answer.text
    assert answer.json()["proxy"]["version"] == 2
