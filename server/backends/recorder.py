"""Counts what an engine does, on the engine's thread, for the metrics."""

import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.request import Delta, GenerationRequest
from server.backends.protocol import AnswerRecord, EngineStats, ProxyTally


@dataclass(slots=True)
class _Journey:
    """One request on its way; monotonic times in seconds."""

    proxy: ProxyRef | None
    num_prompt: int
    submitted: float
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    num_tokens: int = 0
    num_rejected: int = 0


class StatsRecorder:
    """Follows requests from queue to end. All methods but `drain` belong to the engine's thread."""

    def __init__(self) -> None:
        self._journeys: dict[str, _Journey] = {}
        self._stats = EngineStats()
        self._lock = threading.Lock()

    def submitted(self, request: GenerationRequest, at: float) -> None:
        """The engine took `request`, which arrived `at`."""
        self._journeys[request.id] = _Journey(request.proxy, len(request.prompt_token_ids), at)

    def stepped(self, began: float, num_running: int, deltas: Iterable[Delta]) -> None:
        """A step that began at `began` has yielded `deltas`; `num_running` requests hold a slot after it.

        The queue is first come, first served: whoever holds a slot, or ended in this step, is among the oldest.
        """
        now = time.monotonic()
        with self._lock:
            self._stats.step_seconds.add(now - began)
            deltas = list(deltas)
            num_ended = sum(delta.finish_reason is not None for delta in deltas)
            for journey in itertools.islice(self._journeys.values(), num_running + num_ended):
                if journey.started is None:
                    journey.started = began
            for delta in deltas:
                self._note(delta, now)

    def drafted(self, num_tokens: int, num_accepted: int) -> None:
        """So many tokens were read ahead of their answers, and so many of them were right."""
        with self._lock:
            self._stats.num_drafted_tokens += num_tokens
            self._stats.num_accepted_drafts += num_accepted

    def yielded(self, delta: Delta) -> None:
        """A delta that came apart from its step: `stepped` was told of none."""
        with self._lock:
            self._note(delta, time.monotonic())

    def failed_step(self) -> None:
        """A step threw."""
        with self._lock:
            self._stats.num_failed_steps += 1

    def oldest(self, count: int) -> list[str]:
        """Ids of the `count` requests that came first, of those that have not ended."""
        return list(itertools.islice(self._journeys, count))

    def ended(self, request_id: str, status: str) -> None:
        """A request ended otherwise than by its last delta: `abort` or `error`."""
        with self._lock:
            self._end(request_id, status, time.monotonic())

    def drain(self, num_running: int, num_waiting: int, kv_cache_usage: float) -> EngineStats:
        """What was counted since the last call."""
        with self._lock:
            stats, self._stats = self._stats, EngineStats()
        stats.num_running, stats.num_waiting, stats.kv_cache_usage = num_running, num_waiting, kv_cache_usage
        return stats

    def _note(self, delta: Delta, now: float) -> None:
        journey = self._journeys.get(delta.request_id)
        if journey is None:
            return
        if delta.token_ids:
            self._note_tokens(journey, delta, now)
        elif delta.finish_reason is not None and journey.first_token is None:
            self._note_prompt(journey, delta)  # that was only read
        if delta.finish_reason is not None:
            self._end(delta.request_id, delta.finish_reason, now)

    def _note_tokens(self, journey: _Journey, delta: Delta, now: float) -> None:
        if journey.last_token is None:
            journey.first_token = now
            self._stats.first_token_seconds.add(now - journey.submitted)
            self._note_prompt(journey, delta)
        else:
            self._stats.inter_token_seconds.add(now - journey.last_token)
        journey.last_token = now
        journey.num_tokens += len(delta.token_ids)
        journey.num_rejected += delta.num_rejected
        tally = self._stats.tallies.setdefault(journey.proxy, ProxyTally())
        tally.num_accepted += delta.num_accepted
        tally.num_rejected += delta.num_rejected
        tally.num_forced += delta.num_forced
        tally.positions[delta.num_rejected] += 1

    def _note_prompt(self, journey: _Journey, delta: Delta) -> None:
        self._stats.num_prompt_tokens += journey.num_prompt
        self._stats.num_cached_tokens += delta.num_cached

    def _end(self, request_id: str, status: str, now: float) -> None:
        journey = self._journeys.pop(request_id, None)
        if journey is None:
            return
        self._stats.ended.append(
            AnswerRecord(
                proxy=journey.proxy,
                status=status,
                queue_seconds=_between(journey.submitted, journey.started),
                prefill_seconds=_between(journey.started, journey.first_token),
                decode_seconds=_between(journey.first_token, journey.last_token),
                total_seconds=now - journey.submitted,
                num_rejected=journey.num_rejected,
                request_id=request_id,
                num_prompt_tokens=journey.num_prompt,
                num_tokens=journey.num_tokens,
                ended=now,
            )
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
