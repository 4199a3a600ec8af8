"""The settings of a run as `train` and `rollouts` take them: a file, then flags, then `--set NAME=VALUE`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy_model.errors import InvalidParameter
from proxy_model.paths import proxies_root

if TYPE_CHECKING:
    from trainer.config import TrainConfig

SettingsFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="TOML or JSON file of settings; flags win.")
]
Prompts = Annotated[
    list[Path] | None,
    typer.Option(exists=True, dir_okay=False, help="Prompts to answer, .jsonl or .jsonl.gz; repeatable."),
]
Rewards = Annotated[
    list[Path] | None,
    typer.Option(exists=True, file_okay=False, help="Folder of a reward model (`proxy-rlhf reward`); repeatable."),
]
Model = Annotated[str | None, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")]
NumPrompts = Annotated[int | None, typer.Option(help="Prompts to answer in all; 0: each once.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random number.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting: ppo.learning_rate=1e-4.")
]


def given(*, prompts: list[Path] | None, reward: list[Path] | None, **flags: object) -> dict[str, Any]:
    """The settings that flags name; None is a flag that was not given."""
    rewards = [{"type": "trained", "folder": folder} for folder in reward or ()]
    values = {"prompts": prompts or None, "rewards": rewards or None, **flags}
    return {name: value for name, value in values.items() if value is not None}


def make_config(settings: Path | None, flags: dict[str, Any], assignments: list[str] | None) -> "TrainConfig":
    """The settings of the file, then of `flags`, then of `NAME=VALUE`. Raises `InvalidParameter`."""
    from trainer.config_file import config_from_mapping, read_settings

    values = read_settings(settings) if settings else {}
    values["registry"] = flags.get("registry") or values.get("registry") or proxies_root()
    return config_from_mapping(changed(values, flags, assignments))


def changed(values: dict[str, Any], flags: dict[str, Any], assignments: list[str] | None) -> dict[str, Any]:
    """The settings `values` after flags and `NAME=VALUE`. Raises `InvalidParameter`."""
    values = {**values, **flags}
    for assignment in assignments or []:
        _assign(values, assignment)
    return values


def _assign(values: dict[str, Any], assignment: str) -> None:
    name, equals, text = assignment.partition("=")
    *path, last = name.split(".")
    if not equals or not last:
        raise InvalidParameter("set", assignment, "NAME=VALUE")
    table: Any = values
    for part in path:
        if table.get(part) is None:
            table[part] = {}
        table = table[part]
        if not isinstance(table, dict):
            raise InvalidParameter("set", name, "the dotted name of a setting, see trainer/config.py")
    table[last] = _parsed(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
