"""Servers that a test speaks for: who is asked what, and what becomes of one that does not answer."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.retrace import OfferedCandidate
from proxy_model.errors import ServersFailed
from trainer.interruption import Interrupted
from trainer.served.answer import Question
from trainer.served.config import ServersConfig
from trainer.served.fleet import Fleet

LENT = ProxyRef(name="mine.rollouts", version=3)
Say = Callable[[dict[str, Any]], Awaitable[httpx.Response]]
"""From a completion's body to what is answered."""


def questions(number: int, target_return: float | None = None) -> list[Question]:
    return [
        Question(
            prompt_token_ids=(7, index),
            proxy=LENT,
            seed=100 + index,
            max_tokens=5,
            max_candidates=2,
            target_return=target_return,
        )
        for index in range(number)
    ]


def candidate(token: int, *, is_free: bool) -> dict[str, Any]:
    return {"token_id": token, "is_free": is_free, "prob": 0.5}


def completion(seed: int) -> dict[str, Any]:
    """Two tokens: one rejection before the seed's own token, then a forced one."""
    decisions = [
        {"candidates": [candidate(1, is_free=True), candidate(seed, is_free=True)]},
        {"candidates": [candidate(2, is_free=False)]},
    ]
    choice = {"text": f"answer {seed}", "finish_reason": "length", "proxy": {"decisions": decisions}}
    return {"choices": [choice], "proxy": {"id": LENT.name, "version": LENT.version}}


async def answers(body: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=completion(body["seed"]))


async def vanishes(body: dict[str, Any]) -> httpx.Response:
    raise httpx.ReadError("gone")


def refuses(status: int, message: str, **headers: str) -> Say:
    async def say(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(status, json={"error": {"message": message}}, headers=headers)

    return say


class Servers:
    """By the name of their host; every completion that each is asked for is kept."""

    def __init__(self, **say: Say) -> None:
        self.asked: dict[str, list[dict[str, Any]]] = {host: [] for host in say}
        self.keys: set[str | None] = set()
        self._say = say

    async def handle(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)  # as a network would let others go on
        self.keys.add(request.headers.get("authorization"))
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "the-llm"}, {"id": "the-llm:base"}]})
        body = json.loads(request.content)
        self.asked[request.url.host].append(body)
        return await self._say[request.url.host](body)

    def fleet(self, **settings: Any) -> Fleet:
        config = ServersConfig(urls=tuple(f"http://{host}" for host in self._say), **settings)
        return Fleet(config, "secret-key", httpx.MockTransport(self.handle))


def ask(servers: Servers, number: int, **settings: Any) -> list[str]:
    return [each.text for each in servers.fleet(**settings).ask(questions(number), lambda: None)]


def texts(number: int) -> list[str]:
    return [f"answer {100 + index}" for index in range(number)]


def test_a_question_is_put_as_the_engine_would_put_it_and_its_answer_read_with_all_decisions() -> None:
    servers = Servers(a=answers)

    (answer,) = servers.fleet().ask(questions(1, target_return=1.5), lambda: None)

    assert servers.asked["a"] == [
        {
            "model": "the-llm:mine.rollouts@3",
            "prompt": [7, 0],
            "max_tokens": 5,
            "temperature": 0,
            "seed": 100,
            "proxy": {"decision": "sample", "return_decisions": True, "target_return": 1.5},
        }
    ]
    assert servers.keys == {"Bearer secret-key"}
    assert answer.text == "answer 100"
    assert answer.decided.token_ids == (100, 2)
    assert answer.decided.positions[0] == (OfferedCandidate(1, is_free=True), OfferedCandidate(100, is_free=True))
    assert answer.decided.positions[1] == (OfferedCandidate(2, is_free=False),)
    assert (answer.decided.finish_reason, answer.decided.target_return) == ("length", 1.5)
    assert answer.decided.prompt_token_ids == (7, 0)


def test_answers_come_in_the_order_of_the_questions_and_the_faster_server_gives_more_of_them() -> None:
    async def slowly(body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(0.2)
        return await answers(body)

    async def quickly(body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(0.01)
        return await answers(body)

    servers = Servers(slow=slowly, quick=quickly)

    assert ask(servers, 40, parallel=2) == texts(40)
    assert 1 <= len(servers.asked["slow"]) < len(servers.asked["quick"])


def test_every_server_has_its_share_of_few_questions() -> None:
    """So that one that must not answer is found out before anything is learnt."""
    servers = Servers(a=answers, b=answers, c=answers)

    assert ask(servers, 3, parallel=32) == texts(3)
    assert [len(bodies) for bodies in servers.asked.values()] == [1, 1, 1]


def test_no_more_than_so_many_answers_are_under_way_at_one_server() -> None:
    running, most = Counter[str](), Counter[str]()

    def counted(host: str) -> Say:
        async def say(body: dict[str, Any]) -> httpx.Response:
            running[host] += 1
            most[host] = max(most[host], running[host])
            await asyncio.sleep(0.01)
            running[host] -= 1
            return await answers(body)

        return say

    assert ask(Servers(a=counted("a"), b=counted("b")), 30, parallel=3) == texts(30)
    assert most == {"a": 3, "b": 3}


def test_a_vanished_server_is_asked_now_and_then_and_the_others_answer_its_questions() -> None:
    servers = Servers(a=vanishes, b=answers)

    assert ask(servers, 20, parallel=4) == texts(20)
    assert len(servers.asked["a"]) <= 8
    assert len(servers.asked["b"]) == 20


def test_a_server_that_fails_is_tried_with_one_question_at_a_time() -> None:
    """So that one that swallows them does not hold up as many as it may have."""
    running, at_once = 0, list[int]()

    async def vanishes_slowly(body: dict[str, Any]) -> httpx.Response:
        nonlocal running
        running += 1
        at_once.append(running)
        await asyncio.sleep(0.05)
        running -= 1
        return await vanishes(body)

    async def slowly(body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(0.05)
        return await answers(body)

    assert ask(Servers(a=vanishes_slowly, b=slowly), 80, parallel=4) == texts(80)
    assert at_once[:4] == [1, 2, 3, 4]
    assert len(at_once) > 5
    assert set(at_once[4:]) == {1}


def test_a_server_that_comes_back_is_asked_again() -> None:
    began = time.monotonic()

    async def later(body: dict[str, Any]) -> httpx.Response:
        return await (answers(body) if time.monotonic() - began > 0.4 else vanishes(body))

    assert ask(Servers(a=later), 6, patience_seconds=20) == texts(6)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_is_left_alone_for_as_long_as_it_asks(status: int) -> None:
    began, asked_at = time.monotonic(), list[float]()

    async def busy_first(body: dict[str, Any]) -> httpx.Response:
        asked_at.append(time.monotonic() - began)
        is_first = len(asked_at) == 1
        return await (refuses(status, "busy", **{"retry-after": "1"})(body) if is_first else answers(body))

    assert ask(Servers(a=busy_first), 3, parallel=1) == texts(3)
    assert asked_at[1] - asked_at[0] >= 1.0


def test_when_nobody_answers_for_too_long_the_error_says_what_each_server_said() -> None:
    servers = Servers(a=vanishes, b=refuses(500, "out of order, secret-key"))

    with pytest.raises(ServersFailed) as failure:
        ask(servers, 4, patience_seconds=0.3)

    said = str(failure.value)
    assert "no server has given an answer for 0.3 s; the run can be resumed" in said
    assert "http://a: it cannot be reached (ReadError)" in said
    assert "http://b: it answers 500: out of order, ***" in said


def test_a_slow_answer_is_waited_for_though_another_question_was_refused() -> None:
    """One place in the server, held for longer than the run is patient with servers that only refuse."""
    num_running = 0

    async def one_at_a_time(body: dict[str, Any]) -> httpx.Response:
        nonlocal num_running
        if num_running:
            return await refuses(429, "full", **{"retry-after": "0"})(body)
        num_running += 1
        await asyncio.sleep(0.7)
        num_running -= 1
        return await answers(body)

    assert ask(Servers(a=one_at_a_time), 2, parallel=2, patience_seconds=0.4) == texts(2)


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (401, "Incorrect API key provided.", "http://b refuses the key"),
        (403, "not yours", "http://b refuses the key"),
        (400, "maximum context length is 9 tokens", "http://b refuses what the run asks for: maximum context"),
        (404, "x" * 300 + " its checkpoint was refused (fingerprint).", "http://b serves another LLM"),
        (404, "its checkpoint was refused (unsupported).", "http://b refuses what the run asks for"),
    ],
)
def test_what_asking_again_would_not_mend_ends_it_at_once(status: int, message: str, said: str) -> None:
    with pytest.raises(ServersFailed, match=said):
        ask(Servers(a=answers, b=refuses(status, message)), 30, parallel=1)


@pytest.mark.parametrize("message", ["The model does not exist", "its checkpoint was refused (missing)."])
def test_a_version_that_a_server_does_not_see_yet_is_waited_for(message: str) -> None:
    num_asked = 0

    async def in_a_moment(body: dict[str, Any]) -> httpx.Response:
        nonlocal num_asked
        num_asked += 1
        return await (refuses(404, message)(body) if num_asked < 3 else answers(body))

    assert ask(Servers(a=in_a_moment), 2, parallel=1) == texts(2)
    with pytest.raises(ServersFailed, match="does it follow the run's registry"):
        ask(Servers(a=refuses(404, message)), 2, patience_seconds=0.2)


@pytest.mark.parametrize(
    "change",
    [
        {"choices": []},  # no answer
        {"proxy": {"id": LENT.name, "version": 2}},  # by another version
        {"proxy": None},  # by the LLM alone
        {"choices": [{"text": "", "finish_reason": "stop", "proxy": {"decisions": []}}]},  # without a token
        {"choices": [{"text": "", "finish_reason": "stop", "proxy": {"decisions": None}}]},  # without decisions
        {
            "choices": [
                {
                    "text": "",
                    "finish_reason": "stop",
                    "proxy": {"decisions": [{"candidates": [candidate(1, is_free=True)] * 3}]},
                }
            ]
        },  # longer than a slate
    ],
)
def test_an_answer_that_is_none_of_that_version_with_its_decisions_is_not_taken(change: dict[str, Any]) -> None:
    async def strange(body: dict[str, Any]) -> httpx.Response:
        return httpx.Response(200, json=completion(body["seed"]) | change)

    with pytest.raises(ServersFailed, match="its answer is none with the version's decisions"):
        ask(Servers(a=strange), 1, patience_seconds=0.2)


def test_a_server_of_another_kind_is_told_apart() -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"models": []})

    fleet = Fleet(ServersConfig(urls=("http://a",)), None, httpx.MockTransport(handle))

    with pytest.raises(ServersFailed, match="lists no models"):
        fleet.ask(questions(1), lambda: None)


def test_a_run_that_is_taken_back_leaves_its_answers_at_once() -> None:
    async def never(body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(60)
        return await answers(body)

    def leave() -> None:
        if time.monotonic() - began > 0.2:
            raise Interrupted

    began = time.monotonic()
    with pytest.raises(Interrupted):
        Servers(a=never).fleet().ask(questions(3), leave)
    assert time.monotonic() - began < 20
