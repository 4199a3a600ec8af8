"""Runs that an older version of the package has begun."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from cli.main import main
from proxy_model.errors import InvalidParameter
from tests.trainer.runs import parts_in_miniature, run, small_config
from trainer.config import TrainConfig
from trainer.loop import Supervision, train
from trainer.parts import new_policy
from trainer.saved_settings import SETTINGS_FILE, read_saved_config
from trainer.state import STATE_FILE


def begun(output: Path) -> TrainConfig:
    """A run that was left after the first of its three iterations."""
    config = small_config(output, iterations=3, save_every=1)
    stopped = iter([False, True])
    train(config, parts=parts_in_miniature(), supervision=Supervision(must_stop=lambda: next(stopped)))
    return config


def rewritten(folder: Path, **changes: Any) -> None:
    """Give the run in `folder` other settings; None takes one away."""

    def changed(settings: dict[str, Any]) -> str:
        return json.dumps({name: each for name, each in {**settings, **changes}.items() if each is not None})

    path = folder / SETTINGS_FILE
    path.write_text(changed(json.loads(path.read_text())))
    with safe_open(folder / STATE_FILE, framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, folder / STATE_FILE, {**header, "settings": changed(json.loads(header["settings"]))})


OF_OLD = {"rewards": None, "reward": "demo/rewards/helpful", "second_reward": None, "second_weight": 0.5}


def test_a_run_from_before_a_setting_was_there_is_resumed_with_its_default(tmp_path: Path) -> None:
    config = begun(tmp_path / "run")
    rewritten(tmp_path / "run", value=None, early_stopping=None, tensorboard=None)

    saved = read_saved_config(tmp_path / "run" / SETTINGS_FILE, output=tmp_path / "run")
    assert (saved.value, saved.tensorboard) == (config.value, True)

    assert run(config, is_resumed=True).iterations == 3


def test_a_resumed_run_has_its_own_settings_and_those_that_may_change_from_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = begun(tmp_path / "run")
    resumed: list[TrainConfig] = []
    monkeypatch.setattr("cli.train._run", lambda config, is_resumed: resumed.append(config))
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    asked = ["--registry", str(tmp_path / "proxies"), "--set", "keep_versions=3", "--set", "seed=7"]

    assert main(["train", "--resume", "--output", str(moved), *asked]) == 0

    changed = replace(config, output=moved, registry=tmp_path / "proxies", keep_versions=3)
    assert resumed == [replace(changed, seed=7)]
    assert run(changed, is_resumed=True).iterations == 3
    with pytest.raises(InvalidParameter, match="seed"):
        run(resumed[0], is_resumed=True)


def test_a_run_from_before_there_were_rewards_is_not_resumed_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = begun(tmp_path / "run")
    rewritten(tmp_path / "run", **OF_OLD)

    assert main(["train", "--resume", "--output", str(tmp_path / "run")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "output must be a run that was begun with [[rewards]]" in said
    assert "a new run can have it as its `start`" in said

    with pytest.raises(InvalidParameter, match="begun with") as refused:  # as a job's trainer, which knows its settings
        run(config, is_resumed=True)
    assert refused.value.name == "output"


def test_such_a_run_can_be_the_start_of_another(tmp_path: Path) -> None:
    config = begun(tmp_path / "run")
    parts = parts_in_miniature()
    rewritten(tmp_path / "run", **OF_OLD)

    started = new_policy(small_config(tmp_path / "next", iterations=1, start=config.output, seed=8), parts.llm)

    with safe_open(config.output / STATE_FILE, framework="pt") as file:
        for name, weights in started.state_dict().items():
            assert weights.equal(file.get_tensor(f"policy.{name}")), name
