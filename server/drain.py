"""uvicorn that ends as operators want it: not ready at SIGTERM, running answers finish, then it leaves."""

import asyncio
import logging
import time
from types import FrameType

import uvicorn

from server.malformed import HttpProtocol
from server.service import Service

logger = logging.getLogger(__name__)

_FORCED_SECONDS = 2
"""What answers that are cut off by the deadline get to send their error."""


class DrainingServer(uvicorn.Server):
    """Answers probes until the last answer is out; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        config.timeout_graceful_shutdown = _FORCED_SECONDS
        config.http = HttpProtocol
        super().__init__(config)
        self.exit_code = 0
        self._service = service
        self._deadline = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler; uvicorn's own would close the sockets at once and re-raise the signal at the end."""
        if self._service.is_draining:
            self.force_exit = self.should_exit = True
        self._service.is_draining = True
        self._deadline = time.monotonic() + self._service.settings.drain_seconds

    def fail(self) -> None:
        """Leave with exit code 1: there is nothing to serve with."""
        self.exit_code = 1
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._service.is_draining and not self.should_exit:
            is_late = time.monotonic() > self._deadline
            if is_late:
                logger.warning("the deadline cuts answers off", extra={"open_requests": self._service.num_open})
                await self._service.backend.stop()
                await asyncio.sleep(0)
            self.should_exit = is_late or self._service.num_open == 0
        return await super().on_tick(counter)
