"""The thread that looks at the files of new jobs, so that nobody learns of a bad line only when training is at it."""

import logging
import threading
import time

from proxy_model.errors import InvalidParameter, StoreTooNew, StoreUnavailable
from store.files import Files
from store.fine_tuning.jobs import Job, JobError
from store.fine_tuning.queue import JobQueue
from store.fine_tuning.rows import row_parser
from store.fine_tuning.specification import Specification
from store.fine_tuning.training_file import check_file

_POLL_SECONDS = 1.0

logger = logging.getLogger(__name__)

FILE_GONE = JobError(
    code="training_file_gone", message="The training file has been deleted or has expired.", param="training_file"
)


class FileClerk:
    """Several processes may do this at once: the first one to have looked decides."""

    def __init__(self, queue: JobQueue, files: Files) -> None:
        self._queue = queue
        self._files = files
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)

    def start(self) -> None:
        """Start the thread, which ends with the process."""
        self._thread.start()

    def look(self) -> bool:
        """Decide about one job; False when none waits for that. Raises `StoreUnavailable`."""
        job = self._queue.unvalidated()
        if job is None:
            return False
        self._decide(job)
        return True

    def _decide(self, job: Job) -> None:
        file = self._files.get(job.owner, job.training_file)
        if file is None:
            self._queue.reject(job.id, FILE_GONE)
            return
        try:
            method = Specification.from_json(job.specification).method
            report = check_file(self._files.content(file), row_parser(method))
        except InvalidParameter as refused:  # it was ordered from another release
            self._queue.reject(job.id, JobError(code="invalid_method", message=str(refused), param=refused.name))
            return
        except LookupError:
            self._queue.reject(job.id, FILE_GONE)
            return
        if report.problem is None:
            self._queue.accept(job.id, f"The training file has {report.num_rows} rows")
        else:
            error = JobError(code="invalid_training_file", message=report.problem, param="training_file")
            self._queue.reject(job.id, error)

    def _run(self) -> None:
        while True:
            try:
                has_looked = self.look()
            except (StoreUnavailable, StoreTooNew) as error:
                logger.error("the store cannot be used", extra={"reason": str(error)})
                has_looked = False
            if not has_looked:
                time.sleep(_POLL_SECONDS)
