"""How long the decode loop's single steps take, those that read prompts left out."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Steps:
    """What happened from the first request to the last token."""

    prefill_seconds: float
    """Until every sequence had its first token."""

    longest_prefill_step: float
    """In seconds; so long would a running answer have waited for its next token."""

    decode_seconds: tuple[float, ...]
    """Of each later step: one token of every sequence."""

    num_accepted: int
    num_rejected: int


def run_steps(engine: Engine, requests: Iterable[GenerationRequest]) -> Steps:
    """Answer requests of one length that all fit into a step, and time the steps."""
    pending = list(requests)
    for request in pending:
        engine.submit(request)
    times: list[float] = []
    started_answers: set[str] = set()
    accepted = rejected = 0
    started = last = time.perf_counter()
    prefill = longest = 0.0
    while engine.has_work:
        deltas = engine.step()
        now = time.perf_counter()
        if len(started_answers) < len(pending):
            started_answers.update(delta.request_id for delta in deltas)
            prefill, longest = now - started, max(longest, now - last)
        elif len(deltas) == len(pending):
            times.append(now - last)
        last = now
        accepted += sum(delta.num_accepted for delta in deltas)
        rejected += sum(delta.num_rejected for delta in deltas)
    return Steps(prefill, longest, tuple(times), accepted, rejected)
