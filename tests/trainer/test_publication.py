from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import OutputTaken, StoreUnavailable
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.bad_checkpoints import SMALL_FINGERPRINT, SMALL_SKAM, small_policy
from tests.trainer.runs import parts_in_miniature, run, small_config
from trainer.algorithm_config import PpoConfig
from trainer.lock import sole_trainer
from trainer.loop import Supervision, train
from trainer.publication import publish_once

CARD = {"settings": {"output": "a", "seed": 3}, "iterations": 4, "metrics": {"speed/rollout_seconds": 2.0}}


def checkpoint(**changes: Any) -> Checkpoint:
    return Checkpoint(small_policy(1), SMALL_SKAM, dict(SMALL_FINGERPRINT), {**CARD, **changes})


@pytest.mark.parametrize(
    ("changes", "versions"),
    [
        ({"metrics": {"speed/rollout_seconds": 9.0}}, [1]),  # the same iteration, done again on a slower machine
        ({"iterations": 5}, [1, 2]),
        ({"settings": {"output": "b", "seed": 3}}, [1, 2]),  # another run
    ],
)
def test_an_iteration_of_a_run_is_published_once(changes: dict[str, Any], versions: list[int], tmp_path: Path) -> None:
    registry = ProxyRegistry(tmp_path)
    registry.publish("calm", checkpoint())

    ref = publish_once(registry, "calm", checkpoint(**changes), "stable")

    assert registry.versions("calm") == versions
    assert ref.version == versions[-1]


def test_a_version_that_was_killed_before_it_got_its_alias_gets_it_now(tmp_path: Path) -> None:
    registry = ProxyRegistry(tmp_path)
    registry.publish("calm", checkpoint(iterations=2))
    registry.publish("calm", checkpoint(), aliases=())

    publish_once(registry, "calm", checkpoint(), "stable")

    assert registry.aliases("calm").versions == {"stable": 2}


def test_an_alias_that_has_moved_on_is_left_where_it_is(tmp_path: Path) -> None:
    registry = ProxyRegistry(tmp_path)
    registry.publish("calm", checkpoint())
    registry.publish("calm", checkpoint(settings={}))

    assert publish_once(registry, "calm", checkpoint(), "stable").version == 1
    assert registry.aliases("calm").versions == {"stable": 2}


def test_a_run_publishes_under_the_alias_of_its_settings(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=1, alias="canary")

    run(config)

    assert ProxyRegistry(config.registry_folder).aliases("tiny").versions == {"canary": 1}


def test_a_run_that_starts_from_another_s_version_starts_with_its_weights(tmp_path: Path) -> None:
    """Under a learning rate of next to nothing the first batch leaves the actor as it was."""
    first = small_config(tmp_path / "first", iterations=3, registry=tmp_path / "proxies")
    learnt = run(first).policy.actor.output.weight
    ppo = PpoConfig(learning_rate=1e-12)

    starts = (tmp_path / "proxies" / "tiny" / "1", tmp_path / "first")
    others = [
        run(small_config(tmp_path / f"{n}", iterations=1, start=start, ppo=ppo)) for n, start in enumerate(starts)
    ]

    for other in others:
        assert other.policy.actor.output.weight.equal(learnt)


def test_a_stopped_run_is_saved_where_it_is_and_says_that_it_is_not_done(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=5, save_every=4)
    answers = iter([False, False, True])

    stopped = train(config, parts=parts_in_miniature(), supervision=Supervision(must_stop=lambda: next(answers)))
    resumed = run(config, is_resumed=True)

    assert (stopped.is_done, stopped.iterations) == (False, 2)
    assert (resumed.is_done, resumed.iterations, len(resumed.published)) == (True, 5, 1)


@pytest.mark.parametrize(
    ("keep", "spared", "left"),
    [(0, (), [1, 2, 3, 4, 5]), (1, (), [4, 5]), (1, (2,), [2, 4, 5]), (3, (), [3, 4, 5])],  # a rollback returns to 4
)
def test_a_run_keeps_so_many_of_its_versions(
    keep: int, spared: tuple[int, ...], left: list[int], tmp_path: Path
) -> None:
    config = small_config(tmp_path / "run", iterations=5, publish_every=1, keep_versions=keep)

    train(config, parts=parts_in_miniature(), supervision=Supervision(spared=lambda proxy: spared))

    assert ProxyRegistry(config.registry_folder).versions("tiny") == left


def test_nothing_is_deleted_while_nobody_can_say_what_is_needed(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=4, publish_every=1, keep_versions=1)
    asked: list[str] = []

    def spared(proxy: str) -> list[int]:
        asked.append(proxy)
        if len(asked) < 4:
            raise StoreUnavailable("it is gone")
        return [2]

    published = iter([[1], [1, 2], [1, 2, 3], [2, 3, 4]])

    def look(ref: ProxyRef, row: Mapping[str, float]) -> None:
        assert ProxyRegistry(config.registry_folder).versions("tiny") == next(published)

    result = train(config, parts=parts_in_miniature(), supervision=Supervision(spared=spared, on_publish=look))

    assert result.is_done
    assert asked == ["tiny"] * 4


def test_a_run_that_goes_on_may_keep_another_number(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=5, publish_every=1)
    answers = iter([False, False, False, True])
    train(config, parts=parts_in_miniature(), supervision=Supervision(must_stop=lambda: next(answers)))

    run(replace(config, keep_versions=2), is_resumed=True)

    assert ProxyRegistry(config.registry_folder).versions("tiny") == [4, 5]


def test_a_folder_in_which_another_trainer_works_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=1)

    with sole_trainer(config.output), pytest.raises(OutputTaken):
        run(config)

    assert not config.output.exists()


def test_a_run_that_dies_between_publishing_and_saving_publishes_once(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", iterations=3, publish_every=2)

    def die(ref: ProxyRef, row: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, parts=parts_in_miniature(), supervision=Supervision(on_publish=die))
    resumed = run(config, is_resumed=True)

    assert [ref.version for ref in resumed.published] == [1, 2]
    assert ProxyRegistry(config.registry_folder).versions("tiny") == [1, 2]
