"""Limits by key: the arithmetic, OpenAI's words, and what a client sees."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from server.access.api_keys import KeyLimits, parse_keys
from server.access.limits import Limiter, duration
from server.access.token_bucket import TokenBucket
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.test_vanishing_clients import ask, is_idle

ALICE, BOB = "sk-alice-0001", "sk-bob-000002"


def chat(server: RunningServer, key: str = ALICE, **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=chat_body(**fields), headers=headers, timeout=60)


def test_a_bucket_refills_evenly_and_never_overflows() -> None:
    bucket = TokenBucket(120, now=100.0)

    bucket.take(90, now=100.0)

    assert bucket.remaining(100.0) == 30
    assert bucket.seconds_until(50, now=100.0) == 10.0
    assert bucket.seconds_until(50, now=104.0) == 6.0
    assert bucket.remaining(107.3) == 44  # of 44.6
    assert bucket.seconds_until_full(107.3) == pytest.approx(37.7)
    assert bucket.remaining(1000.0) == 120
    assert bucket.seconds_until(121, now=1000.0) == float("inf")


def test_a_debt_is_waited_off_and_what_comes_back_fills_up_to_the_brim() -> None:
    bucket = TokenBucket(60, now=0.0)

    bucket.take(75, now=0.0)
    debt = bucket.seconds_until(1, now=0.0)
    bucket.take(-500, now=0.0)

    assert debt == 16.0
    assert bucket.remaining(0.0) == 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0204, "20ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (372.5, "6m12.5s"), (7325, "2h2m5s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_requests_per_minute_are_counted_by_key_and_named_in_headers(start: Callable[..., RunningServer]) -> None:
    server = start(api_keys=(f"alice:{ALICE}", f"bob:{BOB} requests_per_minute=5"), requests_per_minute=2)

    answers = [chat(server) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-limit-requests"] for answer in answers] == ["2"] * 3
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert answers[0].headers["x-ratelimit-reset-requests"].startswith(("29", "30s"))
    error = answers[2].json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert "key 'alice'" in error["message"]
    assert ALICE not in answers[2].text
    assert 25 <= int(answers[2].headers["retry-after"]) <= 30
    assert chat(server, BOB).headers["x-ratelimit-remaining-requests"] == "4"
    assert (
        server.service.metrics.registry.get_sample_value(
            "admission_rejections_total", {"model": "tiny", "reason": "rate_limit_requests"}
        )
        == 1
    )


def test_what_a_key_without_a_name_has_taken_stays_with_it_when_the_list_is_edited() -> None:
    limiter = Limiter(KeyLimits(requests_per_minute=5), clock=lambda: 7.0)
    alice, bob = parse_keys(f"{ALICE},{BOB}", "api_keys")
    limiter.enter(alice)

    (bob_alone,) = parse_keys(BOB, "api_keys")

    remaining = [limiter.headers(key)["x-ratelimit-remaining-requests"] for key in (alice, bob, bob_alone)]
    assert remaining == ["4", "5", "5"]


def test_retry_after_is_kept_to_the_word(start: Callable[..., RunningServer]) -> None:
    server = start(requests_per_minute=60)
    while (refused := server.chat()).status_code == 200:
        pass

    time.sleep(int(refused.headers["retry-after"]))

    assert refused.headers["retry-after"] == "1"
    assert server.chat().status_code == 200


def test_tokens_are_reserved_and_what_was_not_used_comes_back(start: Callable[..., RunningServer]) -> None:
    server = start()
    server.service.limiter = Limiter(KeyLimits(tokens_per_minute=600), clock=lambda: 7.0)
    server.engine.gate.clear()
    connection = ask(server)  # reserves 400 and a prompt of 10
    eventually(lambda: server.engine.num_waiting == 1)

    looked = httpx.get(f"{server.url}/v1/models")
    connection.close()
    server.engine.gate.set()
    eventually(lambda: is_idle(server) and server.service.num_open == 0)

    assert looked.headers["x-ratelimit-remaining-tokens"] == "190"
    assert looked.headers["x-ratelimit-reset-tokens"] == "41s"
    assert 580 <= int(httpx.get(f"{server.url}/v1/models").headers["x-ratelimit-remaining-tokens"]) <= 590
    server.service.limiter = Limiter(KeyLimits(tokens_per_minute=600), clock=lambda: 7.0)
    spent = server.chat(max_tokens=100, ignore_eos=True)
    eventually(lambda: server.service.num_open == 0)
    assert spent.headers["x-ratelimit-remaining-tokens"] == "490"
    assert httpx.get(f"{server.url}/v1/models").headers["x-ratelimit-remaining-tokens"] == "490"
    open_ended = server.chat(max_tokens=None, stop=["never"])
    eventually(lambda: server.service.num_open == 0)
    remaining = int(httpx.get(f"{server.url}/v1/models").headers["x-ratelimit-remaining-tokens"])
    assert open_ended.status_code == 200
    assert remaining == max(0, 490 - open_ended.json()["usage"]["total_tokens"])


def test_too_few_tokens_left_is_429_and_too_large_a_request_is_not_to_be_repeated(
    start: Callable[..., RunningServer],
) -> None:
    server = start(tokens_per_minute=150)

    first = server.chat(max_tokens=100, ignore_eos=True)
    second = server.chat(max_tokens=100, ignore_eos=True)
    huge = server.chat(max_tokens=200)

    assert first.status_code == 200
    assert (second.status_code, second.json()["error"]["type"]) == (429, "tokens")
    assert 10 <= int(second.headers["retry-after"]) <= 45
    assert huge.status_code == 429
    assert huge.json()["error"]["message"].startswith("Request too large for this server on tokens per min (TPM)")
    assert huge.headers["x-should-retry"] == "false"
    assert "retry-after" not in huge.headers
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2) as client:
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}], max_tokens=200)
        assert refused.value.type == "tokens"
        assert time.monotonic() - began < 5


def test_requests_at_once_are_limited_by_key(start: Callable[..., RunningServer]) -> None:
    server = start(api_keys=(f"alice:{ALICE} max_running=1", f"bob:{BOB}"))
    server.engine.gate.clear()
    held = ask(server, key=ALICE)
    eventually(lambda: server.engine.num_waiting == 1)

    refused = chat(server)
    server.engine.gate.set()
    bobs = chat(server, BOB)

    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert bobs.status_code == 200
    held.close()
    eventually(lambda: is_idle(server) and server.service.num_open == 0)
    assert chat(server).status_code == 200
