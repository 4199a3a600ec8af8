"""`proxy-rlhf reward`: a reward model out of preference pairs, and how good it is."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import console


def reward(
    output: Annotated[Path, typer.Option(help="Folder of the reward model, which must not exist yet.")],
    train: Annotated[
        list[Path], typer.Option(exists=True, dir_okay=False, help="Preference pairs, .jsonl or .jsonl.gz; repeatable.")
    ],
    test: Annotated[
        list[Path] | None, typer.Option(exists=True, dir_okay=False, help="Held-out pairs to report on; repeatable.")
    ] = None,
    kind: Annotated[
        Literal["frozen_head", "sentence_judge", "lora"],
        typer.Option(help="On the frozen LLM's states, an independent judge on a sentence encoder's, or adapters."),
    ] = "frozen_head",
    half: Annotated[
        Literal["all", "reward", "judge"], typer.Option(help="Which pairs to use; a judge shares none with a reward.")
    ] = "all",
    model: Annotated[
        str, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")
    ] = "smollm2-135m-instruct",
    encoder: Annotated[
        Path | None, typer.Option(exists=True, help="Folder or wheel of the judge's sentence encoder.")
    ] = None,
    taps: Annotated[list[int] | None, typer.Option(help="Layer to read; repeatable.")] = None,
    with_last_token: Annotated[
        bool, typer.Option("--with-last-token", help="Of a head: read the last token's states beside the mean.")
    ] = False,
    with_prompt: Annotated[
        bool, typer.Option("--with-prompt", help="Of a judge: also read the answer after its prompt.")
    ] = False,
    cuts: Annotated[
        list[int] | None, typer.Option(min=1, help="Length at which each answer is read; repeatable, rising.")
    ] = None,
    l2: Annotated[
        list[float] | None, typer.Option(help="Strength to choose from by cross-validation; repeatable.")
    ] = None,
    length_control: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the score's slope on log(length) to take out; unless given, all of a head's.",
        ),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Earlier frozen head to start from and stay near.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Of lora: rank of the adapters.")] = 8,
    layers: Annotated[int, typer.Option(min=1, help="Of lora: layers with adapters, down from the one read.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Of lora.")] = 1,
    batch_pairs: Annotated[int, typer.Option(min=1, help="Of lora.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Of lora; falls to 0.")] = 2e-4,
    max_pairs: Annotated[int, typer.Option(min=0, help="Pairs to learn from; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train a reward model on preference pairs; prints its held-out accuracy beside simple baselines."""
    from trainer.rewards.train import train_reward
    from trainer.rewards.training_config import DEFAULT_CUTS, DEFAULT_L2, LoraConfig, RewardTrainingConfig

    config = RewardTrainingConfig(
        output=output,
        train=tuple(train),
        test=tuple(test or ()),
        kind=kind,
        half=half,
        model=model,
        encoder=encoder,
        taps=tuple(taps) if taps else None,
        with_last_token=with_last_token,
        with_prompt=with_prompt,
        length_control=length_control,
        max_pairs=max_pairs,
        seed=seed,
        cuts=tuple(cuts or DEFAULT_CUTS),
        l2=tuple(l2 or DEFAULT_L2),
        start=start,
        lora=LoraConfig(rank=rank, layers=layers, epochs=epochs, batch_pairs=batch_pairs, learning_rate=learning_rate),
    )
    train_reward(config, console=console.out)
