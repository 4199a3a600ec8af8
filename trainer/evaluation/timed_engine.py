"""The engine that serves, with a watch on every token."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.request import Delta, Finished, GenerationRequest, PositionDecisions
from trainer.evaluation.answer import Answer


class TimedEngine(Engine):
    """Notes when each answer's tokens come, and their decisions where the request asks for them."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._queue: deque[str] = deque()
        self._started: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._gaps: dict[str, list[float]] = defaultdict(list)
        self._last: dict[str, float] = {}
        self._decisions: dict[str, list[PositionDecisions]] = defaultdict(list)

    def submit(self, request: GenerationRequest) -> None:
        """`Engine.submit`, noted."""
        super().submit(request)
        self._queue.append(request.id)

    def step(self) -> list[Delta]:
        """`Engine.step`, noted."""
        began = time.perf_counter()
        deltas = super().step()
        while len(self._queue) > self.num_waiting:  # first come, first served
            self._started[self._queue.popleft()] = began
        now = time.perf_counter()
        for delta in deltas:
            self._decisions[delta.request_id] += delta.decisions
            if delta.token_ids:
                if (last := self._last.get(delta.request_id)) is not None:
                    self._gaps[delta.request_id].append(1000 * (now - last))
                else:
                    self._first[delta.request_id] = 1000 * (now - self._started[delta.request_id])
                self._last[delta.request_id] = now
        return deltas

    def answers(self, requests: Sequence[GenerationRequest], before_step: Callable[[], None]) -> list[Answer]:
        """Run `requests` to their ends, in their order. Raises what `before_step` raises."""
        for notes in (self._queue, self._started, self._first, self._gaps, self._last, self._decisions):
            notes.clear()
        started = time.perf_counter()
        finished = self.generate(requests, before_step)
        seconds = (time.perf_counter() - started) / len(requests)
        return [self._answer(each, seconds) for each in finished]

    def _answer(self, finished: Finished, seconds: float) -> Answer:
        key = finished.request_id
        return Answer.of(finished, seconds, self._first[key], self._gaps[key], self._decisions[key])
