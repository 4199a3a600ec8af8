"""Standing back for a server on the same machine: training rests while that has answers to give.

Between two pieces of work, a decode step or an update, training looks how much processor time the last one took. While
the server is busy it then rests until that is at most a share of the time that has passed. So over a piece and its rest
the server can lose no more than the share, however the machine divides its cores.
"""

import logging
import time
from collections.abc import Callable

import httpx

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
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(headers=headers, timeout=_LOOK_SECONDS, transport=transport)
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
    """Keeps training to `share` of one processor core's time while `is_busy`.

    `clocks` are those of the wall and of the process's processor time, in seconds; for tests, as is `sleep`.
    """

    def __init__(
        self,
        share: float,
        is_busy: Callable[[], bool],
        *,
        clocks: tuple[Callable[[], float], Callable[[], float]] = (time.monotonic, time.process_time),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._share = share
        self._ask = is_busy
        self._wall, self._processor = clocks
        self._sleep = sleep
        self._looked_at = float("-inf")
        self._is_busy = False
        self._begun = self._wall(), self._processor()

    def rest(self, must_end: Callable[[], bool]) -> None:
        """Make up for the work since the last rest, as long as the server is busy and not `must_end`."""
        began, used = self._begun[0], self._processor() - self._begun[1]
        until = began + used / self._share
        while self._wall() < until and self._server_is_busy() and not must_end():
            self._sleep(min(_NAP_SECONDS, max(until - self._wall(), 0.0)))
        self._begun = self._wall(), self._processor()

    def _server_is_busy(self) -> bool:
        if self._wall() - self._looked_at >= _LOOK_SECONDS:
            self._is_busy = self._ask()
            self._looked_at = self._wall()
        return self._is_busy


def no_rest(must_end: Callable[[], bool]) -> None:
    """Nobody is to be stood back for."""


def _value(line: str) -> float:
    return float(line.rpartition(" ")[2])
