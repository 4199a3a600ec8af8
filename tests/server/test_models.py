"""GET /v1/models: every name, the exact version that answers under it, and the settings that this was trained with."""

from collections.abc import Callable

import httpx

from proxy_model.decision.config import SkamConfig
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import CONTEXT, new_policy, publish


def test_models_name_their_versions_and_how_far_these_may_steer(start: Callable[..., RunningServer]) -> None:
    server = start(default_proxy="second")
    publish(server.proxies, server.llm, "first")
    skam = SkamConfig(p_t=0.125, top_p=0.5, temperature=2.0, max_candidates=7)
    checkpoint = Checkpoint(new_policy(5), skam, dict(server.llm.fingerprint), {})
    ProxyRegistry(server.proxies).publish("second", checkpoint)
    eventually(lambda: server.service.serving().reloader.table.names() == ["first", "second"])

    models = {model["id"]: model for model in httpx.get(f"{server.url}/v1/models").json()["data"]}

    seconds = {"p_t": 0.125, "temperature": 2.0, "top_p": 0.5, "max_candidates": 7}
    names = ["tiny", "tiny:base", "tiny:first", "tiny:second", "tiny:first@1", "tiny:second@1"]
    assert list(models) == names
    assert [models[name]["proxy"] for name in names] == ["second@1", None, "first@1", "second@1", "first@1", "second@1"]
    assert models["tiny"]["skam"] == models["tiny:second"]["skam"] == models["tiny:second@1"]["skam"] == seconds
    assert models["tiny:first"]["skam"]["max_candidates"] == 3
    assert models["tiny:base"]["skam"] is None
    assert {model["max_model_len"] for model in models.values()} == {CONTEXT}


def test_a_proxy_that_has_only_a_canary_goes_by_that_name(start: Callable[..., RunningServer]) -> None:
    server = start()
    publish(server.proxies, server.llm, "tried")
    checkpoint = Checkpoint(new_policy(6), SkamConfig(), dict(server.llm.fingerprint), {})
    for name in ("tried", "untried"):
        ProxyRegistry(server.proxies).publish(name, checkpoint, aliases=["canary"])
    eventually(lambda: server.service.serving().reloader.table.names("canary") == ["tried", "untried"])

    models = {model["id"]: model["proxy"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]}

    named = {"tiny:tried": "tried@1", "tiny:tried@canary": "tried@2", "tiny:untried@canary": "untried@1"}
    versions = {f"tiny:{ref}": ref for ref in ("tried@1", "tried@2", "untried@1")}
    assert models == {"tiny": None, "tiny:base": None} | named | versions
    found = httpx.get(f"{server.url}/v1/models/tiny:untried@canary").json()
    assert (found["id"], found["proxy"]) == ("tiny:untried@canary", "untried@1")
    assert server.chat(model="tiny:untried@canary").json()["proxy"]["version"] == 1
