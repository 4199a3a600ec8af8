"""The thread that trains: asks for work, does it, and starts over, until it is told to stop."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import OutputTaken
from proxy_model.versions.verdicts import Verdict
from trainer.config import TrainConfig
from trainer.loop import Supervision, TrainResult, Watcher, train
from trainer.pruning import Spared, no_versions
from trainer.service.courtesy import Rest, no_rest
from trainer.service.gauges import TrainingGauges
from trainer.service.work import Observer, Work, WorkSource

State = Literal["waiting", "training", "failing", "stopping"]

POLL_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 5.0
_MAX_RETRY_SECONDS = 300.0

logger = logging.getLogger(__name__)


class Trains(Protocol):
    """`trainer.loop.train`, or what stands in for it."""

    def __call__(
        self, config: TrainConfig, *, is_resumed: bool, on_iteration: Watcher, supervision: Supervision
    ) -> TrainResult: ...


@dataclass(frozen=True, slots=True)
class Status:
    """What the worker does; `problem` names the kind of the last attempt's error, and the log says the rest."""

    state: State
    proxy: str | None = None
    iteration: int = 0
    problem: str | None = None


class Worker:
    """Does the runs of `source` one after the other on a thread of its own, which computes with `threads` threads."""

    def __init__(
        self,
        source: WorkSource,
        gauges: TrainingGauges,
        threads: int,
        trains: Trains = train,
        spared: Spared = no_versions,
        rest: Rest = no_rest,
    ) -> None:
        self.status = Status("waiting")
        self._source = source
        self._gauges = gauges
        self._num_threads = threads
        self._trains = trains
        self._spared = spared
        self._rest = rest
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)
        self._retry_seconds = _FIRST_RETRY_SECONDS

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End after the iteration that is under way, its state saved; does not wait for it."""
        self._stop.set()
        self._set(Status("stopping", self.status.proxy, self.status.iteration))

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        torch.set_num_threads(self._num_threads)
        while not self._stop.is_set():
            self._stop.wait(self._attempt())

    def _attempt(self) -> float:
        """One look for work and the run that it gives; returns the seconds until the next look."""
        try:
            work = self._source.next_work()
            if work is not None:
                self._do(work)
        except OutputTaken as taken:
            logger.info("%s; waiting for it", taken)
        except Exception as error:  # noqa: BLE001 - whatever a run dies of, the service lives to try it again
            return self._fail(error)
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._set(Status("waiting"))
        return POLL_SECONDS

    def _do(self, work: Work) -> None:
        """One run; where it fails, and its observer sees to that, nothing is raised."""
        try:
            self._train(work)
        except Exception as error:
            if not work.observer.on_error(error):
                raise
            self._gauges.count_failure()
            logger.error("a job failed", extra={"run": work.config.output.name}, exc_info=error)

    def _train(self, work: Work) -> None:
        config = work.config
        self._gauges.begin(config.proxy)
        self._set(Status("training", config.proxy))
        logger.info(
            "a run begins", extra={"proxy": config.proxy, "run": config.output.name, "is_resumed": work.is_resumed}
        )
        observer = work.observer

        def must_leave() -> bool:
            return self._stop.is_set() or observer.must_abort()

        def must_leave_after_rest() -> bool:
            self._rest(must_leave)
            return must_leave()

        self._rest(must_leave)
        if not work.prepare(must_leave_after_rest):
            observer.on_leave()
            return

        def record(row: Mapping[str, float], alarms: list[str]) -> None:
            self._record(row, alarms)
            observer.on_iteration(row)
            observer.on_alarms(alarms)

        supervision = self._supervision(observer, lambda: self._rest(must_leave))
        result = self._trains(config, is_resumed=work.is_resumed, on_iteration=record, supervision=supervision)
        if result.is_done:
            self._source.finish(work)
        else:
            observer.on_leave()
        logger.info("a run ends" if result.is_done else "a run is left", extra={"iterations": result.iterations})

    def _supervision(self, observer: Observer, rest: Callable[[], None]) -> Supervision:
        def published(ref: ProxyRef, row: Mapping[str, float]) -> None:
            self._published(ref)
            observer.on_publish(ref, row)

        def judged(ref: ProxyRef, verdict: Verdict) -> None:
            self._judged(ref, verdict)
            observer.on_verdict(ref, verdict)

        return Supervision(
            must_stop=self._stop.is_set,
            must_abort=observer.must_abort,
            rest=rest,
            spared=self._spared,
            on_publish=published,
            on_verdict=judged,
        )

    def _record(self, row: Mapping[str, float], alarms: list[str]) -> None:
        self._gauges.record(row, len(alarms))
        self._set(Status("training", self.status.proxy, int(row["progress/iteration"])))
        logger.info("an iteration is done", extra={"metrics": dict(row), "alarms": alarms})

    def _published(self, ref: ProxyRef) -> None:
        self._gauges.count_version()
        logger.info("a version is published", extra={"proxy": ref.name, "version": ref.version})

    def _judged(self, ref: ProxyRef, verdict: Verdict) -> None:
        told = {"proxy": ref.name, "version": ref.version, "against": verdict.against, "prompts": verdict.prompts}
        if verdict.obstacle is None:
            logger.info("a version has passed its gates", extra=told)
            return
        self._gauges.count_refusal()
        logger.warning("a version did not pass its gates", extra={**told, "failures": list(verdict.failures)})

    def _fail(self, error: Exception) -> float:
        self._gauges.count_failure()
        self._set(Status("failing", self.status.proxy, problem=type(error).__name__))
        seconds = self._retry_seconds
        self._retry_seconds = min(2 * seconds, _MAX_RETRY_SECONDS)
        logger.error("a run failed, it is tried again in %g s", seconds, exc_info=error)
        return seconds

    def _set(self, status: Status) -> None:
        """Once stopping, nothing else is said any more."""
        self.status = Status("stopping", status.proxy, status.iteration) if self._stop.is_set() else status
        self._gauges.set_state(self.status.state)
