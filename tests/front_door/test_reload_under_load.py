"""64 clients stream through the OpenAI SDK while 50 good versions and 50 bad ones are published; and once more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import pytest

from proxy_model.llm.frozen_llm import FrozenLLM
from tests.bad_checkpoints import CORRUPTIONS
from tests.front_door.conftest import LLM, StartServer
from tests.front_door.crowd import PROMPT, Heard, crowd
from tests.front_door.rank_proxies import RankPublisher, expected_texts, rank_of
from tests.front_door.server_process import ServerProcess, eventually

pytestmark = pytest.mark.timeout(1200)

NUM_CLIENTS = 64
NUM_GOOD = NUM_BAD = 50
LENGTH = 20

WIDTH = 1024
"""A loaded version then weighs 1.5 MB (policy 0.45, table of the vocabulary 1.05), so that a leak shows."""

MAX_GROWTH_BYTES = 20e6
"""A quarter of what 50 leaked versions weigh; what the allocator keeps differs by a few MB from season to season."""


@dataclass(slots=True, kw_only=True)
class Season:
    """One hundred publications and what came of them."""

    heard: list[Heard] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    """Version and the reason for which it must be refused."""

    max_loaded: int = 0
    rss_bytes: float = 0.0
    """Of the idle server, at the end."""


@pytest.fixture(scope="module")
def publisher(publisher: RankPublisher) -> RankPublisher:
    """With heavy versions."""
    return RankPublisher(publisher.root, publisher.aside, publisher.llm, hidden_size=WIDTH)


@pytest.fixture(scope="module")
def server(start: StartServer, publisher: RankPublisher) -> ServerProcess:
    publisher.publish()
    return start("--reload-seconds", "0.05")


@pytest.fixture(scope="module")
def seasons(server: ServerProcess, publisher: RankPublisher) -> list[Season]:
    """Two in a row on one server; the first one also fills every cache."""
    return [run_season(server, publisher), run_season(server, publisher)]


def run_season(server: ServerProcess, publisher: RankPublisher) -> Season:
    """Every good version must be served before the next one comes; bad ones come and are not waited for."""
    season = Season()

    def publish() -> None:
        for corrupt, reason in islice(cycle(CORRUPTIONS.items()), NUM_BAD):
            version = publisher.publish()
            eventually(lambda version=version: serves(version), f"version {version}")  # type: ignore[misc]
            season.good.append(version)
            season.bad[publisher.publish_bad(corrupt)] = reason

    def serves(version: int) -> bool:
        models = {model["id"]: model["proxy"] for model in server.get("/v1/models").json()["data"]}
        season.max_loaded = max(season.max_loaded, sum("@" in name for name in models))
        return bool(models[LLM] == f"helpful@{version}")

    season.heard = crowd(server.url, NUM_CLIENTS, LENGTH, publish)
    last = next(reversed(season.bad))
    eventually(lambda: any(line.get("version") == last for line in server.log()), "the last refusal")
    season.rss_bytes = server.metric("process_resident_memory_bytes")
    return season


def test_no_answer_fails_or_is_mixed(seasons: list[Season], server: ServerProcess, llm: FrozenLLM) -> None:
    texts = expected_texts(llm, PROMPT, LENGTH)

    for season in seasons:
        for answer in season.heard:
            assert_is_of_one_version(answer, texts)
    num_answers = sum(len(season.heard) for season in seasons)
    assert server.metric("request_success_total") == num_answers
    assert server.metric("http_requests_total", route="/v1/chat/completions", status="200") == num_answers
    assert server.metric("http_requests_total", route="/v1/chat/completions") == num_answers


def assert_is_of_one_version(answer: Heard, texts: Sequence[str]) -> None:
    rank = rank_of(answer.version)
    assert answer.text == texts[rank]
    assert (answer.finish_reasons, answer.num_tokens) == (("length",), LENGTH)
    forced = LENGTH if rank == 15 else 0
    assert answer.proxy == {
        "id": "helpful",
        "version": answer.version,
        "accepted": LENGTH,
        "rejections": LENGTH * rank,
        "forced": forced,
    }


def test_only_good_versions_answer_and_most_of_them_do(seasons: list[Season]) -> None:
    for season in seasons:
        versions = {answer.version for answer in season.heard}
        assert versions <= {season.good[0] - 1, season.good[0] - 2, *season.good}
        assert len(versions) > NUM_GOOD // 2, "the clients slept through the season"


def test_every_bad_version_is_refused_with_its_reason_in_a_metric_and_a_log_line(
    seasons: list[Season], server: ServerProcess
) -> None:
    bad = seasons[0].bad | seasons[1].bad
    assert len(bad) == 2 * NUM_BAD

    refusals = [line for line in server.log() if line["message"] == "a proxy was refused"]

    assert sorted((line["version"], line["reason"]) for line in refusals) == sorted(bad.items())
    assert all(line["proxy"] == "helpful" and line["detail"] for line in refusals)
    for reason, count in Counter(bad.values()).items():
        assert server.metric("proxy_reloads_total", result=reason) == count, reason
    assert server.metric("proxy_reloads_total", result="loaded") == 2 * NUM_GOOD + 1
    assert not [line for line in server.log() if line["level"] in ("error", "critical")]


def test_the_newest_good_version_is_served_and_nothing_else_is_loaded(
    seasons: list[Season], server: ServerProcess
) -> None:
    newest = seasons[-1].good[-1]

    names = [model["id"] for model in server.get("/v1/models").json()["data"]]

    assert names == [LLM, f"{LLM}:base", f"{LLM}:helpful", f"{LLM}:helpful@{newest}"]
    assert server.metric("proxy_version_info", alias="stable", version=str(newest)) == 1
    assert max(season.max_loaded for season in seasons) <= 2


def test_memory_is_flat(seasons: list[Season]) -> None:
    first, second = (season.rss_bytes for season in seasons)

    assert second - first < MAX_GROWTH_BYTES
