"""`proxy-rlhf chat`: talk to a running server, or to an LLM and a proxy inside of this process."""

import sys
from typing import Annotated

import typer

from cli import console
from cli.speaker import ChatOptions, Message, Speaker

DEFAULT_MODEL = "smollm2-135m-instruct"


def chat(
    message: Annotated[str | None, typer.Argument(help="One question; a conversation unless given.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name on the server; with --local a name, hub id, folder or GGUF file.")
    ] = None,
    proxy: Annotated[
        str | None, typer.Option(metavar="NAME[@VERSION]", help="A proxy, or `base` for the LLM alone.")
    ] = None,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Key of the server.")] = None,
    local: Annotated[bool, typer.Option("--local", help="No server: run the LLM in this process.")] = False,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="0: greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Talk to the model; an empty line or Ctrl-D ends a conversation."""
    options = ChatOptions(max_tokens=max_tokens, temperature=temperature, seed=seed)
    speaker: Speaker
    if local:
        from cli.local_speaker import LocalSpeaker

        with console.err.status("loading the LLM"):
            speaker = LocalSpeaker.load(model or DEFAULT_MODEL, proxy, options)
    else:
        from cli.remote_speaker import RemoteSpeaker

        speaker = RemoteSpeaker.connect(url, api_key, model, proxy, options)
    messages = [] if system is None else [{"role": "system", "content": system}]
    if message is not None:
        _exchange(speaker, messages, message)
        return
    while question := _ask():
        _exchange(speaker, messages, question)


def _exchange(speaker: Speaker, messages: list[Message], question: str) -> None:
    """Print the answer as it comes, and add both turns to `messages`."""
    messages.append({"role": "user", "content": question})
    pieces = []
    for piece in speaker.answer(messages):
        pieces.append(piece)
        console.out.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()
    console.out.print()
    console.err.print(speaker.note, style="dim", markup=False, highlight=False)
    messages.append({"role": "assistant", "content": "".join(pieces)})


def _ask() -> str:
    try:
        return console.err.input("[bold]you>[/bold] ").strip()
    except EOFError:
        return ""
