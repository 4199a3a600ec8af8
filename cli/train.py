"""`proxy-rlhf train`: one training run, shown as a live table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console
from cli.run_settings import (
    Assignments,
    Model,
    NumPrompts,
    Prompts,
    Rewards,
    Seed,
    SettingsFile,
    changed,
    given,
    make_config,
)
from proxy_model.errors import InvalidParameter

if TYPE_CHECKING:
    from trainer.config import TrainConfig


def train(
    output: Annotated[Path, typer.Option(help="Folder of the run: state, logs, settings.")],
    settings: SettingsFile = None,
    prompts: Prompts = None,
    reward: Rewards = None,
    proxy: Annotated[str | None, typer.Option(help="Name that the versions are published under.")] = None,
    model: Model = None,
    num_prompts: NumPrompts = None,
    seed: Seed = None,
    registry: Annotated[
        Path | None, typer.Option(help="Folder of published proxies; a server watches $PROXY_RLHF_HOME/proxies.")
    ] = None,
    set_: Assignments = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in the output folder, with the settings of its weights."),
    ] = False,
) -> None:
    """Train a proxy against rewards, or on answers made once, and publish its versions."""
    from trainer.config_file import read_settings
    from trainer.saved_settings import SETTINGS_FILE, saved_config

    flags = given(
        prompts=prompts,
        reward=reward,
        proxy=proxy,
        model=model,
        num_prompts=num_prompts,
        seed=seed,
        registry=registry,
    )
    if resume:
        _refuse_with_resume(settings, flags)
        saved = read_settings(output / SETTINGS_FILE)
        config = saved_config(changed(saved, {"output": output, **flags}, set_))
    else:
        config = make_config(settings, {"output": output, **flags}, set_)
    _run(config, is_resumed=resume)


def _refuse_with_resume(settings: Path | None, flags: dict[str, Any]) -> None:
    """A resumed run is its own settings. What of them may be another now is looked at where its state is read."""
    refused = ["settings"] if settings else [name for name in flags if name != "registry"]
    if refused:
        allowed = "left out with --resume: the run's own settings are read"
        raise InvalidParameter(refused[0], flags.get(refused[0], "given"), allowed)


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
