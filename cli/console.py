"""Where the command line prints: results to standard output, everything else to standard error."""

from rich.console import Console
from rich.text import Text

out = Console()
err = Console(stderr=True)


def fail(message: str) -> None:
    """One red line on standard error, however the message was wrapped."""
    err.print(Text(f"error: {' '.join(message.split())}", style="bold red"), soft_wrap=True)
