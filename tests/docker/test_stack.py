"""`docker compose up` for real. The tests build on each other's traces only where they say so."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.docker.conftest import SERVICES, Stack, wait_until_healthy
from tests.docker.engine import REPOSITORY
from tests.front_door.server_process import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

LLM = "smollm2-135m-instruct"
KEY = (REPOSITORY / "docker" / "secrets" / "api_keys").read_text().splitlines()[0].partition(":")[2]
SWAP = """
from proxy_model.paths import proxies_root
from proxy_model.versions.registry import ProxyRegistry
registry = ProxyRegistry(proxies_root())
print(registry.publish("arrived", registry.verify(registry.resolve("harmless"))))
"""


def ask(stack: Stack, proxy: str) -> Any:
    with openai.OpenAI(base_url=f"{stack.url('server')}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        return client.chat.completions.create(
            model=f"{LLM}:{proxy}",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=16,
        )


def test_every_service_is_up_and_healthy(stack: Stack) -> None:
    states = {name: stack.is_healthy(name) for name in stack.services}

    assert states == dict.fromkeys(stack.services, True)
    assert {"server", "trainer", "prometheus"} <= set(stack.services) <= set(SERVICES)


def test_the_sdk_is_answered_by_the_llm_alone_and_by_the_demo_proxies(stack: Stack) -> None:
    assert "Paris" in (ask(stack, "base").choices[0].message.content or "")
    assert ask(stack, "harmless").system_fingerprint.endswith(":harmless@1")


def test_a_stranger_is_answered_neither_with_text_nor_with_metrics(stack: Stack) -> None:
    with (
        openai.OpenAI(base_url=f"{stack.url('server')}/v1", api_key="sk-stranger", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()

    assert httpx.get(f"{stack.url('server')}/metrics").status_code == 401


def test_prometheus_scrapes_server_and_trainer(stack: Stack) -> None:
    ask(stack, "harmless")

    eventually(lambda: len(stack.query('up{job=~"server|trainer"} == 1')) == 2, "both targets", 90)
    eventually(lambda: stack.query('proxy_accepted_tokens_total{proxy="harmless"} > 0'), "the server's tokens", 90)
    assert stack.query('proxy_training_state{state="waiting"} == 1')


def test_a_version_that_is_published_into_the_volume_is_served(stack: Stack) -> None:
    """By the trainer's container, which shares nothing but the volume with the server's."""
    published = stack.compose("exec", "-T", "trainer", "python", "-c", SWAP)

    assert "arrived@1" in published
    eventually(lambda: "arrived" in models(stack), "the new proxy")
    assert ask(stack, "arrived").system_fingerprint.endswith(":arrived@1")


@pytest.mark.parametrize("service", ["server", "trainer", "prometheus"])
def test_a_killed_service_comes_back_by_itself_with_its_data(stack: Stack, service: str) -> None:
    ask(stack, "harmless")
    eventually(lambda: stack.query('proxy_accepted_tokens_total{proxy="harmless"} > 0'), "a sample to keep", 90)
    before = models(stack)

    started = stack.container(service)["State"]["StartedAt"]

    stack.kill(service)

    eventually(lambda: stack.container(service)["State"]["StartedAt"] > started, f"the restart of {service}", 60)
    wait_until_healthy(stack, service)
    assert models(stack) == before
    assert ask(stack, "harmless").system_fingerprint.endswith(":harmless@1")
    assert stack.query('max_over_time(proxy_accepted_tokens_total{proxy="harmless"}[10m]) > 0')


@pytest.mark.parametrize("service", ["server", "trainer", "prometheus"])
def test_a_container_has_no_rights_to_lose(stack: Stack, service: str) -> None:
    host = stack.container(service)["HostConfig"]

    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert any("no-new-privileges" in option for option in host["SecurityOpt"])
    assert not host["Privileged"]
    assert stack.container(service)["Config"]["User"] not in ("", "root", "0")
    bindings = [binding for each in host["PortBindings"].values() for binding in each]
    assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}


def test_the_server_s_image_holds_nothing_to_train_with(stack: Stack) -> None:
    look = "import importlib.util as each; print(each.find_spec('tensorboard') is not None)"

    found = {name: stack.compose("exec", "-T", name, "python", "-c", look).strip() for name in ("server", "trainer")}

    assert found == {"server": "False", "trainer": "True"}


def test_a_job_is_trained_in_the_container_and_its_version_served(stack: Stack) -> None:
    """Two iterations of two short answers each: the shipped reward, the shipped prompts, the demo LLM."""
    changes = ["num_prompts=4", "rollout.prompts_per_iteration=2", "rollout.max_tokens=4", "ppo.minibatches=1"]
    flags = [part for change in changes for part in ("--set", change)]
    run = ["proxy-rlhf", "train", "--settings", "demo/harmless.toml", "--output", "/data/run", "--proxy", "trained"]

    stack.compose("exec", "-T", "trainer", *run, *flags)

    eventually(lambda: "trained" in models(stack), "the trained proxy")
    assert ask(stack, "trained").system_fingerprint.endswith(":trained@1")


def test_the_gpu_override_asks_for_a_gpu_for_server_and_trainer(stack: Stack) -> None:
    files = [str(REPOSITORY / name) for name in ("docker-compose.yml", "docker-compose.gpu.yml")]
    shown = stack.engine.run("compose", "-f", files[0], "-f", files[1], "config", "--format", "json")

    services = json.loads(shown)["services"]

    for name in ("server", "trainer"):
        (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"], int(device["count"])) == ("nvidia", ["gpu"], 1)
        assert services[name]["read_only"]
    assert services["server"]["environment"]["PROXY_RLHF_DEVICE"] == "cuda"


def test_the_vllm_override_serves_over_vllm_and_stays_hardened(stack: Stack) -> None:
    files = [str(REPOSITORY / name) for name in ("docker-compose.yml", "docker-compose.vllm.yml")]
    shown = stack.engine.run("compose", "-f", files[0], "-f", files[1], "config", "--format", "json")

    server = json.loads(shown)["services"]["server"]

    assert server["environment"]["PROXY_RLHF_ENGINE"] == "vllm"
    assert server["build"]["dockerfile"] == "docker/vllm.Dockerfile"
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]


def models(stack: Stack) -> set[str]:
    """The proxies that the server lists."""
    with openai.OpenAI(base_url=f"{stack.url('server')}/v1", api_key=KEY, max_retries=0) as client:
        return {model.id.partition(":")[2] for model in client.models.list()}
