"""A run on the terminal: the newest iterations as a table that stays in place; in a pipe or a log a line for each."""

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trainer.metrics import TERM

COLUMNS: Mapping[str, tuple[str, str]] = {
    "iter": ("progress/iteration", ".0f"),
    "prompts": ("progress/prompts", ".0f"),
    "reward": ("reward/raw_mean", ".3f"),
    "± sd": ("reward/raw_sd", ".2f"),
    "penalty": ("reward/penalty", ".3f"),
    "accept": ("proxy/accept_rate", ".1%"),
    "rej/tok": ("proxy/rejections_per_token", ".2f"),
    "forced": ("proxy/forced_share", ".1%"),
    "NLL": ("answer/nll", ".2f"),
    "length": ("answer/length", ".1f"),
    "ended": ("answer/eos_rate", ".0%"),
    "KL": ("update/approx_kl", ".4f"),
    "clip": ("update/clip_fraction", ".1%"),
    "expl.": ("update/explained_variance", ".2f"),
}
DECODED = {"tok/s": ("speed/tokens_per_second", ".0f")}
LEARNT = {"learnt/s": ("speed/learnt_tokens_per_second", ".0f")}
"""In place of `DECODED` for a run whose answers are given."""


class LiveTable:
    """Shows the last `num_rows` iterations and the warnings of the newest one; without a terminal a line for each."""

    def __init__(self, console: Console | None = None, num_rows: int = 15) -> None:
        self._rows: deque[Mapping[str, float]] = deque(maxlen=num_rows)
        self._live = Live(console=console, auto_refresh=False)
        self._console = self._live.console

    def show(self, row: Mapping[str, float], warnings: list[str]) -> None:
        """Add an iteration."""
        self._rows.append(row)
        notes = [Text(f"warning: {warning}", style="yellow") for warning in warnings]
        if self._console.is_terminal:
            self._live.update(Group(self._table(), *notes), refresh=True)
            return
        told = (f"{title} {format(row[name], form)}" for title, (name, form) in self._columns().items())
        for line in (Text("  ".join(told)), *notes):
            self._console.print(line, soft_wrap=True)

    def _columns(self) -> dict[str, tuple[str, str]]:
        newest = self._rows[-1]
        terms = [name for name in newest if name.startswith(TERM)]
        return {
            **COLUMNS,
            **(DECODED if newest["speed/tokens_per_second"] else LEARNT),
            **{name.removeprefix(TERM): (name, ".3f") for name in terms if len(terms) > 1},
        }

    def _table(self) -> Table:
        """As many columns, from the left, as are wide enough for what is in them."""
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        room = self._console.width
        cells: list[list[str]] = []
        for title, (name, form) in self._columns().items():
            column = [format(row[name], form) for row in self._rows]
            room -= max(map(len, [title, *column])) + bool(cells)
            if room < 0:
                break
            table.add_column(title, no_wrap=True)
            cells.append(column)
        for row in zip(*cells, strict=True):
            table.add_row(*row)
        return table

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
