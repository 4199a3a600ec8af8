"""`proxy-rlhf rollouts`: scored answers for offline runs, made once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from cli import console
from cli.run_settings import Assignments, Model, NumPrompts, Prompts, Rewards, Seed, SettingsFile, given, make_config


def rollouts(
    output: Annotated[Path, typer.Option(help="Folder of the answers; begun and killed, it is finished.")],
    settings: SettingsFile = None,
    prompts: Prompts = None,
    reward: Rewards = None,
    model: Model = None,
    start: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Run or version that answers; left out: version 0."),
    ] = None,
    num_prompts: NumPrompts = None,
    answers: Annotated[int | None, typer.Option(min=1, help="Answers to each prompt.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="The LLM alone answers, and its answers are replayed.")
    ] = False,
    seed: Seed = None,
    set_: Assignments = None,
) -> None:
    """Answer prompts, score the answers, and keep both for `train` with `data`."""
    from trainer.loop import load_parts
    from trainer.offline.collect import collect

    flags = given(prompts=prompts, reward=reward, model=model, start=start, num_prompts=num_prompts, seed=seed)
    per_prompt = [] if answers is None else [f"rollout.responses_per_prompt={answers}"]
    named = {} if settings else {"proxy": "answers"}
    config = make_config(settings, {"output": output, **named, **flags}, [*per_prompt, *(set_ or [])])
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err) as progress:
        task = progress.add_task("shards", total=None)
        summary = collect(
            config,
            load_parts(config),
            is_plain=plain,
            on_shard=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print_summary(summary)


def print_summary(summary: Mapping[str, float]) -> None:
    """What is in a folder of answers, one number a line."""
    for name, value in summary.items():
        console.out.print(f"{name.replace('_', ' ')}: {value:.6g}", highlight=False)
