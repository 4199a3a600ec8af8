"""Prompts: conversations that wait for an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy_model.errors import DataError
from trainer.json_lines import Messages, parse_messages, read_json_lines, require_keys, require_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One conversation, ending with a user turn."""

    messages: Messages
    source: str = ""
    """Where it comes from, as the file says."""

    item: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says of it, for graders that compare the answer with something."""


def load_prompts(path: Path) -> list[Prompt]:
    """Every row of a `.jsonl` or `.jsonl.gz` file of `{"prompt": [message, ...], "source": str, "item": {...}}`.

    The whole file is checked before the first prompt is handed out. Raises `DataError` with file, line and reason.
    """
    prompts = [_prompt(path, number, row) for number, row in read_json_lines(path)]
    require_rows(path, prompts)
    return prompts


def keep_sources(prompts: Sequence[Prompt], prefix: str) -> list[Prompt]:
    """The prompts whose source starts with `prefix`, in order."""
    return [prompt for prompt in prompts if prompt.source.startswith(prefix)]


def _prompt(path: Path, number: int, row: dict[str, object]) -> Prompt:
    require_keys(path, number, row, {"prompt"}, {"source", "item"})
    source = row.get("source", "")
    if not isinstance(source, str):
        raise DataError(path, number, "'source' must be a string")
    item = row.get("item", {})
    if not isinstance(item, dict):
        raise DataError(path, number, "'item' must be an object")
    return Prompt(messages=parse_messages(path, number, row["prompt"]), source=source, item=item)
