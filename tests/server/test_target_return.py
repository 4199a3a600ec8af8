"""`proxy.target_return`: the dial of a proxy that is conditioned on a return, and its absence everywhere else."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from proxy_model.paths import store_file
from store.completions import Completions
from store.database import Database, owner_of
from tests.conftest import dial_policy
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import picky_policy, publish
from tests.server.test_admin import ADMIN_KEY, bearer

RELENTED = {"id": "dial", "version": 1, "accepted": 8, "rejections": 0, "forced": 0}
PICKY = {"id": "dial", "version": 1, "accepted": 8, "rejections": 16, "forced": 8}


@pytest.fixture
def dialled(start: Callable[..., RunningServer]) -> RunningServer:
    """One conditioned proxy `dial` and one other, `helpful`, which is the default."""
    server = start(admin_key=ADMIN_KEY, default_proxy="helpful")
    publish(server.proxies, server.llm, "helpful", policy=picky_policy())
    publish(server.proxies, server.llm, "dial", policy=dial_policy(32, 0.75))
    eventually(lambda: server.service.serving().reloader.table.names() == ["dial", "helpful"])
    return server


@pytest.mark.parametrize(
    ("proxy", "told", "report"),
    [
        (None, 0.75, RELENTED),
        ({}, 0.75, RELENTED),
        ({"target_return": 4}, 4.0, RELENTED),
        ({"target_return": 0}, 0.0, PICKY),
        ({"target_return": -4.0}, -4.0, PICKY),
    ],
)
def test_the_dial_steers_and_is_echoed(
    dialled: RunningServer, proxy: dict[str, Any] | None, told: float, report: dict[str, Any]
) -> None:
    whole = dialled.chat(model="tiny:dial", proxy=proxy).json()

    body = chat_body(model="tiny:dial", proxy=proxy, stream=True)
    lines = httpx.post(f"{dialled.url}/v1/chat/completions", json=body, timeout=60).text.splitlines()
    last = json.loads([line for line in lines if line.startswith("data: {")][-1].removeprefix("data: "))
    assert whole["proxy"] == last["proxy"] == {**report, "target_return": told}


def test_every_choice_aims_at_the_target(dialled: RunningServer) -> None:
    found = dialled.chat(model="tiny:dial", n=3, proxy={"target_return": -1}).json()

    assert found["proxy"] == {"id": "dial", "version": 1, "accepted": 24, "rejections": 48, "forced": 24} | {
        "target_return": -1.0
    }


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("completions", {"prompt": "hi"}),
        ("responses", {"input": "hi"}),
    ],
)
@pytest.mark.parametrize(
    ("model", "proxy", "code"),
    [
        ("tiny", {"target_return": 1.5}, "unsupported_value"),
        ("tiny:helpful@1", {"target_return": 0}, "unsupported_value"),
        ("tiny:base", {"target_return": 1.5}, "unsupported_value"),
        ("tiny:dial", {"target_return": 1.5, "enabled": False}, "unsupported_value"),
        ("tiny:dial", {"target_return": 4.01}, "decimal_above_max_value"),
        ("tiny:dial", {"target_return": -5}, "decimal_below_min_value"),
        ("tiny:dial", {"target_return": "1.5"}, "invalid_type"),
    ],
)
def test_every_endpoint_refuses_a_target_that_nobody_can_aim_at(
    dialled: RunningServer, path: str, prompt: dict[str, Any], model: str, proxy: dict[str, Any], code: str
) -> None:
    response = httpx.post(f"{dialled.url}/v1/{path}", json={"model": model, "proxy": proxy, **prompt}, timeout=60)

    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (
        400, "invalid_request_error", "proxy.target_return",
    )  # fmt: skip
    assert error["code"] == code


def test_completions_and_responses_echo_what_they_aimed_at(dialled: RunningServer) -> None:
    settings = {"model": "tiny:dial", "proxy": {"target_return": 2.5}}

    completion = httpx.post(f"{dialled.url}/v1/completions", json={"prompt": "hi", **settings}, timeout=60).json()
    body = {"input": "hi", "max_output_tokens": 4, **settings}
    response = httpx.post(f"{dialled.url}/v1/responses", json=body, timeout=60).json()

    assert completion["proxy"]["target_return"] == 2.5
    assert response["proxy"]["target_return"] == 2.5
    kept = httpx.get(f"{dialled.url}/v1/responses/{response['id']}").json()
    assert kept["proxy"]["target_return"] == 2.5


def test_models_and_the_admins_list_tell_which_proxies_have_a_dial(dialled: RunningServer) -> None:
    models = httpx.get(f"{dialled.url}/v1/models").json()["data"]
    proxies = httpx.get(f"{dialled.url}/admin/proxies", headers=bearer(ADMIN_KEY)).json()["data"]

    dial = {"default": 0.75, "min": -4.0, "max": 4.0}
    assert {model["id"]: model["target_return"] for model in models} == {
        "tiny": None, "tiny:base": None, "tiny:dial": dial, "tiny:dial@1": dial,
        "tiny:helpful": None, "tiny:helpful@1": None,
    }  # fmt: skip
    assert {proxy["name"]: proxy["target_returns"] for proxy in proxies} == {"dial": {"1": 0.75}, "helpful": {}}


def test_a_stored_answer_keeps_what_it_aimed_at_even_by_default(dialled: RunningServer) -> None:
    answer = dialled.chat(model="tiny:dial", store=True).json()

    database = Database(f"sqlite:///{store_file(dialled.service.settings.home)}")
    found = Completions(database).get(owner_of(None), "chat.completion", answer["id"])
    database.close()
    assert found is not None
    assert found.sampling["target_return"] == 0.75
    assert found.body["proxy"]["target_return"] == 0.75
