"""Two server processes over one folder of proxies agree on what is loaded, stable and canary."""

from functools import partial

import httpx
import pytest

from tests.front_door.conftest import LLM, StartServer
from tests.front_door.rank_proxies import RankPublisher
from tests.front_door.server_process import ServerProcess, eventually

ADMIN_KEY = "admin-key-0001"
USERS = [f"user-{number}" for number in range(16)]


@pytest.fixture(scope="module")
def replicas(start: StartServer, publisher: RankPublisher) -> list[ServerProcess]:
    """Version 1 is stable; the replicas start one after the other and share nothing but the folder."""
    publisher.publish()
    flags = ("--max-context", "256", "--reload-seconds", "0.1", "--no-store")
    return [start(*flags, PROXY_RLHF_ADMIN_KEY=ADMIN_KEY) for _ in range(2)]


def version(server: ServerProcess, user: str | None = None, model: str = f"{LLM}:helpful") -> int:
    """Which version answers; its number of rejections a token is its own number, so it cannot be mistaken."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "ignore_eos": True}
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", json=body | ({"user": user} if user else {}), timeout=60
    ).json()
    found: int = answer["proxy"]["version"]
    assert answer["proxy"]["rejections"] == 2 * found
    return found


def _serves(server: ServerProcess, wanted: int) -> bool:
    return version(server) == wanted


def admin(server: ServerProcess, path: str, **body: object) -> httpx.Response:
    return httpx.post(
        f"{server.url}/admin/proxies/{path}", json=body, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=60
    )


def test_a_publication_a_promotion_and_a_canary_reach_both(
    replicas: list[ServerProcess], publisher: RankPublisher
) -> None:
    first, second = replicas
    assert [version(server) for server in replicas] == [1, 1]

    assert publisher.publish() == 2
    for server in replicas:
        eventually(partial(_serves, server, 2), "the publication")

    assert admin(first, "promote", name="helpful", version=1).status_code == 200
    assert version(first) == 1
    eventually(lambda: version(second) == 1, "the promotion")

    assert admin(second, "canary", name="helpful", version=2, share=0.5).status_code == 200
    of_second = {user: version(second, user) for user in USERS}
    eventually(lambda: {user: version(first, user) for user in USERS} == of_second, "the canary")
    assert set(of_second.values()) == {1, 2}  # one alone in 2^-15 of all hashes

    assert admin(first, "rollback", name="helpful", alias="canary").status_code == 200
    eventually(lambda: {version(second, user) for user in USERS} == {1}, "the end of the canary")


def test_a_replica_that_is_killed_in_the_middle_leaves_the_others_and_its_successor_in_order(
    replicas: list[ServerProcess], publisher: RankPublisher, start: StartServer
) -> None:
    first, second = replicas
    stable = version(second)
    first.kill()

    new = publisher.publish()
    eventually(lambda: version(second) == new, "the publication")
    successor = start("--max-context", "256", "--no-store", PROXY_RLHF_ADMIN_KEY=ADMIN_KEY)

    assert new != stable
    assert version(successor) == new
    assert admin(successor, "rollback", name="helpful").status_code == 200
    eventually(lambda: version(second) == version(successor) == stable, "the roll-back")
