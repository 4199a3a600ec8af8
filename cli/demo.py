"""`proxy-rlhf demo`: retrain a small proxy from the shipped data while a server picks up every version."""

from typing import Annotated

import typer


def demo(
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts to train on.")] = 480,
    url: Annotated[
        str | None, typer.Option(help="The server to ask; started here unless one answers. Default: HOST and PORT.")
    ] = None,
) -> int:
    """Retrain a small proxy from the shipped data, live, in minutes on a laptop's CPU."""
    from trainer.demo import main

    return main(num_prompts, url)
