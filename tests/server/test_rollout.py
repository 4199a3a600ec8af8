"""A canary takes its share, sticks to its users, and goes when it strays."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cli.main import main
from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.request import Delta
from proxy_model.errors import InvalidParameter, UnknownProxy
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.aliases import Aliases, Withdrawn
from proxy_model.versions.registry import ProxyRegistry
from server.proxies.canary_guard import Bands, CanaryGuard
from server.proxies.garble import count_garbled
from server.proxies.proxy_table import ProxyTable
from server.proxies.rollout import choose
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import new_policy, picky_policy, publish
from tests.server.test_admin import ADMIN_KEY, admin

STABLE, CANARY = ProxyRef(name="helpful", version=1), ProxyRef(name="helpful", version=2)


def version(server: RunningServer, user: str | None = None, model: str = "tiny:helpful") -> int:
    found: int = server.chat(model=model, user=user, max_tokens=1).json()["proxy"]["version"]
    return found


def table_with(share: float) -> ProxyTable:
    table = ProxyTable()
    table.loaded = {STABLE, CANARY}
    table.point("helpful", "stable", 1)
    table.point("helpful", "canary", 2)
    table.set_canary_share("helpful", share)
    return table


def test_a_share_is_a_share_of_the_users_and_grows_around_those_who_have_it() -> None:
    users = [f"user-{number}" for number in range(4000)]

    tenth = {user for user in users if choose(table_with(0.1), "helpful", user) == CANARY}
    third = {user for user in users if choose(table_with(0.3), "helpful", user) == CANARY}

    assert 320 <= len(tenth) <= 480  # 400 +- 4.2 deviations of 19
    assert 1078 <= len(third) <= 1322  # 1200 +- 4.2 deviations of 29
    assert tenth < third
    assert {choose(table_with(0.0), "helpful", user) for user in users} == {STABLE}
    assert {choose(table_with(1.0), "helpful", user) for user in users} == {CANARY}


def test_a_canary_that_arrives_or_is_withdrawn_leaves_no_share_behind() -> None:
    with_canary = Aliases({"stable": 1}).with_canary(2, 0.25)

    promoted = with_canary.assigned(["stable"], 2)
    withdrawn = with_canary.without_canary("too picky")

    assert (with_canary.versions, with_canary.canary_share) == ({"stable": 1, "canary": 2}, 0.25)
    assert promoted == Aliases({"stable": 2}, (1,))
    assert withdrawn == Aliases({"stable": 1}, withdrawn=Withdrawn(2, "too picky"))
    with pytest.raises(UnknownProxy):
        withdrawn.without_canary("again")


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidParameter):
        Aliases({"stable": 1}).with_canary(2, share)


def test_a_canary_survives_on_disk_and_only_the_one_that_was_meant_is_withdrawn(tmp_path: Path, llm: FrozenLLM) -> None:
    registry = ProxyRegistry(tmp_path)
    publish(tmp_path, llm)
    publish(tmp_path, llm)
    registry.promote("helpful", 1)

    registry.set_canary("helpful", 2, 0.5)
    was_other_withdrawn = registry.withdraw_canary("helpful", reason="late", version=7)
    between = registry.aliases("helpful")
    registry.withdraw_canary("helpful", reason="strayed", version=2)

    assert not was_other_withdrawn
    assert (between.versions["canary"], between.canary_share) == (2, 0.5)
    assert registry.aliases("helpful").withdrawn == Withdrawn(2, "strayed")
    with pytest.raises(InvalidParameter):
        registry.set_canary("helpful", 1, 0.5)


def test_the_admin_api_sets_a_share_by_user_and_promotes(start: Callable[..., RunningServer]) -> None:
    server = start(admin_key=ADMIN_KEY, reload_seconds=60.0)
    for seed in (1, 2):
        publish(server.proxies, server.llm, policy=new_policy(seed))
    admin(server, "promote", name="helpful", version=1)

    report = admin(server, "canary", name="helpful", version=2, share=0.5).json()

    users = [f"user-{number}" for number in range(24)]
    seen = {user: version(server, user) for user in users}
    assert report["aliases"] == {"stable": 1, "canary": 2}
    assert report["canary_share"] == 0.5
    assert set(seen.values()) == {1, 2}  # one alone in 2^-23 of all hashes
    assert {user: version(server, user, "tiny") for user in users} == seen  # the default name follows
    assert len({version(server) for _ in range(5)}) == 1  # no user: by address
    some = next(user for user in users if seen[user] == 2)
    assert version(server, some, "tiny:helpful@stable") == 1
    assert version(server, some, "tiny:helpful@canary") == 2
    assert server.metric('proxy_accepted_tokens_total{model="tiny",proxy="helpful",version="1"') > 0
    assert server.metric('proxy_accepted_tokens_total{model="tiny",proxy="helpful",version="2"') > 0
    assert server.metric('proxy_version_info{alias="canary",model="tiny",proxy="helpful",version="2"') == 1

    promoted = admin(server, "promote", name="helpful", version=2).json()

    assert promoted["aliases"] == {"stable": 2}
    assert {version(server, user) for user in users} == {2}


def test_the_command_line_moves_a_running_server(
    start: Callable[..., RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_RLHF_HOME", str(tmp_path))
    server = start()
    publish(server.proxies, server.llm, policy=new_policy(1))
    publish(server.proxies, server.llm, policy=new_policy(2))
    assert main(["proxies", "promote", "helpful@1"]) == 0

    assert main(["proxies", "canary", "helpful@2", "--share", "1"]) == 0
    eventually(lambda: server.service.serving().reloader.table.canary_share("helpful") == 1, "the share")
    with_canary = version(server, "ann")
    assert main(["proxies", "rollback", "helpful", "--alias", "canary"]) == 0
    eventually(lambda: version(server, "ann") == 1, "the end of the canary")

    assert with_canary == 2
    assert main(["proxies", "canary", "helpful", "--share", "1"]) == 2
    assert main(["proxies", "canary", "helpful@2", "--share", "1.5"]) == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"version": 2, "share": 1.5}, "share"),
        ({"version": 2}, "share"),
        ({"version": 1, "share": 0.5}, "version"),
        ({"version": 2, "share": "much"}, "share"),
    ],
)
def test_a_bad_canary_is_400_by_name(start: Callable[..., RunningServer], body: dict[str, object], param: str) -> None:
    server = start(admin_key=ADMIN_KEY)
    publish(server.proxies, server.llm)
    publish(server.proxies, server.llm)
    admin(server, "promote", name="helpful", version=1)

    refused = admin(server, "canary", name="helpful", **body)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("text", "num_words", "num_garbled"),
    [
        ("How do I bake bread? Mix flour, water and salt.", 10, 0),
        ("It's McDonald's iPhone, isn't it?", 5, 0),
        ("Wie schreibt man Rhythmus? Angstschweiß!", 5, 1),  # eight consonants, rightly so: the price of cheapness
        ("brrrrr the the the xkcdqtz aBcDeF \ufffd ok", 8, 5),
        ("w" + "or" * 20, 1, 1),
        ("", 0, 0),
        ("word " * 5000, 820, 817),  # only the beginning counts; two have nobody to repeat, one is cut
    ],
)
def test_garbled_words_are_counted(text: str, num_words: int, num_garbled: int) -> None:
    count = count_garbled(text)

    assert (count.num_words, count.num_garbled) == (num_words, num_garbled)


def answer(guard: CanaryGuard, ref: ProxyRef, *, rejected: int = 0, text: str = "a b", finish: str = "stop") -> None:
    observation = guard.observe(ref)
    assert observation is not None
    observation.add(Delta(request_id="x", text=text, num_accepted=10, num_rejected=rejected))
    observation.add(Delta(request_id="x", finish_reason=finish))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stable", "canary", "measure"),
    [
        ({"rejected": 10}, {"rejected": 10}, None),
        ({"rejected": 10}, {"rejected": 20}, None),  # .5 against .667, band .2
        ({"rejected": 10}, {"rejected": 30}, "rejection"),  # .75
        ({"rejected": 10}, {"rejected": 2}, "rejection"),  # .167: a proxy that no longer rejects is as bad
        ({}, {"text": "ok xxxxx"}, "garble"),
        ({"text": "ok xxxxx"}, {}, None),
        ({}, {"finish": "error"}, "error"),
        ({"finish": "error"}, {}, None),
    ],
)
def test_a_canary_is_judged_against_stable(
    stable: dict[str, object], canary: dict[str, object], measure: str | None
) -> None:
    guard = CanaryGuard(Bands(min_requests=3))
    guard.watch([(CANARY, STABLE)])
    for _ in range(3):
        answer(guard, STABLE, **stable)  # type: ignore[arg-type]
    for _ in range(2):
        answer(guard, CANARY, **canary)  # type: ignore[arg-type]
    assert guard.breaches() == []  # too early

    guard.watch([(CANARY, STABLE)])
    answer(guard, CANARY, **canary)  # type: ignore[arg-type]

    assert [breach.measure for breach in guard.breaches()] == ([] if measure is None else [measure])


def test_another_canary_starts_afresh_and_without_a_guard_nobody_is_watched() -> None:
    guard = CanaryGuard(Bands(min_requests=1))
    guard.watch([(CANARY, STABLE)])
    answer(guard, CANARY, finish="error")
    answer(guard, STABLE)
    assert len(guard.breaches()) == 1

    guard.watch([(ProxyRef(name="helpful", version=3), STABLE)])

    assert guard.breaches() == []
    assert guard.observe(CANARY) is None
    unguarded = CanaryGuard(None)
    unguarded.watch([(CANARY, STABLE)])
    assert unguarded.observe(CANARY) is None


def test_a_canary_that_rejects_too_much_is_rolled_back_by_itself(
    start: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = start(admin_key=ADMIN_KEY, canary_guard=True, canary_min_requests=3)
    publish(server.proxies, server.llm, policy=new_policy(1))
    publish(server.proxies, server.llm, policy=picky_policy())
    admin(server, "promote", name="helpful", version=1)
    admin(server, "canary", name="helpful", version=2, share=0.5)

    eventually(lambda: server.service.guard.observe(CANARY), "the guard's attention")
    for _ in range(3):
        assert server.chat(model="tiny:helpful@stable").status_code == 200
        assert server.chat(model="tiny:helpful@canary").status_code == 200

    def state() -> dict[str, object]:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        found: dict[str, object] = httpx.get(f"{server.url}/admin/proxies", headers=headers).json()["data"][0]
        return found

    eventually(lambda: state()["aliases"] == {"stable": 1}, "the roll-back")
    withdrawn = ProxyRegistry(server.proxies).aliases("helpful").withdrawn
    assert withdrawn is not None
    assert withdrawn.version == 2
    assert withdrawn.reason.startswith("rejection rate ")
    assert state()["withdrawn"] == {"version": 2, "reason": withdrawn.reason}
    assert server.metric('proxy_canary_rollbacks_total{measure="rejection"}') == 1
    assert "a canary was rolled back by its guard" in caplog.text
    assert {version(server, f"user-{number}") for number in range(12)} == {1}
