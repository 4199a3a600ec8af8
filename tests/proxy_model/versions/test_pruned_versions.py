"""Old versions that are deleted from the folder of published proxies: which ones stay, and what a death leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import InvalidParameter, UnknownProxy
from proxy_model.versions.hold import Hold, hold
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict
from tests.proxy_model.versions.test_registry import REPOSITORY, checkpoint, ended, published, publisher


def refs(*versions: int) -> list[ProxyRef]:
    return [ProxyRef(name="demo", version=version) for version in versions]


def held(registry: ProxyRegistry, version: int) -> Hold:
    lock = hold(registry.root / "demo" / str(version))
    assert lock is not None
    return lock


def test_the_newest_versions_stay_and_so_does_what_a_rollback_returns_to(tmp_path: Path) -> None:
    registry = published(tmp_path, 5)

    assert registry.prune("demo", 1) == refs(1, 2, 3)

    assert registry.versions("demo") == [4, 5]
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"4", "5", "aliases.json", ".lock"}
    assert registry.prune("demo", 1) == []
    assert registry.rollback("demo").version == 4
    assert registry.publish("demo", checkpoint(6)).version == 6


def test_a_version_that_anybody_names_needs_or_has_loaded_stays(tmp_path: Path) -> None:
    registry = published(tmp_path, 9)
    registry.set_canary("demo", 2, 0.5)
    registry.promote("demo", 3, alias="of-old")
    registry.judge(ProxyRef("demo", 4), Verdict(state="pending"))
    registry.judge(ProxyRef("demo", 5), Verdict(state="failed", against="base", failures=("kl",)))
    loaded, too = held(registry, 6), held(registry, 6)

    assert registry.prune("demo", 1, spared={1}) == refs(5, 7)  # 9 is stable, a rollback returns to 8

    loaded.release()
    assert registry.prune("demo", 1) == refs(1)
    too.release()
    assert registry.prune("demo", 1) == refs(6)
    assert registry.versions("demo") == [2, 3, 4, 8, 9]
    assert registry.verdicts("demo").by_version.keys() == {4}


def test_a_version_that_is_just_being_deleted_cannot_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = published(tmp_path, 3)
    found: list[Hold | None] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        found.append(hold(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    registry.prune("demo", 1)

    assert found == [None]
    assert hold(tmp_path / "demo" / "1") is None  # it is gone


HOLD = """
import pathlib, sys, time
from proxy_model.versions.hold import hold
kept = hold(pathlib.Path(sys.argv[1]))
print("held" if kept else "not held", flush=True)
time.sleep(60)
"""


def test_what_another_process_has_loaded_stays_until_that_is_killed(tmp_path: Path) -> None:
    registry = published(tmp_path, 3)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "demo" / "1")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        assert registry.prune("demo", 1) == []

        holder.kill()
    assert registry.prune("demo", 1) == refs(1)


def test_nothing_is_pruned_without_a_number_or_a_proxy(tmp_path: Path) -> None:
    registry = published(tmp_path, 2)

    with pytest.raises(InvalidParameter, match="keep must be at least 1"):
        registry.prune("demo", 0)
    with pytest.raises(UnknownProxy):
        registry.prune("nobody", 1)


def test_killed_at_any_step_what_stays_is_in_order_and_the_next_pruning_ends_it(tmp_path: Path) -> None:
    assert ended(publisher("prune", str(tmp_path)))[0] == 0
    roots = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(roots) > 30

    seen, num_with_leftovers = set(), 0
    for root in roots:
        registry = ProxyRegistry(root)
        versions = registry.versions("demo")
        seen.add(tuple(versions))
        for version in versions:
            assert registry.verify(ProxyRef(name="demo", version=version)).card == {"seed": version}
        assert registry.aliases("demo").versions == {"stable": 4}
        num_with_leftovers += any(path.name.startswith(".staging-") for path in (root / "demo").iterdir())

        registry.prune("demo", 1)

        names = {path.name for path in (root / "demo").iterdir()}
        assert names == {"3", "4", "aliases.json", ".lock"}
        assert registry.rollback("demo").version == 3
    assert seen == {(1, 2, 3, 4), (2, 3, 4), (3, 4)}
    assert num_with_leftovers > 20
