"""`proxy-rlhf evaluate`: proxies, the base and controls side by side on held-out prompts."""

from pathlib import Path
from typing import Annotated

import typer

from cli import console
from trainer.evaluation.system_name import ALLOWED


def evaluate(
    prompts: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Held-out prompts, .jsonl or .jsonl.gz.")],
    systems: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SYSTEM]...", help=f"{ALLOWED}. None: the rows of the evaluations given by --merge."),
    ] = None,
    reward: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="The reward model that trained the proxies.")
    ] = None,
    judge: Annotated[
        list[Path] | None, typer.Option(exists=True, file_okay=False, help="A reward model that did not; repeatable.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json, evaluation.md and answers.jsonl; an earlier one's goes on."),
    ] = None,
    merges: Annotated[
        list[Path] | None,
        typer.Option("--merge", exists=True, file_okay=False, help="An evaluation whose answers count; repeatable."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")
    ] = "smollm2-135m-instruct",
    registry: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of published proxies; default: the server's.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(exists=True, help="Folder or wheel of the judges' sentence encoder.")
    ] = None,
    source: Annotated[str, typer.Option(help="Only prompts whose source starts with this.")] = "",
    num_prompts: Annotated[int, typer.Option(min=0, help="The first ones of a shuffle; 0: all.")] = 300,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length at which answers are cut.")] = 128,
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Longer prompts are left out, and counted.")] = 256,
    max_running: Annotated[int, typer.Option(min=1, help="Answers side by side.")] = 32,
    dictionary: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Texts whose words count as words; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    num_shown: Annotated[int, typer.Option(min=0, help="Prompts whose answers are kept with every decision.")] = 20,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html with its pictures and numbers.")
    ] = False,
    card: Annotated[bool, typer.Option("--card", help="Also write a card for every proxy.")] = False,
) -> None:
    """Compare proxies with the base on held-out prompts: rewards, win rates, fluency, rejections."""
    from trainer.evaluation.config import EvaluationConfig
    from trainer.evaluation.evaluate import evaluate as run_evaluation

    config = EvaluationConfig(
        prompts=prompts,
        systems=tuple(systems or ()),
        reward=reward,
        judges=tuple(judge or ()),
        output=output,
        merges=tuple(merges or ()),
        model=model,
        registry=registry,
        encoder=encoder,
        source=source,
        num_prompts=num_prompts,
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_running=max_running,
        dictionary=tuple(dictionary or ()),
        seed=seed,
        num_shown=num_shown,
        report=report,
        card=card,
    )
    run_evaluation(config, console=console.out)
