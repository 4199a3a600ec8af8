"""The thread that keeps a job in its trainer's hands, and notices when it is not any more."""

import logging
import threading
import time

from proxy_model.errors import StoreUnavailable
from store.fine_tuning.queue import JobQueue, Lease, LeaseLost

_LOOK_SECONDS = 1.0
"""How long a cancelled job may go on before that is noticed."""

logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews a lease of `seconds` until it is stopped, or the lease is lost."""

    def __init__(self, queue: JobQueue, lease: Lease, seconds: float) -> None:
        self._queue = queue
        self._lease = lease
        self._seconds = seconds
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether the job is somebody else's by now, or nobody's."""
        return self._lost.is_set()

    def lose(self) -> None:
        """Somebody else has noticed it."""
        self._lost.set()

    def stop(self) -> None:
        """End; returns when nothing is written any more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(min(_LOOK_SECONDS, self._seconds / 3)) and not self.is_lost:
            is_due = time.monotonic() - renewed > self._seconds / 3
            try:
                if is_due:
                    self._queue.renew(self._lease, self._seconds)
                    renewed = time.monotonic()
                elif not self._queue.holds(self._lease):
                    self._lost.set()
            except LeaseLost:
                self._lost.set()
            except StoreUnavailable as error:
                logger.error("the store cannot be used", extra={"reason": str(error)})
                # Another trainer may have the job by now.
                if time.monotonic() - renewed > self._seconds:
                    self._lost.set()
