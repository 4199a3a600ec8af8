"""Versions that are deleted from the folder of published proxies."""

from pathlib import Path

import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import UnknownProxy, VersionInUse
from proxy_model.versions.aliases import CANARY
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict
from tests.proxy_model.versions.test_registry import checkpoint, published


def test_a_version_that_no_alias_names_is_deleted_and_its_number_not_given_again(tmp_path: Path) -> None:
    registry = published(tmp_path, 2)
    registry.publish("demo", checkpoint(3), awaits_gates=True)
    registry.judge(ProxyRef(name="demo", version=3), Verdict(state="failed", against="base", failures=("kl",)))

    assert registry.delete("demo", 3) == [ProxyRef(name="demo", version=3)]

    assert registry.versions("demo") == [1, 2]
    assert registry.verdicts("demo").by_version == {}
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        ".lock",
        "1",
        "2",
        "aliases.json",
        "gates.json",
    ]
    assert registry.publish("demo", checkpoint(4)).version == 4


@pytest.mark.parametrize("alias", ["stable", CANARY])
def test_a_version_that_an_alias_names_stays(tmp_path: Path, alias: str) -> None:
    registry = published(tmp_path, 3)
    if alias == CANARY:
        registry.set_canary("demo", 2, 0.25)
    named = registry.resolve("demo", alias).version

    with pytest.raises(VersionInUse, match=f"demo@{named} is named"):
        registry.delete("demo", named)

    assert registry.versions("demo") == [1, 2, 3]


def test_a_rollback_steps_over_a_deleted_version(tmp_path: Path) -> None:
    registry = published(tmp_path, 3)

    registry.delete("demo", 2)

    assert registry.rollback("demo").version == 1


def test_a_whole_proxy_is_deleted_with_what_named_it(tmp_path: Path) -> None:
    registry = published(tmp_path, 3)
    registry.set_canary("demo", 2, 0.25)

    registry.delete("demo")

    assert registry.names() == []
    with pytest.raises(UnknownProxy):
        registry.delete("demo")
    assert registry.publish("demo", checkpoint(4)).version == 4
    aliases = ProxyRegistry(tmp_path).aliases("demo")
    assert (aliases.versions, aliases.canary_share, aliases.deleted) == ({"stable": 4}, 0.0, 3)


def test_a_version_that_is_not_there_cannot_be_deleted(tmp_path: Path) -> None:
    with pytest.raises(UnknownProxy):
        published(tmp_path, 1).delete("demo", 2)
