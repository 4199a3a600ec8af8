"""A run's metrics on disk: one JSON line per iteration, and TensorBoard's event files beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy_model.disk import replace_file

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Appends rows; a resumed run first drops the rows of iterations that it will do again."""

    def __init__(self, folder: Path, *, num_done: int, tensorboard: bool) -> None:
        self._path = folder / METRICS_FILE
        self.rows: list[dict[str, float]] = read_rows(self._path)[:num_done]
        replace_file(self._path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._events = _event_writer(folder / "tensorboard", num_done) if tensorboard else None

    def write(self, row: Mapping[str, float]) -> None:
        """Log one iteration; the line is on disk before this returns to the caller, as far as the system says."""
        self.rows.append(dict(row))
        self._file.write(json.dumps(dict(row)) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                self._events.add_scalar(name, value, len(self.rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a log, whole lines only: a kill may have torn the last one."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _event_writer(folder: Path, num_done: int):  # type: ignore[no-untyped-def]
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=num_done + 1)
