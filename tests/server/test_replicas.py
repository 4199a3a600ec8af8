"""Two servers over one folder of proxies agree on what is stable and who gets the canary."""

from collections.abc import Callable

from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import new_policy, publish
from tests.server.test_admin import ADMIN_KEY, admin
from tests.server.test_reload import serves

USERS = [f"user-{number}" for number in range(16)]


def versions(server: RunningServer) -> dict[str, int]:
    """Which version answers whom."""
    return {
        user: server.chat(model="tiny:helpful", user=user, max_tokens=1).json()["proxy"]["version"] for user in USERS
    }


def test_what_one_is_told_the_other_does(start: Callable[..., RunningServer]) -> None:
    first, second = start(admin_key=ADMIN_KEY), start(admin_key=ADMIN_KEY)
    for number in (1, 2):
        publish(first.proxies, first.llm, policy=new_policy(number))
        for server in (first, second):
            eventually(lambda server=server, number=number: serves(server, number), "the publication")  # type: ignore[misc]

    admin(first, "promote", name="helpful", version=1)
    eventually(lambda: serves(second, 1), "the promotion")
    admin(second, "canary", name="helpful", version=2, share=0.5)
    table = first.service.serving().reloader.table
    eventually(lambda: table.canary_share("helpful") == 0.5, "the canary")
    of_first, of_second = versions(first), versions(second)
    admin(first, "rollback", name="helpful", alias="canary")
    eventually(lambda: set(versions(second).values()) == {1}, "the end of the canary")

    assert of_first == of_second
    assert set(of_first.values()) == {1, 2}  # one alone in 2^-15 of all hashes
