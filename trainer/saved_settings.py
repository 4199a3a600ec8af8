"""The settings that a run was begun with, which may have been by an older version of this package.

A setting that has come since has its default. Where one has gone, the run cannot be resumed, and the error says so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy_model.errors import InvalidParameter
from trainer.config import TrainConfig
from trainer.config_file import config_from_mapping, config_to_mapping, read_settings

SETTINGS_FILE = "settings.json"
"""What a run writes into its output folder, and what resumes it reads."""

_BEFORE_REWARDS = ("reward", "second_reward", "second_weight")
"""What said before there was `[[rewards]]` what a run is rewarded by."""


def read_saved_config(path: Path, *, output: Path) -> TrainConfig:
    """From the settings file of the run in `output`. Raises `InvalidParameter`."""
    return saved_config({**read_settings(path), "output": output})


def completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings as this version would have saved them. Raises `InvalidParameter`."""
    return config_to_mapping(saved_config(saved))


def saved_config(values: Mapping[str, Any]) -> TrainConfig:
    """The settings that a run has saved. Raises `InvalidParameter`."""
    if values.keys() & set(_BEFORE_REWARDS):
        begun = "a run that was begun with [[rewards]], which have taken the place of `reward` and `second_reward`"
        advice = "only the version that began this one can resume it, and a new run can have it as its `start`"
        raise InvalidParameter("output", str(values.get("output")), f"{begun}: {advice}")
    return config_from_mapping(values)
