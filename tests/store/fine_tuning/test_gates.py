"""The gates of an order: what is kept of them, and what is refused by its dotted name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy_model.errors import InvalidParameter
from proxy_model.manifest import write_manifest
from proxy_model.paths import judges_root, rewards_root
from store.fine_tuning.gates import Gates
from store.fine_tuning.reward_models import judge_folders, reward_folders


def test_gates_survive_their_way_through_json() -> None:
    gates = Gates.parse({"judge": "calm", "min_reward_gain": -0.25, "max_kl": 3, "num_prompts": 12})

    assert gates.limits == {"min_reward_gain": -0.25, "max_kl": 3}
    assert Gates.parse(json.loads(json.dumps(gates.to_json()))) == gates
    assert gates.to_json() == {
        "judge": "calm",
        "num_prompts": 12,
        "max_tokens": 64,
        "min_reward_gain": -0.25,
        "max_kl": 3,
    }


@pytest.mark.parametrize(
    ("changed", "name", "allowed"),
    [
        ({"judge": None}, "gates.judge", "the name of a reward model, to have limits"),
        ({"judge": 7}, "gates.judge", "the name of a reward model"),
        ({"colour": 1}, "gates.colour", "left out; gates have ['judge'"),
        ({"num_prompts": 0}, "gates.num_prompts", "in [1, 1000]"),
        ({"num_prompts": 1001}, "gates.num_prompts", "in [1, 1000]"),
        ({"num_prompts": True}, "gates.num_prompts", "in [1, 1000]"),
        ({"max_tokens": 2.5}, "gates.max_tokens", "a whole number in [1, 4096]"),
        ({"max_kl": -0.1}, "gates.max_kl", "in [0, 1000]"),
        ({"max_kl": float("nan")}, "gates.max_kl", "in [0, 1000]"),
        ({"max_kl": "low"}, "gates.max_kl", "in [0, 1000]"),
        ({"max_latency_ratio": False}, "gates.max_latency_ratio", "in [0, 1000]"),
        ({"min_reward_gain": -1001}, "gates.min_reward_gain", "in [-1000, 1000]"),
    ],
)
def test_gates_that_cannot_be_asked_are_refused_by_name(changed: dict[str, Any], name: str, allowed: str) -> None:
    value: dict[str, Any] = {"judge": "calm", "max_kl": 3} | changed
    with pytest.raises(InvalidParameter) as refused:
        Gates.parse(value)

    assert refused.value.name == name
    assert allowed in str(refused.value)


def test_a_judge_may_only_look() -> None:
    assert Gates.parse({"judge": "calm"}).limits == {}
    assert Gates.parse({}).to_json() == {"num_prompts": 64, "max_tokens": 64}


@pytest.mark.parametrize(("root", "prefix"), [(rewards_root, ""), (judges_root, "judges/")])
def test_a_judge_is_a_reward_model_of_this_home(tmp_path: Path, root: Callable[[Path], Path], prefix: str) -> None:
    folder = root(tmp_path) / "calm"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    gates = Gates(judge=f"{prefix}calm", max_kl=3)
    with pytest.raises(InvalidParameter, match=r"gates\.judge.*'helpful'"):
        gates.judge_folder(tmp_path)

    write_manifest(folder)

    assert gates.judge_folder(tmp_path) == folder


def test_the_shipped_judges_share_no_name_with_the_rewards_that_train(tmp_path: Path) -> None:
    reward, judge = (Gates(judge=name).judge_folder(tmp_path) for name in ("helpful", "judges/helpful"))

    assert reward is not None
    assert judge is not None
    assert (reward.parent.name, judge.parent.name) == ("rewards", "judges")
    assert set(judge_folders(tmp_path)) - set(reward_folders(tmp_path)) == {"judges/harmless", "judges/helpful"}
