"""Files of one JSON object a line, plain or gzip'ed; a line that cannot be used is named with its reason."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy_model.errors import DataError
from store.fine_tuning.conversation import BadRow, parse_conversation

Messages = list[dict[str, str]]
"""A conversation: one `role` and `content` a turn, as the chat template takes it."""

MAX_LINE_BYTES = 1 << 20
"""Longer lines are refused unread: a conversation has a few kilobytes."""


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects of a `.jsonl` or `.jsonl.gz` file; empty lines are skipped.

    Raises `DataError` for a file that cannot be opened or unpacked and for a line that is no JSON object.
    """
    for number, line in _lines(path):
        if line.strip():
            yield number, _parse(path, number, line)


def require_keys(path: Path, number: int, found: Mapping[str, Any], required: set[str], optional: set[str]) -> None:
    """Raises `DataError` when a key is missing or unknown."""
    if missing := required - found.keys():
        raise DataError(path, number, f"{min(missing)!r} is missing")
    if unknown := found.keys() - required - optional:
        raise DataError(path, number, f"{min(unknown)!r} is not a known key")


def parse_messages(path: Path, number: int, found: Any) -> Messages:
    """A conversation that waits for the assistant: maybe a system turn, then user and assistant in turns, user last."""
    try:
        return parse_conversation(found, "prompt")
    except BadRow as error:
        raise DataError(path, number, str(error)) from error


def parse_text(path: Path, number: int, found: Mapping[str, Any], key: str) -> str:
    """A string that holds more than white space."""
    text = found[key]
    if not isinstance(text, str) or not text.strip():
        raise DataError(path, number, f"{key!r} must be a string that is not blank")
    return text


def require_rows(path: Path, rows: Sequence[object]) -> None:
    """Raises `DataError` for a file without any row."""
    if not rows:
        raise DataError(path, 1, "the file holds no row")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(path, number, f"the line is longer than {MAX_LINE_BYTES} bytes")
                yield number, line
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(path, number + 1, f"cannot be read: {error}") from error


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(path, number, f"not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, number, f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(path, number, f"a JSON object is expected, got {type(found).__name__}")
    return found
