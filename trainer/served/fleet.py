"""Several servers as one: prompts go to whoever has room, and those of a server that vanishes to the others."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from proxy_model.errors import ServersFailed
from trainer.api_key import bearer
from trainer.served.answer import Question, ServedAnswer
from trainer.served.config import ServersConfig
from trainer.served.server import Server, Unavailable

_CONNECT_SECONDS = 10.0
_NAP_SECONDS = 0.05
_LOOK_SECONDS = 0.1
"""How often it is asked whether the run goes on."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The servers of `config`, with their key."""

    config: ServersConfig
    key: str | None
    transport: httpx.AsyncBaseTransport | None = None
    """Stands in for the network in tests."""

    def ask(self, questions: Sequence[Question], leave_if_due: Callable[[], None]) -> list[ServedAnswer]:
        """Every question's answer, in their order, whoever gives it.

        Raises `ServersFailed`, and what `leave_if_due` raises, which is called about ten times a second.
        """
        return asyncio.run(self._ask(questions, leave_if_due))

    async def _ask(self, questions: Sequence[Question], leave_if_due: Callable[[], None]) -> list[ServedAnswer]:
        timeout = httpx.Timeout(self.config.timeout_seconds, connect=_CONNECT_SECONDS)
        transport = self.transport or _network()
        async with httpx.AsyncClient(headers=bearer(self.key), timeout=timeout, transport=transport) as client:
            servers = [Server(url, client, self.key) for url in self.config.urls]
            batch = _Batch(questions)
            num_workers = min(self.config.parallel, len(questions))
            workers = [batch.work(server) for _ in range(num_workers) for server in servers]  # in turn: all get some
            await _first(batch.done(), self._watch(servers, leave_if_due), *workers)
            return batch.answers()

    async def _watch(self, servers: Sequence[Server], leave_if_due: Callable[[], None]) -> None:
        """Never returns. Raises `ServersFailed` once nobody has answered for too long."""
        while True:
            leave_if_due()
            patience = self.config.patience_seconds
            if all(each.has_failed_for(patience) for each in servers):
                problems = "; ".join(f"{each.url}: {each.problem}" for each in servers)
                message = f"no server has given an answer for {patience:g} s; the run can be resumed. {problems}"
                raise ServersFailed(message)
            await asyncio.sleep(_LOOK_SECONDS)


class _Batch:
    """Questions that are waiting, under way or answered."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = questions
        self._answers: dict[int, ServedAnswer] = {}
        self._waiting: asyncio.Queue[int] = asyncio.Queue()
        for index in range(len(questions)):
            self._waiting.put_nowait(index)

    async def work(self, server: Server) -> None:
        """Take questions to `server`, one at a time; never returns. Raises `ServersFailed`."""
        while True:
            if not server.may_be_asked():
                await asyncio.sleep(_NAP_SECONDS)
                continue
            index = await self._waiting.get()
            is_answered = server.may_be_asked() and await self._is_answered(index, server)
            if not is_answered:
                self._waiting.put_nowait(index)
            self._waiting.task_done()

    async def _is_answered(self, index: int, server: Server) -> bool:
        """Whether `server` has answered question `index`."""
        try:
            self._answers[index] = await server.answer(self._questions[index])
        except Unavailable:
            return False
        return True

    async def done(self) -> None:
        """Return once everything is answered."""
        await self._waiting.join()

    def answers(self) -> list[ServedAnswer]:
        """In the order of the questions."""
        return [self._answers[index] for index in range(len(self._questions))]


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, and end the others. Raises what that one raises."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _network() -> httpx.AsyncHTTPTransport:
    """As many connections as there are workers."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncHTTPTransport(limits=limits, socket_options=_keep_alive())


def _keep_alive() -> list[tuple[int, int, int]]:
    """Have the system notice within half a minute that the machine at the other end is gone."""
    numbers = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    known = [(name, number) for name, number in numbers.items() if hasattr(socket, name)]
    fine = [(socket.IPPROTO_TCP, getattr(socket, name), number) for name, number in known]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *fine]
