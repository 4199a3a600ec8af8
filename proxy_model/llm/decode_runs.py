"""Which decoding sequences are read out of the cache together.

A product over many slots reads as far into each as into the longest. Where sequences differ much, reading them in runs
of neighbours costs less than what is read for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class DecodeRun:
    """Slots `start` to `stop`, each read up to `length`."""

    start: int
    stop: int
    length: int


@lru_cache(maxsize=256)
def decode_runs(lengths: tuple[int, ...], run_cost: int) -> tuple[DecodeRun, ...]:
    """The cheapest cut of the slots into runs; a run costs as much as `run_cost` tokens that are read for nothing.

    `costs[stop]` and `starts[stop]` are the cost of the best cut of the first `stop` slots, and its last run's start.
    """
    costs, starts = [0], [0]
    for stop in range(1, len(lengths) + 1):
        cost, start = _last_run(lengths[:stop], costs, run_cost)
        costs.append(cost)
        starts.append(start)
    runs: list[DecodeRun] = []
    stop = len(lengths)
    while stop:
        start = starts[stop]
        runs.append(DecodeRun(start, stop, max(lengths[start:stop])))
        stop = start
    return tuple(reversed(runs))


def _last_run(lengths: Sequence[int], costs: Sequence[int], run_cost: int) -> tuple[int, int]:
    """Cost of the best cut of all slots, and where its last run starts; ties go to the longer run."""
    best, best_start = run_cost + costs[-1], len(lengths) - 1
    longest = total = 0
    for start in reversed(range(len(lengths))):
        longest, total = max(longest, lengths[start]), total + lengths[start]
        wasted = longest * (len(lengths) - start) - total
        if wasted + run_cost > best:
            break  # a longer run wastes no less
        if costs[start] + wasted + run_cost <= best:
            best, best_start = costs[start] + wasted + run_cost, start
    return best, best_start
