"""A run on the terminal: the newest iterations as a table that stays in place."""

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
    """Shows the last `num_rows` iterations and the warnings of the newest one."""

    def __init__(self, console: Console | None = None, num_rows: int = 15) -> None:
        self._rows: deque[Mapping[str, float]] = deque(maxlen=num_rows)
        self._live = Live(console=console, auto_refresh=False)

    def show(self, row: Mapping[str, float], warnings: list[str]) -> None:
        """Add an iteration."""
        self._rows.append(row)
        notes = [Text(f"warning: {warning}", style="yellow") for warning in warnings]
        self._live.update(Group(self._table(), *notes), refresh=True)

    def _table(self) -> Table:
        columns = dict(COLUMNS)
        if self._rows:
            columns |= DECODED if self._rows[-1]["speed/tokens_per_second"] else LEARNT
            terms = [name for name in self._rows[-1] if name.startswith(TERM)]
            columns |= {name.removeprefix(TERM): (name, ".3f") for name in terms if len(terms) > 1}
        table = Table(*columns, box=None)
        for row in self._rows:
            table.add_row(*(format(row[name], form) for name, form in columns.values()))
        return table

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
