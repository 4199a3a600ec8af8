"""The seam between the worker and wherever its runs come from."""

from dataclasses import dataclass
from typing import Protocol

from trainer.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One training run to begin, or to go on with."""

    config: TrainConfig
    is_resumed: bool


class WorkSource(Protocol):
    """Hands out runs, one at a time. Only the worker's thread calls it; what it raises counts as a failed attempt.

    It keeps on disk what is to outlive the process: a worker that is killed asks `next_work` again after its restart,
    and is to be given the run that it was in.
    """

    def next_work(self) -> Work | None:
        """What to do now; None when there is nothing to do yet."""

    def finish(self, work: Work) -> None:
        """`work` is complete and published. Killed before this has returned, the same work is handed out again."""


class NoWork:
    """Nothing, ever: the service is up and waits."""

    def next_work(self) -> Work | None:
        return None

    def finish(self, work: Work) -> None:
        raise AssertionError("no work was handed out")
