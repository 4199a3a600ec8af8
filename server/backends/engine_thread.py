"""The engine's own thread: it builds the engine, steps it, and runs commands between two steps."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from proxy_model.decoding.engine import BROKEN, Engine
from proxy_model.decoding.request import Delta, GenerationRequest
from proxy_model.errors import EngineDead, EngineFull
from server.backends.protocol import OVERDUE, EngineStats
from server.backends.recorder import StatsRecorder
from server.backends.waiting_line import WaitingLine

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_FAILED_STEPS = 3
"""So many failing steps without a good one between them, and the engine counts as dead."""

_STOP_SECONDS = 5.0
"""What a step that is under way gets to end when the engine is told to stop."""


class Listener(Protocol):
    """Hears from the engine's thread, on that thread."""

    def on_deltas(self, deltas: list[Delta]) -> None:
        """A step yielded these."""

    def on_dead(self, error: BaseException) -> None:
        """The thread is over and will not come back."""


class EngineThread:
    """Owns an engine. Public methods may be called from any thread."""

    def __init__(self, build: Callable[[], Engine], listener: Listener, line: WaitingLine) -> None:
        self.loaded: Future[Engine] = Future()
        self._build = build
        self._listener = listener
        self._commands: queue.SimpleQueue[Callable[[Engine], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_over = False
        self._recorder = StatsRecorder()
        self._line = line
        self.seconds_to_serve = 0.0
        """Until everyone who waits has been served, as of the last step."""

        self._num_failed = 0
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to load; `loaded` tells when it is done."""
        self._thread.start()

    def stop(self) -> bool:
        """Leave after the current step and wait for that; False when it does not end."""
        self._commands.put(None)
        self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def call(self, function: Callable[[Engine], T]) -> "Future[T]":
        """Run `function` between two steps, in the order of the calls. Raises `EngineDead` in the future."""
        future: Future[T] = Future()

        def command(engine: Engine) -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(engine))
                except Exception as error:  # noqa: BLE001 - it is the caller's, not the engine's
                    future.set_exception(error)

        with self._lock:
            if self._is_over:
                future.set_exception(EngineDead("the engine has stopped"))
            else:
                self._commands.put(command)
        return future

    def submit(self, request: GenerationRequest) -> "Future[None]":
        """Queue a request."""
        arrived = time.monotonic()

        def submit(engine: Engine) -> None:
            self._line.check(request, time.monotonic())
            try:
                engine.submit(request)
            except EngineFull as error:
                raise EngineFull(str(error), self._line.seconds_to_serve(time.monotonic())) from error
            self._line.join(request, arrived)
            self._recorder.submitted(request, arrived)

        return self.call(submit)

    def abort(self, request_id: str) -> None:
        """End a request before the next step; ended and unknown ones are ignored."""

        def abort(engine: Engine) -> None:
            self._abort(engine, request_id, "abort")

        self.call(abort)

    def drain_stats(self) -> EngineStats:
        """What happened since the last call, and how full the engine is."""
        if not self.loaded.done() or self.loaded.exception() is not None:
            return EngineStats()
        engine = self.loaded.result()
        return self._recorder.drain(engine.num_running, engine.num_waiting, engine.kv_cache_usage)

    @property
    def seconds_in_step(self) -> float:
        """How long the current step has taken; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def _run(self) -> None:
        try:
            engine = self._build()
            self.loaded.set_result(engine)
            self._serve(engine)
            self._end(EngineDead("the engine was stopped"))
        except BaseException as error:
            if self.loaded.done():
                logger.critical("the decode loop has died", exc_info=True)
            else:
                self.loaded.set_exception(error)
            self._end(error)

    def _serve(self, engine: Engine) -> None:
        while self._run_commands(engine):
            self._send_away(engine, self._line.overdue(time.monotonic()), OVERDUE)
            if engine.has_work:
                self._step(engine)

    def _run_commands(self, engine: Engine) -> bool:
        """Run what was asked for meanwhile; waits for something when there is nothing to decode. False: leave."""
        must_wait = not engine.has_work
        while True:
            try:
                command = self._commands.get(block=must_wait)
            except queue.Empty:
                return True
            if command is None:
                return False
            command(engine)
            must_wait = False

    def _step(self, engine: Engine) -> None:
        began = self._step_began = time.monotonic()
        num_drafted, num_accepted = engine.num_drafted, engine.num_accepted_drafts
        try:
            deltas = engine.step()
        except Exception as error:
            logger.exception("a decode step failed")
            self._recorder.failed_step()
            self._num_failed += 1
            if self._num_failed >= _MAX_FAILED_STEPS:
                raise EngineDead(f"{self._num_failed} decode steps failed in a row") from error
            self._fail_running(engine)
        else:
            self._num_failed = 0
            self._recorder.stepped(began, engine.num_running, deltas)
            self._recorder.drafted(engine.num_drafted - num_drafted, engine.num_accepted_drafts - num_accepted)
            self._move_up(engine, deltas)
            self._listener.on_deltas(deltas)
        finally:
            self._step_began = None

    def _fail_running(self, engine: Engine) -> None:
        """End whatever took part in the failed step; the queue goes on."""
        self._send_away(engine, self._recorder.oldest(max(1, engine.num_running)), BROKEN)

    def _send_away(self, engine: Engine, request_ids: list[str], error: str) -> None:
        for request_id in request_ids:
            self._abort(engine, request_id, "error")
        if request_ids:
            ends = [Delta(request_id=request_id, finish_reason="error", error=error) for request_id in request_ids]
            self._listener.on_deltas(ends)

    def _abort(self, engine: Engine, request_id: str, status: str) -> None:
        engine.abort(request_id)
        self._line.leave(request_id, time.monotonic())
        self._recorder.ended(request_id, status)

    def _move_up(self, engine: Engine, deltas: list[Delta]) -> None:
        """Who ended held a slot until now."""
        now = time.monotonic()
        ended = [delta.request_id for delta in deltas if delta.finish_reason is not None]
        self._line.move_up(engine.num_running + len(ended), now)
        for request_id in ended:
            self._line.leave(request_id, now)
        self.seconds_to_serve = self._line.seconds_to_serve(now)

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self._is_over = True
        self._listener.on_dead(error)
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if command is not None:
                command(_DeadEngine())  # type: ignore[arg-type]


class _DeadEngine:
    """Answers every command that was still queued."""

    def __getattr__(self, name: str) -> object:
        raise EngineDead("the engine has stopped")
