"""Shipped proxies are published once, for the LLM that they belong to."""

from pathlib import Path

from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import write_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from server.proxies.demo import publish_demo_proxies
from tests.server.fakes import new_checkpoint


def test_they_are_published_once_and_only_for_their_llm(tmp_path: Path, llm: FrozenLLM) -> None:
    shipped, registry = tmp_path / "shipped", ProxyRegistry(tmp_path / "proxies")
    (shipped / "harmless").mkdir(parents=True)
    write_checkpoint(shipped / "helpful", new_checkpoint(llm))
    write_checkpoint(shipped / "harmless" / "2", new_checkpoint(llm))
    stranger = new_checkpoint(llm)
    stranger.fingerprint["llm_weights"] = "another"
    write_checkpoint(shipped / "stranger", stranger)

    for _ in range(2):
        publish_demo_proxies(registry, llm.fingerprint, shipped)

    assert registry.names() == ["harmless", "helpful"]
    assert registry.versions("helpful") == [1]
    assert registry.resolve("helpful").version == 1


def test_nothing_shipped_is_nothing_published(tmp_path: Path, llm: FrozenLLM) -> None:
    registry = ProxyRegistry(tmp_path / "proxies")

    publish_demo_proxies(registry, llm.fingerprint, tmp_path / "nowhere")

    assert registry.names() == []
