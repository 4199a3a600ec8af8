"""The store as the server uses it: off the event loop, and with a log line for what the client is not told."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from proxy_model.errors import StoreUnavailable
from server.errors import ApiError
from server.settings import Settings
from store.completions import Completions
from store.database import Database
from store.feedback import FeedbackBook
from store.files import Files
from store.fine_tuning.jobs import Jobs
from store.fine_tuning.journal import Journal

logger = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 4
_SWEEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Shelves:
    """What is in the store."""

    completions: Completions
    feedback: FeedbackBook
    files: Files
    jobs: Jobs
    journal: Journal


class Storage:
    """Calls into the store on threads of its own, so that a slow disk holds no answer up."""

    def __init__(self, settings: Settings) -> None:
        url = settings.store_database
        self._database = None if url is None else Database(url)
        self._shelves: Shelves | None = None
        if self._database is not None:
            completions = Completions(self._database, settings.store_days or None)
            self._shelves = _shelves(self._database, completions)
        self._threads = ThreadPoolExecutor(_THREADS, "store")

    @property
    def is_on(self) -> bool:
        """Whether anything may be kept."""
        return self._shelves is not None

    async def call(self, work: Callable[[Shelves], T]) -> T:
        """The result of `work`. Raises `ApiError` 403 when the store is off, and `StoreUnavailable`."""
        if self._shelves is None:
            raise ApiError(403, "Nothing is stored here: the store is off (PROXY_RLHF_STORE).", "store_disabled")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, self._shelves)
        except StoreUnavailable as error:
            logger.error("the store cannot be used", extra={"reason": str(error)})
            raise

    async def open(self) -> None:
        """Create or migrate the database. Raises `StoreTooNew`; one that cannot be used is tried again by each call."""
        if self._database is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._database.prepare)
            except StoreUnavailable as error:
                logger.error("the store cannot be opened; answers go on", extra={"reason": str(error)})

    async def sweep(self) -> None:
        """Delete what has expired, now and then, until cancelled."""
        while self.is_on:
            try:
                num_completions = await self.call(lambda shelves: shelves.completions.delete_expired())
                num_files = await self.call(lambda shelves: shelves.files.delete_expired())
            except StoreUnavailable:
                num_completions = num_files = 0
            if num_completions or num_files:
                numbers = {"completions": num_completions, "files": num_files}
                logger.info("what had expired was deleted", extra=numbers)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def close(self) -> None:
        """Finish what was begun and let the database go."""
        await asyncio.to_thread(self._threads.shutdown)
        if self._database is not None:
            self._database.close()


def _shelves(database: Database, completions: Completions) -> Shelves:
    return Shelves(completions, FeedbackBook(database, completions), Files(database), Jobs(database), Journal(database))
