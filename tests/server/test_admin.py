"""Keys: who may use /v1, who may use /admin, and what the admin routes do."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy_model.versions.verdicts import Verdict
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import new_checkpoint, publish
from tests.server.test_reload import publish_broken, serves

API_KEY, ADMIN_KEY = "sk-test-0001", "admin-test-0001"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def admin(server: RunningServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/admin/proxies/{path}", json=body, headers=bearer(ADMIN_KEY), timeout=30)


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/models", None, 401),
        ("/v1/models", "sk-test-0002", 401),
        ("/v1/models", ADMIN_KEY, 401),
        ("/v1/models", API_KEY, 200),
        ("/admin/proxies", None, 401),
        ("/admin/proxies", API_KEY, 401),
        ("/admin/proxies", ADMIN_KEY, 200),
        ("/metrics", None, 401),
        ("/metrics", API_KEY, 200),
        ("/metrics", ADMIN_KEY, 200),
        ("/health", None, 200),
        ("/ready", None, 200),
    ],
)
def test_who_may_do_what(start: Callable[..., RunningServer], path: str, key: str | None, status: int) -> None:
    server = start(api_keys=("sk-another-1", API_KEY), admin_key=ADMIN_KEY)

    response = httpx.get(server.url + path, headers=bearer(key) if key else {})

    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert key is None or key not in response.text


def test_a_request_without_a_key_is_refused_before_its_body_is_read(start: Callable[..., RunningServer]) -> None:
    server = start(api_keys=(API_KEY,))

    response = httpx.post(f"{server.url}/v1/chat/completions", content=b"{")

    assert response.status_code == 401


def test_promote_and_roll_back_take_effect_before_they_answer(start: Callable[..., RunningServer]) -> None:
    server = start(admin_key=ADMIN_KEY, reload_seconds=60.0)
    publish(server.proxies, server.llm)
    publish(server.proxies, server.llm)

    promoted = admin(server, "promote", name="helpful", version=1).json()
    after_promotion = server.chat().json()["proxy"]["version"]
    rolled_back = admin(server, "rollback", name="helpful").json()

    assert promoted["aliases"] == {"stable": 1}
    assert after_promotion == 1
    assert rolled_back["aliases"] == {"stable": 2}
    assert rolled_back["loaded"] == [2]
    assert rolled_back["published"] == [1, 2]
    assert server.chat().json()["proxy"]["version"] == 2


def test_a_bad_version_is_not_promoted(start: Callable[..., RunningServer]) -> None:
    server = start(admin_key=ADMIN_KEY)
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    ref = publish_broken(server, "fingerprint")

    response = admin(server, "promote", name="helpful", version=ref.version)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_checkpoint"
    assert "llm_weights" in response.json()["error"]["message"]
    assert serves(server, 1)


def test_load_keeps_a_version_and_unload_lets_it_go(start: Callable[..., RunningServer]) -> None:
    server = start(admin_key=ADMIN_KEY)
    publish(server.proxies, server.llm)
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 2))

    after_load = admin(server, "load", name="helpful", version=1).json()
    after_unload = admin(server, "unload", name="helpful", version=1).json()

    assert (after_load["loaded"], after_load["pinned"]) == ([1, 2], [1])
    assert (after_unload["loaded"], after_unload["pinned"]) == ([2], [])


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("unload", {"name": "helpful", "version": 1}, 409, "proxy_in_use"),
        ("unload", {"name": "helpful", "version": 9}, 404, "model_not_found"),
        ("load", {"name": "helpful", "version": 9}, 404, "model_not_found"),
        ("load", {"name": "../helpful", "version": 1}, 404, "model_not_found"),
        ("load", {"name": "helpful"}, 400, "missing_required_parameter"),
        ("load", {"name": "helpful", "version": "1"}, 400, "invalid_type"),
        ("rollback", {"name": "helpful"}, 404, "model_not_found"),
        ("promote", {"name": "helpful", "version": 1, "alias": "history"}, 400, "invalid_value"),
        ("promote", {"name": "helpful", "version": 1, "more": 1}, 400, "unknown_parameter"),
    ],
)
def test_admin_refusals(
    start: Callable[..., RunningServer], path: str, body: dict[str, Any], status: int, code: str
) -> None:
    server = start(admin_key=ADMIN_KEY)
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))

    response = admin(server, path, **body)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_an_alias_other_than_stable_can_be_asked_for(start: Callable[..., RunningServer]) -> None:
    server = start(admin_key=ADMIN_KEY)
    publish(server.proxies, server.llm)
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 2))

    admin(server, "promote", name="helpful", version=1, alias="canary")

    assert server.chat(model="tiny:helpful@canary").json()["proxy"]["version"] == 1
    assert server.chat(**chat_body(model="tiny:helpful")).json()["proxy"]["version"] == 2


def test_a_version_that_failed_its_gates_is_shown_and_promoted_by_force_only(
    start: Callable[..., RunningServer],
) -> None:
    server = start(admin_key=ADMIN_KEY)
    publish(server.proxies, server.llm)
    registry = server.service.serving().reloader.registry
    failure = "length_drift is 0.41, limit 0.25"
    ref = registry.publish("helpful", new_checkpoint(server.llm), awaits_gates=True)
    registry.judge(ref, Verdict(state="failed", against="stable 1", failures=(failure,)))

    refused = [admin(server, "promote", name="helpful", version=2)]
    refused += [admin(server, "canary", name="helpful", version=2, share=0.5)]
    forced = admin(server, "promote", name="helpful", version=2, force=True).json()

    assert [(each.status_code, each.json()["error"]["code"]) for each in refused] == [(409, "gates_not_passed")] * 2
    assert failure in refused[0].json()["error"]["message"]
    assert forced["aliases"] == {"stable": 2}
    assert forced["gates"] == {
        "2": {"state": "failed", "against": "stable 1", "failures": [failure], "is_overridden": True, "prompts": ""}
    }
