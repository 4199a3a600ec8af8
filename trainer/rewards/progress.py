"""Progress bars of whatever reads many texts."""

from collections.abc import Iterable, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
ItemOut = TypeVar("ItemOut", covariant=True)


class _Countable(Sized, Iterable[ItemOut], Protocol[ItemOut]): ...


def reading_progress(console: Console) -> Progress:
    """Bars with counts and the time left, gone when done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def tracked(progress: Progress, items: _Countable[Item], what: str) -> Iterable[Item]:
    """`items` behind a bar of their own."""
    return progress.track(items, total=len(items), description=what)
