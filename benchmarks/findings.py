"""What a benchmark prints, and writes where it is asked to."""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rounds import Spread
from proxy_model.llm.frozen_llm import FrozenLLM

_WIDTH = 120
"""Of tables that go into a file."""


def show(table: Table) -> None:
    """Print it, as wide as the terminal is."""
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def publish(table: Table, llm: FrozenLLM, rows: Sequence[Any], output: Path | None, **facts: object) -> None:
    """Print the table; write its rows (dataclasses) and what else is worth knowing as JSON to `output`."""
    show(table)
    if output is None:
        return
    found = {
        "model": llm.name,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        **{name: asdict(fact) if isinstance(fact, Spread) else fact for name, fact in facts.items()},
        "rows": [asdict(row) for row in rows],
    }
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
