"""An answer between a backend, which pushes deltas, and whoever reads them."""

import asyncio
from collections.abc import Callable

from proxy_model.decoding.request import Delta
from proxy_model.errors import EngineDead
from server.backends.protocol import UNREAD


class QueuedAnswer:
    """The deltas of one request, as its backend hands them over."""

    def __init__(
        self, request_id: str, admission: "asyncio.Future[None]", close: Callable[[str], None], max_unread: int
    ) -> None:
        self._request_id = request_id
        self._admission = admission
        self._admission.add_done_callback(_retrieve)
        self._close = close
        self._max_unread = max_unread
        self._deltas: asyncio.Queue[Delta] = asyncio.Queue()
        self._is_over = False

    async def admitted(self) -> None:
        """Wait until the engine has the request, or raise its refusal."""
        try:
            await asyncio.shield(self._admission)
        except asyncio.CancelledError:
            if self._admission.cancelled():
                raise EngineDead("the decode loop does not answer") from None
            raise

    def refuse(self) -> None:
        """The engine will not come round to taking the request."""
        self._admission.cancel()

    def push(self, delta: Delta) -> None:
        """One more delta, from the backend. An answer that nobody reads is given up: its deltas go, an error stays."""
        if self._deltas.qsize() < self._max_unread:
            self._deltas.put_nowait(delta)
            return
        self._close(self._request_id)
        self._deltas = asyncio.Queue()
        self._deltas.put_nowait(Delta(request_id=self._request_id, finish_reason="error", error=UNREAD))

    def __aiter__(self) -> "QueuedAnswer":
        return self

    async def __anext__(self) -> Delta:
        if self._is_over:
            raise StopAsyncIteration
        await self.admitted()
        delta = await self._deltas.get()
        self._is_over = delta.finish_reason is not None
        return delta

    async def aclose(self) -> None:
        """Abort the request if it has not ended."""
        self._is_over = True
        self._close(self._request_id)


def _retrieve(admission: "asyncio.Future[None]") -> None:
    """A refusal that nobody waits for is no news."""
    if not admission.cancelled():
        admission.exception()
