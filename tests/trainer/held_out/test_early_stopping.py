import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.held_out.runs import ShortnessReward, held_out_config, parts_with_judge
from tests.trainer.runs import run, small_config
from trainer.config import TrainConfig
from trainer.held_out.config import EarlyStoppingConfig, GatesConfig
from trainer.held_out.examiner import Examiner
from trainer.loop import Supervision, TrainResult, train


def stopping_config(output: Path, *, every: int = 1, patience: int = 3, **changes: object) -> TrainConfig:
    stopping = EarlyStoppingConfig(every=every, patience=patience)
    return held_out_config(output, iterations=12, early_stopping=stopping, save_every=1, **changes)


def rows_of(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]


def train_against_the_judge(config: TrainConfig, *, is_resumed: bool = False) -> TrainResult:
    return train(config, parts=parts_with_judge(config, ShortnessReward()), is_resumed=is_resumed)


def test_a_run_that_the_judge_does_not_like_better_any_more_ends_early_with_its_best_version(tmp_path: Path) -> None:
    config = stopping_config(tmp_path / "run")

    result = train_against_the_judge(config)

    judged = [row["held_out/judge"] for row in rows_of(config)]
    best = judged.index(max(judged)) + 1
    assert result.iterations == best + 3 < 12
    card = ProxyRegistry(config.registry_folder).verify(ProxyRef("tiny", 1)).card
    assert (card["iterations"], card["metrics"]["held_out/judge"]) == (best, max(judged))
    assert card["prompts_seen"] == 16 * best
    assert {row["held_out/best_iteration"] for row in rows_of(config)[-3:]} == {best}


def test_the_version_has_the_weights_of_the_best_iteration(tmp_path: Path) -> None:
    """A run that only ends there has them, too: the learning rate is planned for the same twelve iterations."""
    config = stopping_config(tmp_path / "run")
    train_against_the_judge(config)
    policy = ProxyRegistry(config.registry_folder).verify(ProxyRef("tiny", 1)).policy
    best = int(rows_of(config)[-1]["held_out/best_iteration"])

    other = small_config(tmp_path / "other", iterations=12, publish_every=best)
    run(other)

    expected = ProxyRegistry(other.registry_folder).verify(ProxyRef("tiny", 1)).policy.state_dict()
    assert all(torch.equal(weights, expected[name]) for name, weights in policy.state_dict().items())


def test_a_run_that_the_judge_likes_goes_on_to_its_end(tmp_path: Path) -> None:
    config = stopping_config(tmp_path / "run", every=5, patience=4)

    result = train(config, parts=parts_with_judge(config))

    assert result.iterations == 12
    looked = [row["progress/iteration"] for row in rows_of(config) if "held_out/judge" in row]
    assert looked == [5, 10, 12]
    assert rows_of(config)[4]["held_out/judge"] == rows_of(config)[4]["held_out/reward"]  # both pay length


@pytest.mark.parametrize("kill_after", [1, 3, "publish"])
def test_a_run_that_is_killed_on_its_way_stops_where_the_unbroken_one_does(
    kill_after: int | str, tmp_path: Path
) -> None:
    whole, broken = stopping_config(tmp_path / "whole"), stopping_config(tmp_path / "broken")
    train_against_the_judge(whole)

    def die_at(row: Mapping[str, float], warnings: list[str]) -> None:
        if row["progress/iteration"] == kill_after:
            raise KeyboardInterrupt

    def die_on_publish(ref: ProxyRef, row: Mapping[str, float]) -> None:
        if kill_after == "publish":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            broken,
            parts=parts_with_judge(broken, ShortnessReward()),
            on_iteration=die_at,
            supervision=Supervision(on_publish=die_on_publish),
        )
    train_against_the_judge(broken, is_resumed=True)

    registries = [ProxyRegistry(config.registry_folder) for config in (whole, broken)]
    assert [each.versions("tiny") for each in registries] == [[1], [1]]
    first, second = (each.verify(ProxyRef("tiny", 1)).policy.state_dict() for each in registries)
    assert all(torch.equal(weights, second[name]) for name, weights in first.items())
    assert len(rows_of(whole)) == len(rows_of(broken))


def test_gates_are_asked_on_prompts_that_no_look_has_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, set[tuple[int, ...]]] = {"look": set(), "examine": set()}

    def note(name: str, method: Callable[..., Any]) -> None:
        def noted(self: Examiner, *arguments: Any) -> Any:
            asked[name] |= {prompt.token_ids for prompt in self.prompts}
            return method(self, *arguments)

        monkeypatch.setattr(Examiner, name, noted)

    note("look", Examiner.look)
    note("examine", Examiner.examine)
    config = stopping_config(tmp_path / "run", every=4, gates=GatesConfig(max_rejections_per_token=20.0))

    result = train(config, parts=parts_with_judge(config))

    assert len(asked["look"]) == len(asked["examine"]) == 6
    assert not asked["look"] & asked["examine"]
    assert [each.prompts for each in result.verdicts.values()] == ["half of 12 of 20 prompts"]
