"""What the owner of a job is told while it runs, and what its end means."""

import errno
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import (
    BadCheckpoint,
    DataError,
    GraderFailed,
    InvalidParameter,
    ModelUnavailable,
    OutputTaken,
    StoreUnavailable,
    UnknownProxy,
)
from proxy_model.versions.verdicts import Verdict
from store.completions import now
from store.fine_tuning.jobs import JobError, NoSuchFile, file_gone
from store.fine_tuning.journal import Level
from store.fine_tuning.queue import MAX_FAILURES, JobQueue, Lease, LeaseLost
from store.fine_tuning.reward_models import reward_names
from store.fine_tuning.specification import Specification
from trainer.monitor import warnings_until_now
from trainer.service.heartbeat import Heartbeat
from trainer.service.job_config import HELD_OUT_FILE
from trainer.service.work import Observer

_FIRST_RETRY_SECONDS = 5.0
_MAX_RETRY_SECONDS = 300.0

_CANNOT_LOAD = "The trainer cannot load the LLM, or what a reward model or judge reads with."

logger = logging.getLogger(__name__)


class JobReport(Observer):
    """Of one lease. What the store cannot take just now is told with what comes next."""

    def __init__(self, queue: JobQueue, lease: Lease, lease_seconds: float) -> None:
        self.heartbeat = Heartbeat(queue, lease, lease_seconds)
        self._queue = queue
        self._lease = lease
        specification = Specification.from_json(lease.job.specification)
        self._llm, self._needs = specification.llm, _needs(specification)
        self.num_iterations = 0
        """Planned in all, for an estimate of the end."""

        self._began_at = time.monotonic()
        self._num_done = 0
        self._pending: list[Callable[[], object]] = []
        self._alarms: set[str] = set()
        """Noted already."""

    def must_abort(self) -> bool:
        """It was cancelled, paused, or taken over."""
        return self.heartbeat.is_lost

    def on_iteration(self, row: Mapping[str, float]) -> None:
        """Note its metrics."""
        self._num_done += 1
        left = self.num_iterations - int(row["progress/iteration"])
        seconds = left * (time.monotonic() - self._began_at) / self._num_done
        self._note(row, now() + int(seconds * 1e6))

    def on_alarms(self, alarms: Sequence[str]) -> None:
        """Note each once."""
        for alarm in alarms:
            if alarm not in self._alarms:
                self._alarms.add(alarm)
                self.note(alarm, level="warn")

    def on_publish(self, ref: ProxyRef, row: Mapping[str, float]) -> None:
        """Note the version."""
        step, metrics = int(row["progress/iteration"]), _finite(row)
        self._say(lambda: self._queue.record_checkpoint(self._lease, step, f"{self._llm}:{ref}", metrics))

    def on_verdict(self, ref: ProxyRef, verdict: Verdict) -> None:
        """Note what the gates said."""
        if verdict.obstacle is None:
            self.note(f"{self._llm}:{ref} has passed its gates against {_asked(verdict)}")
        else:
            self.note(gate_message(f"{self._llm}:{ref}", verdict), level="warn")

    def note(self, message: str, level: Level = "info") -> None:
        """Add to its events."""
        self._say(lambda: self._queue.note(self._lease, message, level=level))

    def on_leave(self) -> None:
        """The trainer is told to stop, or the job is not its own any more."""
        self.heartbeat.stop()
        self._unless_lost(lambda: self._queue.release(self._lease))

    def on_error(self, error: Exception) -> bool:
        """Fail the job by what will not pass; try again later by what may. False for a folder that is taken."""
        self.heartbeat.stop()
        if isinstance(error, OutputTaken):
            self._unless_lost(lambda: self._queue.release(self._lease))
            return False
        self._unless_lost(lambda: self._end(error))
        return True

    def catch_up(self, rows: list[dict[str, float]]) -> None:
        """Note what a former process may not have come to note. Raises `LeaseLost`, `StoreUnavailable`."""
        for row in rows:
            self._queue.record(self._lease, int(row["progress/iteration"]), _finite(row))
        self._alarms = warnings_until_now(rows)

    def flush(self) -> None:
        """Say what is still to be said. Raises `LeaseLost`, `StoreUnavailable`."""
        while self._pending:
            self._pending[0]()
            self._pending.pop(0)

    def _note(self, row: Mapping[str, float], finish: int) -> None:
        step, metrics = int(row["progress/iteration"]), _finite(row)
        self._say(lambda: self._queue.record(self._lease, step, metrics, estimated_finish=finish))

    def _say(self, say: Callable[[], object]) -> None:
        self._pending.append(say)
        self._unless_lost(self.flush)

    def _unless_lost(self, call: Callable[[], object]) -> None:
        try:
            call()
        except LeaseLost:
            self.heartbeat.lose()
        except StoreUnavailable as unavailable:
            logger.error("the store cannot be used", extra={"reason": str(unavailable)})

    def _end(self, error: Exception) -> None:
        final = final_error(error, self._needs)
        attempts = 1 if self._num_done else self._lease.job.attempts
        if final is not None:
            self._queue.fail(self._lease, final)
        elif attempts >= MAX_FAILURES and not _is_full_disk(error):
            message = f"Training failed {attempts} times ({type(error).__name__}); the trainer's log says why."
            self._queue.fail(self._lease, JobError(code="internal_error", message=message))
        else:
            seconds = min(_FIRST_RETRY_SECONDS * 2 ** (attempts - 1), _MAX_RETRY_SECONDS)
            message = f"An attempt failed ({type(error).__name__}); the next one comes in {seconds:g} s"
            self._queue.retry(self._lease, message, seconds)


def gate_message(model: str, verdict: Verdict) -> str:
    """Which gates a version did not pass, and by how much."""
    return f"{model} has not passed its gates against {_asked(verdict)}: {verdict.obstacle}"


def _asked(verdict: Verdict) -> str:
    """Against what, and on which prompts where that is known."""
    return f"{verdict.against} on {verdict.prompts}" if verdict.prompts else verdict.against


def final_error(error: Exception, needed: Sequence[str]) -> JobError | None:
    """What no other attempt would change, in words without paths; None for what may pass.

    `needed` are the names of the proxy and the reward models that the job reads.
    """
    match error:
        case NoSuchFile():
            return file_gone(error.param)
        case DataError():
            return _file_error(error)
        case InvalidParameter():
            message = f"'{error.name}' must be {error.allowed}."
            return JobError(code="invalid_method", message=message, param=error.name)
        case GraderFailed():
            return JobError(code="grader_failed", message=str(error), param="method")
        case UnknownProxy():
            return JobError(code="not_usable", message=f"The job needs what is not there any more: {error}.")
        case BadCheckpoint():
            message = f"Not in order ({error.reason}), of what the job reads: {', '.join(needed) or 'its own data'}."
            return JobError(code="not_usable", message=message)
        case ModelUnavailable():
            return JobError(code="model_unavailable", message=_CANNOT_LOAD, param="model")
    return None


def _needs(specification: Specification) -> list[str]:
    """The proxy and the reward models that a job reads, by the names in its order."""
    judge = None if specification.gates is None else specification.gates.judge
    return [name for name in (specification.start, *reward_names(specification.method.grader), judge) if name]


def _file_error(error: DataError) -> JobError:
    """Of a file that was good line by line, but of which nothing can be used."""
    param = "validation_file" if error.path.name == HELD_OUT_FILE else "training_file"
    name = param.replace("_", " ")
    place = f"Line {error.line_number} of the {name}" if error.line_number else f"The {name}"
    return JobError(code=f"invalid_{param}", message=f"{place}: {error.reason}.", param=param)


def _is_full_disk(error: Exception) -> bool:
    """Somebody will make room, or cancel the job."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _finite(row: Mapping[str, float]) -> dict[str, float]:
    """What JSON has words for."""
    return {name: value for name, value in row.items() if math.isfinite(value)}
