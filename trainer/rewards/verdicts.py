"""What grading models have answered, kept so that a resumed run does not pay twice, and what it has cost."""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Verdicts:
    """Answers by question, one JSON line each; `path` None keeps them in memory only. Safe from any thread."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}
        self.num_requests = 0
        """Answers that were paid for, in all processes of the run."""
        self.num_tokens = 0
        if path is not None and path.exists():
            for line in _whole_lines(path):
                self._add(json.loads(line))

    def find(self, question: Mapping[str, Any]) -> str | None:
        """The answer to exactly this question, if it was usable."""
        with self._lock:
            return self._found.get(_key(question))

    def count(self, num_tokens: int) -> None:
        """Something was paid for that is no use."""
        self._write({"tokens": num_tokens})

    def keep(self, question: Mapping[str, Any], answer: str, num_tokens: int) -> None:
        """Remember an answer."""
        self._write({"key": _key(question), "answer": answer, "tokens": num_tokens})

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock:
            self._add(row)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")

    def _add(self, row: Mapping[str, Any]) -> None:
        self.num_requests += 1
        self.num_tokens += row["tokens"]
        if "key" in row:
            self._found[row["key"]] = row["answer"]


def _key(question: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def _whole_lines(path: Path) -> list[str]:
    """The file's lines; what a kill has left of the last one is cut off, so that the next one stands alone."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return whole.decode().splitlines()
