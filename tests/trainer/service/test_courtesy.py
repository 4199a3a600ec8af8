"""Training that stands back for a busy server: how long it rests, and what it takes the server's metrics for."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.trainer.runs import parts_in_miniature, small_config
from trainer.loop import Supervision, train
from trainer.service.courtesy import Courtesy, ServerLoad


class Clock:
    """Of a machine on which only `work` and rests take time."""

    def __init__(self) -> None:
        self.now = 100.0

    def work(self, seconds: float) -> None:
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0, "it would go round for ever"
        self.now += seconds

    def courtesy(self, share: float, is_busy: Callable[[], bool]) -> Courtesy:
        return Courtesy(share, is_busy, clock=lambda: self.now, sleep=self.sleep)


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("share", "work", "rest"),
    [(0.1, 2.0, 18.0), (0.5, 3.0, 3.0), (0.25, 1.0, 3.0), (1.0, 2.0, 0.0)],  # the first: two seconds of twenty
)
def test_beside_a_busy_server_work_has_its_share_of_the_time(share: float, work: float, rest: float) -> None:
    clock = Clock()
    courtesy = clock.courtesy(share, lambda: True)

    for _ in range(3):
        clock.work(work)
        began = clock.now
        courtesy.rest(never)
        assert clock.now - began == pytest.approx(rest)


def test_nobody_rests_beside_an_idle_server_nor_makes_up_for_it_later() -> None:
    clock, busy = Clock(), False
    courtesy = clock.courtesy(0.1, lambda: busy)

    clock.work(50.0)
    courtesy.rest(never)
    assert clock.now == 150.0

    busy = True
    clock.work(1.0)
    courtesy.rest(never)
    assert clock.now == pytest.approx(160.0)


def test_a_rest_ends_within_a_second_of_the_server_s_last_answer() -> None:
    clock = Clock()
    courtesy = clock.courtesy(0.1, lambda: clock.now < 105.3)

    clock.work(2.0)
    courtesy.rest(never)

    assert 105.3 <= clock.now <= 106.4


def test_the_server_is_looked_at_once_a_second() -> None:
    clock, looks = Clock(), []

    def look() -> bool:
        looks.append(clock.now)
        return True

    courtesy = clock.courtesy(0.5, look)

    for _ in range(100):
        clock.work(0.05)
        courtesy.rest(never)

    assert clock.now == pytest.approx(110.0)
    assert len(looks) in (10, 11)


def test_a_rest_ends_when_the_trainer_must() -> None:
    clock = Clock()
    courtesy = clock.courtesy(0.1, lambda: True)

    clock.work(2.0)
    courtesy.rest(lambda: clock.now > 103.0)

    assert 103.0 < clock.now < 103.2


METRICS = """# TYPE num_requests_running gauge
num_requests_running{{model="tiny"}} {running}
# TYPE num_requests_waiting gauge
num_requests_waiting{{model="tiny"}} {waiting}
requests_total{{model="tiny"}} 7.0
"""


@pytest.mark.parametrize(("running", "waiting", "is_busy"), [(0.0, 0.0, False), (2.0, 0.0, True), (0.0, 1.0, True)])
def test_a_server_is_busy_while_answers_run_or_wait(running: float, waiting: float, is_busy: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, text=METRICS.format(running=running, waiting=waiting))

    load = ServerLoad("http://server:8000/metrics", "sk-admin", transport=httpx.MockTransport(answer))

    assert load.is_busy() is is_busy
    assert (str(asked[0].url), asked[0].headers["authorization"]) == ("http://server:8000/metrics", "Bearer sk-admin")


def test_a_server_that_does_not_tell_is_not_stood_back_for_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = [httpx.Response(401), httpx.Response(401), httpx.Response(200, text=""), httpx.Response(401)]
    load = ServerLoad("http://server/metrics", transport=httpx.MockTransport(lambda request: answers.pop(0)))

    assert [load.is_busy() for _ in range(4)] == [False] * 4

    assert len(caplog.records) == 2
    assert "401" in caplog.text


def test_a_run_rests_before_each_decode_step_and_around_scoring(tmp_path: Path) -> None:
    rests: list[str] = []

    result = train(
        small_config(tmp_path / "run", iterations=2),
        parts=parts_in_miniature(),
        supervision=Supervision(rest=lambda: rests.append("rest")),
    )

    assert result.is_done
    assert len(rests) >= 2 * (24 + 3)  # answers of at most 24 tokens, 12 at a time
