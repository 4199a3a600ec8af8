"""The engine that serves, with a watch on every token."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.request import Delta, GenerationRequest, PositionDecisions
from trainer.evaluation.answer import Answer


class TimedEngine(Engine):
    """Notes when each answer's tokens come, and their decisions where the request asks for them."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._gaps: dict[str, list[float]] = defaultdict(list)
        self._last: dict[str, float] = {}
        self._decisions: dict[str, list[PositionDecisions]] = defaultdict(list)

    def step(self) -> list[Delta]:
        """`Engine.step`, noted."""
        deltas = super().step()
        now = time.perf_counter()
        for delta in deltas:
            self._decisions[delta.request_id] += delta.decisions
            if delta.token_ids:
                if (last := self._last.get(delta.request_id)) is not None:
                    self._gaps[delta.request_id].append(1000 * (now - last))
                self._last[delta.request_id] = now
        return deltas

    def answers(self, requests: Sequence[GenerationRequest], before_step: Callable[[], None]) -> list[Answer]:
        """Run `requests` to their ends, in their order. Raises what `before_step` raises."""
        for notes in (self._gaps, self._last, self._decisions):
            notes.clear()
        started = time.perf_counter()
        finished = self.generate(requests, before_step)
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Answer.of(each, seconds, self._gaps[each.request_id], self._decisions[each.request_id]) for each in finished
        ]
