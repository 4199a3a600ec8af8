"""Which versions get their alias, and what a run that dies on the way leaves."""

import json
from pathlib import Path

import pytest

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import GatesNotPassed, InvalidParameter
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.held_out.runs import ShortnessReward, held_out_config, parts_with_judge
from tests.trainer.runs import small_config
from trainer.config_file import config_from_mapping, config_to_mapping
from trainer.held_out.config import EarlyStoppingConfig, GatesConfig
from trainer.held_out.examiner import Examiner
from trainer.loop import train

GENEROUS = GatesConfig(max_kl=50.0, max_rejections_per_token=20.0, max_garble_rise=1.0)


def test_a_version_that_passes_gets_its_alias(tmp_path: Path) -> None:
    config = held_out_config(tmp_path / "run", iterations=1, gates=GENEROUS, alias="canary")

    result = train(config, parts=parts_with_judge(config))

    registry = ProxyRegistry(config.registry_folder)
    assert registry.aliases("tiny").versions == {"canary": 1}
    verdict = registry.verdicts("tiny").by_version[1]
    assert (verdict.against, verdict.prompts) == ("base", "12 of 20 prompts")
    assert [each.state for each in result.verdicts.values()] == ["passed"]
    line = json.loads((config.output / "gates.jsonl").read_text())
    assert [each["gate"] for each in line["readings"]] == ["garble_rise", "kl", "rejections_per_token"]
    assert 0 < line["readings"][1]["value"] < 50


def test_a_version_that_fails_is_kept_marked_and_not_made_stable(tmp_path: Path) -> None:
    """The judge likes short answers, the reward long ones."""
    gates = GatesConfig(min_reward_gain=0.0, max_rejections_per_token=20.0)
    config = held_out_config(tmp_path / "run", iterations=12, gates=gates)

    result = train(config, parts=parts_with_judge(config, ShortnessReward()))

    registry = ProxyRegistry(config.registry_folder)
    ref = ProxyRef("tiny", 1)
    assert result.published == (ref,)
    assert registry.aliases("tiny").versions == {}
    assert registry.verify(ref).card["iterations"] == 12
    verdict = result.verdicts[ref]
    assert verdict == registry.verdicts("tiny").by_version[1]
    assert [line.partition(" ")[0] for line in verdict.failures] == ["reward_gain"]
    with pytest.raises(GatesNotPassed, match="reward_gain is -"):
        registry.promote("tiny", 1)


def test_a_version_is_held_against_that_which_is_stable(tmp_path: Path) -> None:
    proxies = tmp_path / "proxies"
    first = held_out_config(tmp_path / "1", iterations=12, registry=proxies, gates=GENEROUS)
    train(first, parts=parts_with_judge(first))
    second = held_out_config(tmp_path / "2", iterations=1, registry=proxies, gates=GatesConfig(min_reward_gain=0.0))

    result = train(second, parts=parts_with_judge(second))

    assert result.verdicts[ProxyRef("tiny", 2)].against == "stable 1"
    assert result.verdicts[ProxyRef("tiny", 2)].state == "failed"  # one iteration from scratch against twelve
    assert ProxyRegistry(proxies).aliases("tiny").versions == {"stable": 1}


@pytest.mark.parametrize("dies_in", ["examine", "judge", "promote"])
def test_a_run_that_dies_on_the_way_to_its_alias_ends_with_one_version_that_has_it(
    dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = held_out_config(tmp_path / "run", iterations=2, gates=GENEROUS)
    owner = Examiner if dies_in == "examine" else ProxyRegistry
    with monkeypatch.context() as patch:
        patch.setattr(owner, dies_in, _die)
        with pytest.raises(KeyboardInterrupt):
            train(config, parts=parts_with_judge(config))

    registry = ProxyRegistry(config.registry_folder)
    assert (registry.versions("tiny"), registry.aliases("tiny").versions) == ([1], {})
    result = train(config, parts=parts_with_judge(config), is_resumed=True)
    assert (registry.versions("tiny"), registry.aliases("tiny").versions) == ([1], {"stable": 1})
    assert result.verdicts[ProxyRef("tiny", 1)].state == "passed"


def test_a_verdict_that_is_there_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = held_out_config(tmp_path / "run", iterations=2, gates=GENEROUS)
    with monkeypatch.context() as patch:
        patch.setattr(ProxyRegistry, "promote", _die)
        with pytest.raises(KeyboardInterrupt):
            train(config, parts=parts_with_judge(config))

    monkeypatch.setattr(Examiner, "examine", _die)
    train(config, parts=parts_with_judge(config), is_resumed=True)

    assert ProxyRegistry(config.registry_folder).aliases("tiny").versions == {"stable": 1}


def test_gates_and_early_stopping_need_a_judge(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="held_out"):
        small_config(tmp_path, iterations=1, gates=GENEROUS)
    with pytest.raises(InvalidParameter, match="held_out"):
        small_config(tmp_path, iterations=1, early_stopping=EarlyStoppingConfig())
    with pytest.raises(InvalidParameter, match="publish_every"):
        held_out_config(tmp_path, iterations=1, early_stopping=EarlyStoppingConfig(), publish_every=2)


def test_the_tables_of_a_file_become_settings_and_back(tmp_path: Path) -> None:
    values: dict[str, object] = {
        "output": "o",
        "prompts": "p",
        "rewards": [{"type": "trained", "folder": "r"}],
        "proxy": "tiny",
    }
    tables = {"held_out": {"prompts": "h", "judge": "j"}, "gates": {"max_kl": 1}, "early_stopping": {"every": 2}}

    config = config_from_mapping({**values, **tables})

    assert config.gates == GatesConfig(max_kl=1.0)
    assert config_from_mapping(config_to_mapping(config)) == config
    assert config_to_mapping(config)["held_out"]["judge"] == "j"
    with pytest.raises(InvalidParameter, match=r"held_out\.judge"):
        config_from_mapping({**values, **tables, "held_out": {"prompts": "h"}})
    with pytest.raises(InvalidParameter, match=r"gates\.max_kl"):
        config_from_mapping({**values, **tables, "gates": {"max_kl": -1.0}})


def _die(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt
