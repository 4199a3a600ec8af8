"""Two or more ways to do one thing, timed in turn, so that a busy moment of the machine falls on each."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

Figure = TypeVar("Figure")


@dataclass(frozen=True, slots=True)
class Spread:
    """What some rounds gave."""

    median: float
    low: float
    """Lower quartile."""

    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def alternate(
    ways: Mapping[str, Callable[[], Figure]], rounds: int, *, must_warm_up: bool = True
) -> dict[str, list[Figure]]:
    """Each way's figures of `rounds` rounds, after one that warms up; each round begins with another way."""
    names = list(ways)
    found: dict[str, list[Figure]] = {name: [] for name in names}
    for number in range(0 if must_warm_up else 1, rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figure = ways[name]()
            if number:
                found[name].append(figure)
    return found


def ratios(figures: Sequence[float], base: Sequence[float]) -> Spread:
    """A way's figures over another way's in the same rounds."""
    return Spread.of([mine / its for mine, its in zip(figures, base, strict=True)])
