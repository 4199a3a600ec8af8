"""Versions for rollouts come and go, and are nobody's stable version meanwhile."""

from pathlib import Path

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import GatesNotPassed, ServersFailed
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from trainer.served.lending import Lending


def checkpoint(seed: int = 1) -> Checkpoint:
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=4, hidden_size=4), generator=torch.Generator().manual_seed(seed))
    return Checkpoint(policy, SkamConfig(), {"hidden_size": 4}, {"iteration": seed})


@pytest.fixture
def registry(tmp_path: Path) -> ProxyRegistry:
    found = ProxyRegistry(tmp_path / "proxies")
    found.publish("mine", checkpoint())
    return found


def lending(registry: ProxyRegistry, run: str = "run") -> Lending:
    return Lending.of(registry.root.parent / run, registry, "mine")


def test_a_lent_version_is_there_for_as_long_as_it_is_needed_and_no_alias_may_name_it(registry: ProxyRegistry) -> None:
    with lending(registry).lent(checkpoint(3)) as ref:
        assert ref == ProxyRef("mine.rollouts", 1)
        assert registry.verify(ref).card["iteration"] == 3
        assert registry.aliases("mine.rollouts").versions == {}
        with pytest.raises(GatesNotPassed):
            registry.promote("mine.rollouts", 1)

    assert registry.names() == ["mine"]
    assert registry.aliases("mine").versions == {"stable": 1}
    with lending(registry).lent(checkpoint(4)) as ref:
        assert ref.version == 2  # a server may still know version 1


def test_it_goes_when_the_rollout_fails(registry: ProxyRegistry) -> None:
    with pytest.raises(ServersFailed), lending(registry).lent(checkpoint()):
        raise ServersFailed("gone")

    assert registry.versions("mine.rollouts") == []


def test_what_a_killed_run_has_left_goes_when_it_is_resumed_and_that_of_others_stays(registry: ProxyRegistry) -> None:
    begun = [lending(registry, run) for run in ("broken", "other", "run")]
    lent = [each.lent(checkpoint()) for each in begun]
    for each in lent:
        each.__enter__()
    (registry.root / "mine.rollouts" / "1" / "card.json").write_text("{}")
    assert registry.versions("mine.rollouts") == [1, 2, 3]

    for run in ("run", "broken"):
        lending(registry, run)

    assert registry.versions("mine.rollouts") == [1, 2]  # whose the broken one is cannot be told


def test_a_version_that_was_forced_into_service_stays_there(
    registry: ProxyRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with lending(registry).lent(checkpoint()):
        registry.promote("mine.rollouts", 1, is_forced=True)

    assert registry.versions("mine.rollouts") == [1]
    assert "stays, since an alias names it" in caplog.text


def test_a_long_name_is_cut_to_what_a_proxy_may_be_called(registry: ProxyRegistry) -> None:
    long = Lending.of(registry.root.parent / "run", registry, "x" * 64)

    with long.lent(checkpoint()) as ref:
        assert ref.name == "x" * 55 + ".rollouts"
