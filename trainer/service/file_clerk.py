"""The thread that looks at the files of jobs.

At those of new ones, so that nobody learns of a bad line only when training is at it; and whether those of the others
are still there, so that what their owner has deleted is not trained on any more.
"""

import logging
import threading
import time
from collections.abc import Iterator

from proxy_model.errors import InvalidParameter, StoreTooNew, StoreUnavailable
from store.files import Files
from store.fine_tuning.jobs import FileParam, Job, JobError, NoSuchFile, file_gone
from store.fine_tuning.queue import JobQueue
from store.fine_tuning.rows import RowParser, held_out_parser, row_parser
from store.fine_tuning.specification import Specification
from store.fine_tuning.training_file import check_file

_POLL_SECONDS = 1.0

logger = logging.getLogger(__name__)


class _BadFile(Exception):
    """A file that its job cannot use; `error` says so to the owner."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


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
        """End jobs whose files are gone, and decide about a new one; False when none waits for that.

        Raises `StoreUnavailable`.
        """
        self._queue.fail_without_files()
        job = self._queue.unvalidated()
        if job is None:
            return False
        self._decide(job)
        return True

    def _decide(self, job: Job) -> None:
        try:
            method = Specification.from_json(job.specification).method
            num_rows = self._count_rows(job, "training_file", row_parser(method))
            if job.validation_file is not None:
                self._count_rows(job, "validation_file", held_out_parser(method))
        except InvalidParameter as refused:  # it was ordered from another release
            self._queue.reject(job.id, JobError(code="invalid_method", message=str(refused), param=refused.name))
        except _BadFile as bad:
            self._queue.reject(job.id, bad.error)
        else:
            self._queue.accept(job.id, f"The training file has {num_rows} rows")

    def _count_rows(self, job: Job, param: FileParam, parse: RowParser) -> int:
        """Of the file that the order gives as `param`. Raises `_BadFile`."""
        try:
            report = check_file(job_file(self._files, job, param), parse)
        except NoSuchFile as gone:
            raise _BadFile(file_gone(gone.param)) from gone
        if report.problem is not None:
            raise _BadFile(JobError(code=f"invalid_{param}", message=report.problem, param=param))
        return report.num_rows

    def _run(self) -> None:
        while True:
            try:
                has_looked = self.look()
            except (StoreUnavailable, StoreTooNew) as error:
                logger.error("the store cannot be used", extra={"reason": str(error)})
                has_looked = False
            if not has_looked:
                time.sleep(_POLL_SECONDS)


def job_file(files: Files, job: Job, param: FileParam) -> Iterator[bytes]:
    """The content of the file that the order gives as `param`. Raises `NoSuchFile`, while it is read, too."""
    file_id = getattr(job, param)
    file = files.get(job.owner, file_id)
    if file is None:
        raise NoSuchFile(param)
    try:
        yield from files.content(file)
    except LookupError as error:
        raise NoSuchFile(param) from error
