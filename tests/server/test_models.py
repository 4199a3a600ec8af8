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
