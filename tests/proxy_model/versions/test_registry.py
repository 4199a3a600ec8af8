"""Publishing happens wholly or not at all, whatever dies, fills up or runs at the same time."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import BadCheckpoint, GatesNotPassed, InvalidParameter, UnknownProxy
from proxy_model.paths import proxies_root
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict
from tests.bad_checkpoints import SMALL_FINGERPRINT, SMALL_SKAM, flip, small_policy

REPOSITORY = Path(__file__).parents[3]


def checkpoint(seed: int = 0) -> Checkpoint:
    return Checkpoint(small_policy(seed), SMALL_SKAM, dict(SMALL_FINGERPRINT), {"seed": seed})


def published(root: Path, count: int) -> ProxyRegistry:
    registry = ProxyRegistry(root)
    for seed in range(1, count + 1):
        registry.publish("demo", checkpoint(seed))
    return registry


def publisher(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.publisher", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and standard output."""
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_versions_count_from_one_and_the_last_published_is_stable(tmp_path: Path) -> None:
    registry = published(tmp_path / "not" / "there" / "yet", 3)
    registry.publish("other", checkpoint(9))

    assert registry.names() == ["demo", "other"]
    assert registry.versions("demo") == [1, 2, 3]
    assert registry.resolve("demo") == ProxyRef(name="demo", version=3)
    assert registry.verify(registry.resolve("demo", 2)).card == {"seed": 2}
    assert registry.verify(registry.resolve("demo", "2"), SMALL_FINGERPRINT).card == {"seed": 2}
    assert registry.path(ProxyRef(name="other", version=1)) == registry.root / "other" / "1"


def test_a_version_under_another_alias_leaves_stable_alone(tmp_path: Path) -> None:
    registry = published(tmp_path, 1)

    registry.publish("demo", checkpoint(2), aliases=("canary",))
    registry.publish("demo", checkpoint(3), aliases=())

    assert registry.resolve("demo", "stable").version == 1
    assert registry.resolve("demo", "canary").version == 2
    assert registry.versions("demo") == [1, 2, 3]


def test_rolling_back_twice_goes_two_versions_back(tmp_path: Path) -> None:
    registry = published(tmp_path, 4)

    assert [registry.rollback("demo").version for _ in range(2)] == [3, 2]
    assert registry.resolve("demo").version == 2

    registry.promote("demo", 4)
    assert registry.rollback("demo").version == 2
    assert registry.rollback("demo").version == 1
    with pytest.raises(UnknownProxy, match="before"):
        registry.rollback("demo")
    assert registry.resolve("demo").version == 1


def test_promoting_what_is_stable_already_adds_nothing_to_roll_back_to(tmp_path: Path) -> None:
    registry = published(tmp_path, 2)

    registry.promote("demo", 2)

    assert registry.rollback("demo").version == 1


def test_a_rollback_passes_over_versions_that_were_deleted(tmp_path: Path) -> None:
    registry = published(tmp_path, 3)
    (tmp_path / "demo" / "2").rename(tmp_path / "elsewhere")

    assert registry.rollback("demo").version == 1


def test_a_damaged_version_does_not_become_stable(tmp_path: Path) -> None:
    registry = published(tmp_path, 3)
    flip(tmp_path / "demo" / "2" / "policy.safetensors", -1)

    with pytest.raises(BadCheckpoint, match="tampered"):
        registry.promote("demo", 2)
    with pytest.raises(BadCheckpoint, match="tampered"):
        registry.rollback("demo")

    assert registry.resolve("demo").version == 3


def test_the_number_of_a_deleted_version_is_not_given_again(tmp_path: Path) -> None:
    registry = published(tmp_path, 2)
    (tmp_path / "demo" / "2").rename(tmp_path / "elsewhere")

    assert registry.publish("demo", checkpoint(3)).version == 3


@pytest.mark.parametrize(
    "name", ["", "base", "..", ".", "../evil", "a/b", "/etc", "Upper", ".hidden", "-flag", "a" * 65, "a\n", "ä", "a:b"]
)
def test_a_name_that_could_lead_elsewhere_or_mislead_is_refused(tmp_path: Path, name: str) -> None:
    registry = published(tmp_path / "root", 1)

    with pytest.raises(InvalidParameter, match="name"):
        registry.publish(name, checkpoint())
    with pytest.raises(UnknownProxy):
        registry.resolve(name, 1)
    with pytest.raises(UnknownProxy):
        registry.rollback(name)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    assert registry.names() == ["demo"]


@pytest.mark.parametrize("alias", ["history", "3", "", "A", "../x"])
def test_an_alias_that_could_be_mistaken_is_refused_before_anything_is_written(tmp_path: Path, alias: str) -> None:
    with pytest.raises(InvalidParameter, match="alias"):
        ProxyRegistry(tmp_path).publish("demo", checkpoint(), aliases=(alias,))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [0, -1, 2, "2", "01", "1.0", "canary", "../1", "", 10**12])
def test_what_is_not_published_is_unknown(tmp_path: Path, version: int | str) -> None:
    registry = published(tmp_path, 1)

    with pytest.raises(UnknownProxy):
        registry.resolve("demo", version)


def test_a_version_that_is_a_link_is_listed_and_refused(tmp_path: Path) -> None:
    registry = published(tmp_path / "root", 1)
    (tmp_path / "root" / "demo" / "1").rename(tmp_path / "outside")
    (tmp_path / "root" / "demo" / "1").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "root" / "demo")

    assert registry.names() == ["demo"]
    with pytest.raises(BadCheckpoint) as caught:
        registry.verify(registry.resolve("demo", 1))
    assert caught.value.reason == "symlink"


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"stable": "1"}', '{"stable": 0}', '{"stable": 1, "history": 1}', '{"../x": 1}', '{"stable":'],
)
def test_an_alias_file_that_makes_no_sense_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    registry = published(tmp_path, 1)
    (tmp_path / "demo" / "aliases.json").write_text(content)

    with pytest.raises(BadCheckpoint, match=r"aliases\.json"):
        registry.resolve("demo", "stable")
    with pytest.raises(BadCheckpoint, match=r"aliases\.json"):
        registry.publish("demo", checkpoint(2))

    assert (tmp_path / "demo" / "aliases.json").read_text() == content
    assert registry.resolve("demo", 1).version == 1


def test_a_checkpoint_that_could_not_be_loaded_is_never_published(tmp_path: Path) -> None:
    registry = published(tmp_path, 1)
    wrong = Checkpoint(small_policy(), SMALL_SKAM, {**SMALL_FINGERPRINT, "hidden_size": 99})

    with pytest.raises(BadCheckpoint, match="hidden_size"):
        registry.publish("demo", wrong)

    assert registry.versions("demo") == [1]
    assert registry.remove_leftovers() == []


def test_everything_is_on_disk_before_the_step_that_relies_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = published(tmp_path, 1)
    synced: set[int] = set()
    synced_before: dict[str, set[int]] = {}
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def record_sync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def record(move: Callable[[Path, Path], None], source: Path, target: Path) -> None:
        synced_before[target.name] = set(synced)
        synced.clear()
        move(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "rename", partial(record, rename))
    monkeypatch.setattr(os, "replace", partial(record, replace))

    registry.publish("demo", checkpoint(2))

    version, names = tmp_path / "demo" / "2", (tmp_path / "demo").stat().st_ino
    aliases = (tmp_path / "demo" / "aliases.json").stat().st_ino
    files = {path.stat().st_ino for path in version.iterdir()}
    assert list(synced_before) == ["2", "aliases.json"]
    assert synced_before["2"] >= files | {version.stat().st_ino, aliases}
    assert synced_before["aliases.json"] == {names}
    assert synced == {names}


def test_killed_at_any_step_the_old_version_stays_and_the_next_start_cleans_up(tmp_path: Path) -> None:
    assert ended(publisher("kill", str(tmp_path)))[0] == 0
    roots = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(roots) > 40  # two deaths in each of: folders, six files opened, written and synced, renames

    stable, num_with_leftovers = [], 0
    for root in roots:
        registry = ProxyRegistry(root)
        stable.append(registry.resolve("demo").version)
        for version in registry.versions("demo"):
            assert registry.verify(ProxyRef(name="demo", version=version)).card == {"seed": version}
        num_with_leftovers += bool(registry.remove_leftovers())
        names = {path.name for path in (root / "demo").iterdir()}
        assert names <= {"1", "2", "aliases.json", ".lock"}, root
        assert registry.publish("demo", checkpoint(5)).version == 1 + max(map(int, names & {"1", "2"}))
    assert stable == sorted(stable)
    assert set(stable) == {1, 2}
    assert num_with_leftovers > 30


def test_killed_at_any_step_a_version_that_awaits_its_gates_is_not_there_or_is_held(tmp_path: Path) -> None:
    assert ended(publisher("gate", str(tmp_path)))[0] == 0

    seen = set()
    for root in tmp_path.iterdir():
        registry = ProxyRegistry(root)
        seen.add(len(registry.versions("demo")))
        assert registry.aliases("demo").versions == {"stable": 1}
        if 2 in registry.versions("demo"):
            with pytest.raises(GatesNotPassed):
                registry.promote("demo", 2)
    assert seen == {1, 2}


@pytest.mark.parametrize("max_bytes", [1, 300, 600, 900])
def test_when_files_cannot_grow_the_old_version_stays_and_nothing_is_left(tmp_path: Path, max_bytes: int) -> None:
    registry = published(tmp_path, 1)

    returncode, output = ended(publisher("fill", str(tmp_path), str(max_bytes)))

    assert (returncode, output) == (3, "File too large\n")
    assert registry.resolve("demo").version == 1
    assert registry.versions("demo") == [1]
    assert registry.remove_leftovers() == []
    assert registry.publish("demo", checkpoint(2)).version == 2


def test_on_a_full_disk_the_old_version_stays_and_nothing_is_left(tmp_path: Path) -> None:
    unshare = ("unshare", "--user", "--map-root-user", "--mount")
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    published(tmp_path / "before", 1)
    (tmp_path / "disk").mkdir()
    script = (
        'mount -t tmpfs -o size=24k none "$0/disk"; cp -r "$0"/before/. "$0/disk"; "$@"; echo $?; ls -A "$0/disk/demo"'
    )

    process = publisher("fill", str(tmp_path / "disk"), "0", prefix=(*unshare, "bash", "-c", script, str(tmp_path)))
    _, output = ended(process)

    assert output.splitlines() == ["No space left on device", "3", ".lock", "1", "aliases.json"]


def test_processes_that_publish_the_same_name_at_once_do_not_clash(tmp_path: Path) -> None:
    processes = [publisher("race", str(tmp_path), "15") for _ in range(3)]

    versions = [json.loads(ended(process)[1]) for process in processes]

    registry = ProxyRegistry(tmp_path)
    assert sorted(itertools.chain(*versions)) == list(range(1, 46)) == registry.versions("demo")
    assert registry.resolve("demo").version == 45
    assert registry.aliases("demo").history == tuple(range(1, 45))
    for version in registry.versions("demo"):
        registry.verify(ProxyRef(name="demo", version=version))


def test_a_reader_sees_only_whole_versions_while_others_publish(tmp_path: Path) -> None:
    registry = published(tmp_path, 1)
    writer = threading.Thread(target=lambda: [registry.publish("demo", checkpoint(seed)) for seed in range(2, 32)])
    writer.start()

    seen = []
    while writer.is_alive():
        ref = registry.resolve("demo")
        assert registry.verify(ref).card == {"seed": ref.version}
        seen.append(ref.version)
    writer.join()

    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_cleaning_up_waits_for_a_writer_that_is_alive(tmp_path: Path) -> None:
    registry = published(tmp_path, 1)
    staging = tmp_path / "demo" / ".staging-abc"

    with registry._writing("demo"):
        staging.mkdir()
        cleaner = threading.Thread(target=registry.remove_leftovers)
        cleaner.start()
        cleaner.join(0.3)
        assert staging.is_dir()
        assert cleaner.is_alive()
    cleaner.join(10)

    assert not staging.exists()


def test_data_lies_under_the_home_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_RLHF_HOME", str(tmp_path))
    assert proxies_root() == tmp_path / "proxies"

    monkeypatch.delenv("PROXY_RLHF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert proxies_root() == tmp_path / ".local/share/proxy-rlhf/proxies"


FAILED = Verdict(state="failed", against="stable 1", failures=("length_drift is 0.41, limit 0.25",))


def test_a_version_that_awaits_its_gates_gets_no_alias_until_they_are_passed(tmp_path: Path) -> None:
    registry = published(tmp_path, 1)

    ref = registry.publish("demo", checkpoint(2), awaits_gates=True)
    with pytest.raises(GatesNotPassed, match=r"demo@2 .* not been asked"):
        registry.promote("demo", 2)
    with pytest.raises(GatesNotPassed):
        registry.set_canary("demo", 2, 0.1)
    assert registry.aliases("demo").versions == {"stable": 1}

    registry.judge(ref, Verdict(state="passed", against="stable 1"))
    registry.promote("demo", 2)
    assert registry.resolve("demo").version == 2


def test_a_version_that_failed_is_refused_with_the_gate_unless_that_is_overridden(tmp_path: Path) -> None:
    registry = published(tmp_path, 1)
    registry.judge(registry.publish("demo", checkpoint(2), awaits_gates=True), FAILED)

    with pytest.raises(GatesNotPassed, match=r"length_drift is 0\.41, limit 0\.25"):
        registry.promote("demo", 2)
    assert registry.resolve("demo").version == 1
    assert registry.verdicts("demo").obstacles == {2: "length_drift is 0.41, limit 0.25"}

    registry.promote("demo", 2, is_forced=True)
    assert registry.resolve("demo").version == 2
    assert registry.verdicts("demo").obstacles == {}
    assert registry.verdicts("demo").by_version[2] == replace(FAILED, is_overridden=True)


def test_a_verdict_on_a_version_that_was_never_finished_is_not_the_next_one_s(tmp_path: Path) -> None:
    """Killed between the mark and the version: the number is given again, to a version without gates."""
    registry = published(tmp_path, 1)
    (tmp_path / "demo" / "gates.json").write_text('{"2": {"state": "pending", "against": "", "failures": []}}')

    registry.publish("demo", checkpoint(2))

    assert registry.resolve("demo").version == 2
    assert registry.verdicts("demo").obstacles == {}


@pytest.mark.parametrize(
    "content",
    ["[]", '{"x": {"state": "passed", "failures": []}}', '{"2": {"state": "good", "failures": []}}', '{"2": {}}', "{"],
)
def test_verdicts_that_make_no_sense_are_refused(tmp_path: Path, content: str) -> None:
    registry = published(tmp_path, 1)
    (tmp_path / "demo" / "gates.json").write_text(content)

    with pytest.raises(BadCheckpoint, match=r"gates\.json"):
        registry.promote("demo", 1)
