"""Published versions arrive while the server runs; bad ones do not; running answers keep theirs."""

import asyncio
import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy_model.decision.bank import LoadedProxy, ProxyRef
from proxy_model.manifest import write_manifest
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict
from server.proxies.publications import look
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import new_checkpoint, new_policy, picky_policy, publish


def loaded(server: RunningServer) -> list[str]:
    return [str(ref) for ref in server.engine.list_proxies()]


def serves(server: RunningServer, version: int, name: str = "helpful") -> bool:
    return server.service.serving().reloader.table.aliases.get(name, {}).get("stable") == version


def break_version(folder: Path, how: str) -> None:
    """Spoil a published version in one of the ways of the world."""
    policy = folder / "policy.safetensors"
    data = policy.read_bytes()
    if how == "torn":
        policy.write_bytes(data[:-40])
    elif how == "tampered":
        policy.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif how == "missing":
        policy.unlink()
    elif how == "symlink":
        outside = folder.parent.parent / "outside"
        shutil.move(policy, outside)
        policy.symlink_to(outside)
    elif how == "format":
        (folder / "manifest.json").unlink()
        policy.write_bytes(b"\x80\x04.")
        write_manifest(folder)
    elif how == "fingerprint":
        (folder / "manifest.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        config["fingerprint"]["llm_weights"] = "another"
        (folder / "config.json").write_text(json.dumps(config))
        write_manifest(folder)


def publish_broken(server: RunningServer, how: str) -> ProxyRef:
    """Publish a version that is bad from the first moment that the server could see it."""
    aside = ProxyRegistry(server.proxies.parent / "aside")
    num_published = max([0, *ProxyRegistry(server.proxies).versions("helpful")])
    for _ in range(num_published):
        aside.publish("helpful", new_checkpoint(server.llm))
    ref = aside.publish("helpful", new_checkpoint(server.llm))
    break_version(aside.path(ref), how)
    folder = server.proxies / "helpful"
    aside.path(ref).rename(folder / str(ref.version))
    aliases = json.loads((folder / "aliases.json").read_text()) | {"stable": ref.version}
    (folder / ".staging-test").write_text(json.dumps(aliases))
    (folder / ".staging-test").rename(folder / "aliases.json")
    shutil.rmtree(aside.root)
    return ref


def test_a_new_version_takes_over_and_the_old_one_is_unloaded(server: RunningServer) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    publish(server.proxies, server.llm, policy=picky_policy())

    eventually(lambda: serves(server, 2))

    answer = server.chat(model="tiny:helpful").json()
    assert answer["system_fingerprint"].endswith("helpful@2")
    eventually(lambda: loaded(server) == ["helpful@2"])
    assert server.metric('proxy_reloads_total{result="loaded"}') == 2
    assert server.metric('proxy_version_info{alias="stable",model="tiny",proxy="helpful",version="2"}') == 1
    assert server.metric('proxy_version_info{alias="stable",model="tiny",proxy="helpful",version="1"}') == 0


def test_a_running_answer_keeps_its_version(server: RunningServer) -> None:
    publish(server.proxies, server.llm, policy=new_policy(3))
    eventually(lambda: serves(server, 1))
    expected = server.chat(max_tokens=60, ignore_eos=True).json()["choices"][0]["message"]["content"]
    server.engine.step_seconds = 0.02
    parts = []
    body = chat_body(stream=True, max_tokens=60, ignore_eos=True)

    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as response:
        for line in response.iter_lines():
            parts += [json.loads(line.removeprefix("data: "))] if line.startswith("data: {") else []
            if len(parts) == 5:
                publish(server.proxies, server.llm, policy=picky_policy())
                eventually(lambda: serves(server, 2) and loaded(server) == ["helpful@2"])

    text = "".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"])
    assert text == expected
    assert {part["system_fingerprint"].rpartition(":")[2] for part in parts} == {"helpful@1"}
    assert parts[-1]["proxy"]["version"] == 1


@pytest.mark.parametrize("how", ["torn", "tampered", "missing", "symlink", "format", "fingerprint"])
def test_a_bad_version_is_refused_with_its_reason_and_the_old_one_stays(
    server: RunningServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))

    with caplog.at_level(logging.WARNING):
        ref = publish_broken(server, how)
        eventually(lambda: server.metric(f'proxy_reloads_total{{result="{how}"}}') == 1, how)

    asyncio.run(asyncio.sleep(0.2))  # some more looks at the folder
    assert serves(server, 1)
    assert server.chat().json()["proxy"]["version"] == 1
    assert server.metric(f'proxy_reloads_total{{result="{how}"}}') == 1
    refusals = [vars(record) for record in caplog.records if record.message == "a proxy was refused"]
    assert [(refusal["version"], refusal["reason"]) for refusal in refusals] == [(ref.version, how)]
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, ref.version + 1))


def test_a_refused_version_is_named_to_who_asks_for_it(server: RunningServer) -> None:
    publish(server.proxies, server.llm)
    ref = publish_broken(server, "torn")
    eventually(lambda: server.metric('proxy_reloads_total{result="torn"}') == 1)

    response = server.chat(model=f"tiny:{ref}")

    assert response.status_code == 404
    assert "torn" in response.json()["error"]["message"]
    assert str(server.proxies) not in response.text


def test_a_bad_version_that_no_alias_names_is_refused_when_it_arrives(server: RunningServer) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    target = server.proxies / "helpful" / "7"

    shutil.copytree(server.proxies / "helpful" / "1", server.proxies / "helpful" / ".staging-7")
    (server.proxies / "helpful" / ".staging-7" / "policy.safetensors").unlink()
    (server.proxies / "helpful" / ".staging-7").rename(target)

    eventually(lambda: server.metric('proxy_reloads_total{result="missing"}') == 1)
    assert server.service.serving().reloader.refusals("helpful").keys() == {7}
    assert server.chat(model="tiny:helpful@7").status_code == 404
    assert server.chat().json()["proxy"]["version"] == 1


def test_broken_aliases_change_nothing(server: RunningServer) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))

    (server.proxies / "helpful" / "aliases.json").write_text("{")

    eventually(lambda: server.metric('proxy_reloads_total{result="format"}') == 1)
    assert server.chat().json()["proxy"]["version"] == 1


def test_a_withdrawn_proxy_is_gone(server: RunningServer) -> None:
    publish(server.proxies, server.llm, "other")
    eventually(lambda: serves(server, 1, "other"))

    shutil.rmtree(server.proxies / "other")

    eventually(lambda: loaded(server) == [])
    assert server.chat(model="tiny:other").status_code == 404


def test_versions_named_by_number_are_kept_up_to_a_limit(start: Callable[..., RunningServer]) -> None:
    server = start(max_pinned=2)
    for seed in range(5):
        publish(server.proxies, server.llm, policy=new_policy(seed))
    eventually(lambda: serves(server, 5))

    for version in (1, 2, 3):
        assert server.chat(model=f"tiny:helpful@{version}").json()["proxy"]["version"] == version

    eventually(lambda: loaded(server) == ["helpful@2", "helpful@3", "helpful@5"])


def test_a_loaded_version_is_not_pruned(start: Callable[..., RunningServer]) -> None:
    server = start(max_pinned=1)
    for seed in range(5):
        publish(server.proxies, server.llm, policy=new_policy(seed))
    eventually(lambda: serves(server, 5))
    registry = ProxyRegistry(server.proxies)

    assert server.chat(model="tiny:helpful@2").status_code == 200
    assert registry.prune("helpful", 1) == [ProxyRef("helpful", 1), ProxyRef("helpful", 3)]

    assert server.chat(model="tiny:helpful@4").status_code == 200
    eventually(lambda: loaded(server) == ["helpful@4", "helpful@5"])
    assert registry.prune("helpful", 1) == [ProxyRef("helpful", 2)]
    assert server.chat(model="tiny:helpful@2").status_code == 404


def test_publishing_under_load_fails_no_answer(start: Callable[..., RunningServer]) -> None:
    server = start(max_waiting=512)
    publish(server.proxies, server.llm, policy=new_policy(0))
    eventually(lambda: serves(server, 1))
    expected: dict[int, str] = {}

    answers = asyncio.run(_ask_while_publishing(server))

    for answer in answers:
        assert answer.status_code == 200, answer.text
        content = answer.json()
        version, text = content["proxy"]["version"], content["choices"][0]["message"]["content"]
        assert expected.setdefault(version, text) == text
    assert len(expected) > 2
    eventually(lambda: serves(server, 13))
    eventually(lambda: loaded(server) == ["helpful@13"])


async def _ask_while_publishing(server: RunningServer) -> list[httpx.Response]:
    """Six clients ask again and again until twelve more versions are out."""
    answers: list[httpx.Response] = []
    is_over = asyncio.Event()
    limits = httpx.Limits(max_connections=20)

    async def ask(client: httpx.AsyncClient) -> None:
        while not is_over.is_set():
            answers.append(await client.post(f"{server.url}/v1/chat/completions", json=chat_body(max_tokens=20)))

    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        clients = [asyncio.create_task(ask(client)) for _ in range(6)]
        for seed in range(12):
            policy = picky_policy() if seed % 2 else new_policy(seed)
            await asyncio.to_thread(publish, server.proxies, server.llm, policy=policy)
            await asyncio.sleep(0.1)
        is_over.set()
        await asyncio.gather(*clients)
    return answers


def test_a_folder_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert look(ProxyRegistry(tmp_path / "proxies")) == {}


def test_an_alias_that_was_moved_past_the_gates_by_hand_is_not_followed(start: Callable[..., RunningServer]) -> None:
    """An old program, or an editor: nothing else writes such an alias."""
    server = start()
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    registry = ProxyRegistry(server.proxies)
    registry.publish("helpful", new_checkpoint(server.llm), awaits_gates=True)

    (server.proxies / "helpful" / "aliases.json").write_text('{"stable": 2, "history": [1]}')
    eventually(lambda: 'proxy_reloads_total{result="gates"} 1.0' in httpx.get(f"{server.url}/metrics").text)
    assert serves(server, 1)

    registry.judge(ProxyRef("helpful", 2), Verdict(state="passed", against="stable 1"))
    eventually(lambda: serves(server, 2))


def test_answers_go_on_while_a_version_is_prepared(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    is_preparing, may_end = threading.Event(), threading.Event()
    prepare, answered_first = server.engine.prepare_proxy, []

    def slow(*version: Any) -> LoadedProxy:
        is_preparing.set()
        answered_first.append(may_end.wait(10))
        return prepare(*version)

    monkeypatch.setattr(server.engine, "prepare_proxy", slow)
    publish(server.proxies, server.llm)
    assert is_preparing.wait(30)

    meanwhile = server.chat(max_tokens=5, ignore_eos=True)
    may_end.set()

    assert meanwhile.json()["usage"]["completion_tokens"] == 5
    eventually(lambda: serves(server, 1), "the version")
    assert answered_first == [True]
