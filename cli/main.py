"""`proxy-rlhf`: every command, and what becomes of an error.

A deliberate error is one red line on standard error, without a traceback. Exit status 2: the input cannot be used;
1: the work failed; 130: interrupted.
"""

import sys
from collections.abc import Sequence

import typer

from cli import console
from cli.chat import chat
from cli.demo import demo
from cli.evaluate import evaluate
from cli.proxies import proxies
from cli.replay import replay
from cli.reward import reward
from cli.rollouts import rollouts
from cli.serve import serve
from cli.train import train
from cli.trainer import trainer
from proxy_model.errors import DataError, InvalidParameter, PromptTooLong, ProxyRlhfError, UnknownProxy

BAD_INPUT = (InvalidParameter, DataError, PromptTooLong, UnknownProxy, FileNotFoundError, IsADirectoryError)
"""Errors that a different command line or file would have avoided."""

app = typer.Typer(
    name="proxy-rlhf",
    help="Serve a frozen LLM under a small accept/reject proxy, and train that proxy.",
    pretty_exceptions_enable=False,
)
for command in (serve, chat, train, rollouts, replay, trainer, reward, evaluate, demo):
    app.command()(command)
app.add_typer(proxies, name="proxies")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(given or ["--help"], prog_name="proxy-rlhf", standalone_mode=False)
    except typer.TyperException as error:
        if message := error.format_message():  # a group without a command has shown its help instead
            console.fail(message)
        return error.exit_code
    except BAD_INPUT as error:
        console.fail(str(error))
        return 2
    except (ProxyRlhfError, OSError) as error:
        console.fail(str(error) or type(error).__name__)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
