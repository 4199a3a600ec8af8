"""One trainer process: its share of the machine, its port, its signals, and how it ends."""

import logging
import os
import sys
import time
from functools import partial
from types import FrameType

import uvicorn

from proxy_model.json_log import configure_logging
from store.database import Database
from store.files import Files
from store.fine_tuning.jobs import Jobs
from store.fine_tuning.needed_versions import needed_versions
from store.fine_tuning.queue import JobQueue
from trainer.loop import train
from trainer.pruning import no_versions
from trainer.service.app import create_app
from trainer.service.continuous import ContinuousJob, read_job
from trainer.service.courtesy import Courtesy, Rest, ServerLoad, no_rest
from trainer.service.feedback_job import FeedbackJob, read_feedback_job
from trainer.service.file_clerk import FileClerk
from trainer.service.gauges import TrainingGauges
from trainer.service.job_census import JobCensus
from trainer.service.job_source import JobSource
from trainer.service.settings import Settings
from trainer.service.work import InTurn, WorkSource
from trainer.service.worker import Trains, Worker

logger = logging.getLogger(__name__)

_FORCED_SECONDS = 1
"""What a scrape that is under way at the end gets."""


def serve(settings: Settings, trains: Trains = train) -> int:
    """Train and show it until told to stop; returns the exit code. Raises `InvalidParameter` for a bad job file."""
    configure_logging(settings.log_level)
    # The converted LLMs of this process lie in the same home as its proxies.
    os.environ["PROXY_RLHF_HOME"] = str(settings.home)
    os.setpriority(os.PRIO_PROCESS, 0, max(settings.nice, os.getpriority(os.PRIO_PROCESS, 0)))
    gauges = TrainingGauges()
    database = None if settings.store_database is None else Database(settings.store_database)
    spared = no_versions if database is None else partial(needed_versions, database)
    source = _source(settings, database, gauges)
    worker = Worker(source, gauges, settings.threads, trains, spared, _rest(settings))
    config = uvicorn.Config(create_app(worker, gauges), settings.host, settings.port, log_config=None, access_log=False)
    server = _StoppingServer(config, worker, settings.stop_seconds)
    listener = config.bind_socket()
    listener.listen()  # who reads the next line may connect at once
    print(
        f"proxy-rlhf: trainer on http://{settings.host}:{listener.getsockname()[1]}, {_purpose(settings)}", flush=True
    )
    worker.start()
    server.run([listener])
    if worker.is_alive:
        _leave_at_once(server.exit_code)
    return server.exit_code


def _purpose(settings: Settings) -> str:
    jobs = ["does the fine-tuning jobs of the store"] if settings.store_database is not None else []
    kept = [f"keeps improving what {settings.job} names"] if settings.job is not None else []
    taught = [f"lets feedback improve what {settings.feedback} names"] if settings.feedback is not None else []
    return " and ".join(jobs + kept + taught) or "waits: there is neither a store nor a job"


def _rest(settings: Settings) -> Rest:
    if settings.server_metrics is None:
        return no_rest
    return Courtesy(settings.busy_share, ServerLoad(settings.server_metrics, settings.admin_key).is_busy).rest


def _source(settings: Settings, database: Database | None, gauges: TrainingGauges) -> WorkSource:
    sources: list[WorkSource] = []
    if database is not None:
        gauges.registry.register(JobCensus(Jobs(database)))
        FileClerk(JobQueue(database), Files(database)).start()
        sources.append(JobSource(database, settings.home, settings.lease_seconds, settings.judge_url))
        if settings.feedback is not None:
            read_feedback_job(settings.feedback)
            days = settings.store_days or None
            job = FeedbackJob(settings.feedback, settings.home, database, days, on_supply=gauges.set_supply)
            sources.append(job)
    if settings.job is not None:
        read_job(settings.job)
        sources.append(ContinuousJob(settings.job, settings.home))
    return InTurn(sources)


def _leave_at_once(exit_code: int) -> None:
    """An iteration that takes too long is dropped: what is on disk is whole at any moment, so it can be done again."""
    logger.warning("the iteration that was under way is dropped, a restart does it again")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


class _StoppingServer(uvicorn.Server):
    """Answers probes and scrapes until the worker has ended or the deadline is over; a second signal does not wait."""

    def __init__(self, config: uvicorn.Config, worker: Worker, stop_seconds: float) -> None:
        config.timeout_graceful_shutdown = _FORCED_SECONDS
        super().__init__(config)
        self.exit_code = 0
        self._worker = worker
        self._stop_seconds = stop_seconds
        self._deadline: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler; uvicorn's own would close the socket at once and re-raise the signal at the end."""
        if self._deadline is not None:
            self.force_exit = self.should_exit = True
            return
        self._deadline = time.monotonic() + self._stop_seconds
        self._worker.stop()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if not self._worker.is_alive:
            self.should_exit = True
            self.exit_code = 0 if self._deadline is not None else 1
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.should_exit = True
        return await super().on_tick(counter)
