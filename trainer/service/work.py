"""The seam between the worker and wherever its runs come from."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy_model.decision.bank import ProxyRef
from proxy_model.versions.verdicts import Verdict
from trainer.config import TrainConfig


class Observer:
    """Told what becomes of a run, by the worker's thread; this one does not care."""

    def must_abort(self) -> bool:
        """Asked many times a second: whether the run is to be left at once, without its iteration's end."""
        return False

    def on_iteration(self, row: Mapping[str, float]) -> None:
        """An iteration is done and saved."""

    def on_alarms(self, alarms: Sequence[str]) -> None:
        """What `trainer.monitor` says after it, whether it has said so before or not."""

    def on_publish(self, ref: ProxyRef, row: Mapping[str, float]) -> None:
        """A version is published; said again when a resumed run finds that it had been."""

    def on_verdict(self, ref: ProxyRef, verdict: Verdict) -> None:
        """The gates of a version have been asked."""

    def on_leave(self) -> None:
        """The run is left before its end, to be resumed."""

    def on_error(self, error: Exception) -> bool:
        """The run failed; True when there is nothing to wait for before other work is done."""
        return False


UNOBSERVED = Observer()


def ready(must_leave: Callable[[], bool]) -> bool:
    """There is nothing to prepare."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One training run to begin, or to go on with."""

    config: TrainConfig
    is_resumed: bool
    observer: Observer = UNOBSERVED
    prepare: Callable[[Callable[[], bool]], bool] = ready
    """What takes long and has to be done before the run, by the worker's thread. It asks its argument now and then, and
    is left once that is true; False then. What it has done by then is done."""


class WorkSource(Protocol):
    """Hands out runs, one at a time. Only the worker's thread calls it; what it raises counts as a failed attempt.

    It keeps on disk what is to outlive the process: a worker that is killed asks `next_work` again after its restart,
    and is to be given the run that it was in.
    """

    def next_work(self) -> Work | None:
        """What to do now; None when there is nothing to do yet."""

    def finish(self, work: Work) -> None:
        """`work` is complete and published. Killed before this has returned, the same work is handed out again."""


class InTurn:
    """Several sources as one, asked in turn, so that none waits for ever for another that has always work, or fails.

    Without any there is nothing to do, ever.
    """

    def __init__(self, sources: Iterable[WorkSource]) -> None:
        self._sources = deque(sources)
        self._owner: WorkSource | None = None

    def next_work(self) -> Work | None:
        """The work of the first that has some, beginning behind the one that was asked last."""
        for _ in range(len(self._sources)):
            source = self._sources[0]
            self._sources.rotate(-1)
            work = source.next_work()
            if work is not None:
                self._owner = source
                return work
        return None

    def finish(self, work: Work) -> None:
        """Told to the source that handed it out."""
        assert self._owner is not None, "no work was handed out"
        self._owner.finish(work)
