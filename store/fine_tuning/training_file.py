"""Training files: JSON lines, each checked before a job runs; what a row must hold is for `rows` to say."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from store.fine_tuning.conversation import BadRow
from store.fine_tuning.rows import RowParser

MIN_ROWS = 10
MAX_LINE_BYTES = 1 << 18
"""A quarter of what the trainer reads, whose lines hold a prompt twice."""
NUM_SHOWN = 10
"""Bad lines that are named; the others are counted."""


@dataclass(slots=True)
class FileReport:
    """What was found in a file."""

    num_rows: int = 0
    num_bad: int = 0
    offenders: list[tuple[int, str]] = field(default_factory=list)
    """The first bad lines: their numbers, from 1, and what is wrong."""

    @property
    def problem(self) -> str | None:
        """In words for who uploaded it; None for a good file."""
        if self.num_bad:
            named = "; ".join(f"line {number}: {reason}" for number, reason in self.offenders)
            more = self.num_bad - len(self.offenders)
            tail = f"; and {more} more" if more else ""
            return f"{self.num_bad} of {self.num_rows} lines cannot be used: {named}{tail}"
        if self.num_rows < MIN_ROWS:
            return f"The file has {self.num_rows} rows; at least {MIN_ROWS} are needed"
        return None


def check_file(content: Iterable[bytes], parse: RowParser) -> FileReport:
    """Look at every line of a file that comes in pieces."""
    report = FileReport()
    for number, line in _lines(content):
        report.num_rows += 1
        try:
            parse(_parse_object(line))
        except BadRow as bad:
            report.num_bad += 1
            if len(report.offenders) < NUM_SHOWN:
                report.offenders.append((number, str(bad)))
    return report


def read_rows(content: Iterable[bytes], parse: RowParser) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a file that has been checked, as the trainer reads them. Raises `BadRow`."""
    for number, line in _lines(content):
        yield number, parse(_parse_object(line))


def _lines(content: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; of one that is too long as much as shows that."""
    number, rest, is_skipping = 1, b"", False
    for piece in content:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.strip() and not is_skipping:
                yield number, line
            number, is_skipping = number + 1, False
        if len(rest) > MAX_LINE_BYTES:
            if not is_skipping:
                yield number, rest
            rest, is_skipping = b"", True
    if rest.strip() and not is_skipping:
        yield number, rest


def _parse_object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise BadRow(f"the line is longer than {MAX_LINE_BYTES} bytes")
    try:
        text = line.decode("utf-8")
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise BadRow("it holds half a character (a lone surrogate)") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRow(f"a JSON object is expected, got {type(found).__name__}")
    return found
