"""`proxy-rlhf train`: one training run, shown as a live table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console
from proxy_model.errors import InvalidParameter
from proxy_model.paths import proxies_root

if TYPE_CHECKING:
    from trainer.config import TrainConfig

SETTINGS_FILE = "settings.json"
"""What a run writes into its output folder, and `--resume` reads."""


def train(
    output: Annotated[Path, typer.Option(help="Folder of the run: state, logs, settings.")],
    settings: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML or JSON file of settings; flags win.")
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Prompts to answer, .jsonl or .jsonl.gz; repeatable."),
    ] = None,
    reward: Annotated[
        list[Path] | None,
        typer.Option(exists=True, file_okay=False, help="Folder of a reward model (`proxy-rlhf reward`); repeatable."),
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="Name that the versions are published under.")] = None,
    model: Annotated[str | None, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")] = None,
    num_prompts: Annotated[int | None, typer.Option(help="Prompts to answer in all; 0: each once.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random number.")] = None,
    registry: Annotated[
        Path | None, typer.Option(help="Folder of published proxies; a server watches $PROXY_RLHF_HOME/proxies.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting: ppo.learning_rate=1e-4.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in the output folder, with the settings of its weights.",
        ),
    ] = False,
) -> None:
    """Train a proxy against rewards, or on answers made once, and publish its versions."""
    from trainer.config_file import read_settings
    from trainer.saved_settings import saved_config

    flags: dict[str, Any] = {
        "prompts": prompts or None,
        "rewards": [{"type": "trained", "folder": folder} for folder in reward] if reward else None,
        "proxy": proxy,
        "model": model,
        "num_prompts": num_prompts,
        "seed": seed,
        "registry": registry,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    if resume:
        _refuse_with_resume(settings, given)
        saved = read_settings(output / SETTINGS_FILE)
        config = saved_config(_changed(saved, {"output": output, **given}, set_))
    else:
        config = make_config(settings, {"output": output, **given}, set_)
    _run(config, is_resumed=resume)


def make_config(settings: Path | None, flags: dict[str, Any], assignments: list[str] | None) -> "TrainConfig":
    """The settings of the file, then of `flags`, then of `NAME=VALUE`. Raises `InvalidParameter`."""
    from trainer.config_file import config_from_mapping, read_settings

    values = read_settings(settings) if settings else {}
    values["registry"] = flags.get("registry") or values.get("registry") or proxies_root()
    return config_from_mapping(_changed(values, flags, assignments))


def _changed(values: dict[str, Any], flags: dict[str, Any], assignments: list[str] | None) -> dict[str, Any]:
    """The settings `values` after flags and `NAME=VALUE`. Raises `InvalidParameter`."""
    values = {**values, **flags}
    for assignment in assignments or []:
        _assign(values, assignment)
    return values


def _refuse_with_resume(settings: Path | None, flags: dict[str, Any]) -> None:
    """A resumed run is its own settings. What of them may be another now is looked at where its state is read."""
    refused = ["settings"] if settings else [name for name in flags if name != "registry"]
    if refused:
        allowed = "left out with --resume: the run's own settings are read"
        raise InvalidParameter(refused[0], flags.get(refused[0], "given"), allowed)


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


def _run(config: "TrainConfig", *, is_resumed: bool) -> None:
    from trainer.live_table import LiveTable
    from trainer.loop import Supervision
    from trainer.loop import train as run_training
    from trainer.service.needed_by_jobs import needed_by_jobs

    supervision = Supervision(spared=needed_by_jobs)
    with LiveTable(console.out) as table:
        result = run_training(config, is_resumed=is_resumed, on_iteration=table.show, supervision=supervision)
    published = ", ".join(map(str, result.published)) or "nothing"
    console.out.print(f"published {published} in {config.registry_folder}", highlight=False, soft_wrap=True)
    for ref, verdict in result.verdicts.items():
        if verdict.obstacle is not None:
            why = f"{ref} did not pass its gates against {verdict.against}: {verdict.obstacle}"
            console.out.print(why, highlight=False, soft_wrap=True, style="yellow")
