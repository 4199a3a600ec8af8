"""How vLLM gets on: who waits and who runs, what has been counted, and when it was last seen to do something."""

import time

from proxy_model.decoding.request import Delta, GenerationRequest
from server.backends.protocol import EngineStats
from server.backends.recorder import StatsRecorder
from server.backends.vllm.pulse import Beat
from server.backends.waiting_line import LineLimits, WaitingLine


class Progress:
    """The queue and the metrics of one engine. Belongs to the event loop's thread."""

    def __init__(self, limits: LineLimits) -> None:
        self._line = WaitingLine(limits)
        self._recorder = StatsRecorder()
        self._beat = Beat()
        self._open: set[str] = set()
        self._last_sign = 0.0
        """When vLLM was last seen to get on, or to have nothing to do; monotonic seconds."""

    def arrived(self, request: GenerationRequest) -> None:
        """One more request. Raises `EngineFull` where the queue's tokens leave no room."""
        now = time.monotonic()
        self._line.check(request, now)
        if not self._open:
            self._last_sign = now
        self._open.add(request.id)
        self._line.join(request, now)
        self._recorder.submitted(request, now)

    def yielded(self, delta: Delta) -> None:
        """A request's next delta, perhaps its last."""
        self._recorder.yielded(delta)
        if delta.finish_reason is not None:
            self._leave(delta.request_id)

    def ended(self, request_id: str, status: str) -> None:
        """A request ended otherwise than by its last delta: `abort` or `error`."""
        self._leave(request_id)
        self._recorder.ended(request_id, status)

    def stepped(self, beat: Beat) -> None:
        """vLLM has made a step."""
        now, num_in_step = time.monotonic(), beat.num_running + beat.num_ended
        self._recorder.stepped(self._last_sign, num_in_step, ())
        self._line.move_up(num_in_step, now)
        self._beat, self._last_sign = beat, now

    def overdue(self) -> list[str]:
        """Ids of those who have waited too long."""
        return self._line.overdue(time.monotonic())

    @property
    def seconds_to_serve(self) -> float:
        """Until everyone who waits now has been served, as measured."""
        return self._line.seconds_to_serve(time.monotonic())

    @property
    def seconds_without_sign(self) -> float:
        """Since the last step, while there is something to answer."""
        return time.monotonic() - self._last_sign if self._open else 0.0

    def drain(self) -> EngineStats:
        """What happened since the last call."""
        return self._recorder.drain(self._beat.num_running, self._beat.num_waiting, self._beat.kv_cache_usage)

    def _leave(self, request_id: str) -> None:
        self._open.discard(request_id)
        self._line.leave(request_id, time.monotonic())
