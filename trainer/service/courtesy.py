"""Standing back for a server on the same machine: training rests while that has answers to give.

Between two pieces of work, a decode step or an update, training looks how long the last one took. While the server is
busy it then rests until that is a share of the time that has passed. So over a piece and its rest the server can lose
no more than the share, however the machine divides its cores. Processor time is no measure: a server whose threads wait
for one another lost 13 to 17 % to a trainer at nice 10 that had 9 % of one of its two cores.
"""

import logging
import time
from collections.abc import Callable

import httpx

from trainer.api_key import bearer

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""Between two looks at the server, which has to write its metrics for each."""

_NAP_SECONDS = 0.05
"""How soon a rest ends that is not needed any more."""

Rest = Callable[[Callable[[], bool]], None]
"""What is done between two pieces of work; it ends once its argument says so."""

_GAUGES = ("num_requests_running", "num_requests_waiting")


class ServerLoad:
    """Whether the server with these `/metrics` has answers to give; one that does not tell has none."""

    def __init__(
        self, metrics_url: str, key: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._client = httpx.Client(headers=bearer(key), timeout=_LOOK_SECONDS, transport=transport)
        self._url = metrics_url
        self._problem = ""

    def is_busy(self) -> bool:
        """A look at it. What keeps it from telling is logged once."""
        try:
            response = self._client.get(self._url)
            response.raise_for_status()
        except httpx.HTTPError as error:
            self._note(str(error) or type(error).__name__)
            return False
        self._note("")
        return any(_value(line) > 0 for line in response.text.splitlines() if line.startswith(_GAUGES))

    def _note(self, problem: str) -> None:
        if problem and not self._problem:
            logger.warning("the server's load is not known, so training does not stand back for it: %s", problem)
        self._problem = problem


class Courtesy:
    """Keeps training to `share` of the time while `is_busy`. `clock`, in seconds, and `sleep` are for tests."""

    def __init__(
        self,
        share: float,
        is_busy: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._share = share
        self._ask = is_busy
        self._clock = clock
        self._sleep = sleep
        self._looked_at = float("-inf")
        self._is_busy = False
        self._begun = clock()

    def rest(self, must_end: Callable[[], bool]) -> None:
        """Make up for the work since the last rest, as long as the server is busy and not `must_end`."""
        until = self._begun + (self._clock() - self._begun) / self._share
        while self._clock() < until and self._server_is_busy() and not must_end():
            self._sleep(min(_NAP_SECONDS, max(until - self._clock(), 0.0)))
        self._begun = self._clock()

    def _server_is_busy(self) -> bool:
        if self._clock() - self._looked_at >= _LOOK_SECONDS:
            self._is_busy = self._ask()
            self._looked_at = self._clock()
        return self._is_busy


def no_rest(must_end: Callable[[], bool]) -> None:
    """Nobody is to be stood back for."""


def _value(line: str) -> float:
    return float(line.rpartition(" ")[2])
