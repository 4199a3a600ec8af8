"""Hears of every step of vLLM's engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Beat:
    """The engine after a step."""

    num_running: int = 0
    num_waiting: int = 0
    kv_cache_usage: float = 0.0
    num_ended: int = 0
    """Requests that this step ended."""


def stat_logger(on_step: Callable[[Beat], None]) -> Callable[..., Any]:
    """A stat logger for `AsyncLLM` that calls `on_step` on the event loop, before the answers hear of the step."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Pulse(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            """What vLLM gives is not needed."""

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            """Called by vLLM after each step."""
            if scheduler_stats is not None:
                on_step(
                    Beat(
                        scheduler_stats.num_running_reqs,
                        scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
                        scheduler_stats.kv_cache_usage,
                        0 if iteration_stats is None else len(iteration_stats.finished_requests),
                    )
                )

        def log_engine_initialized(self) -> None:
            """Nothing to say."""

    return Pulse
