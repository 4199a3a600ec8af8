"""Histograms as plain numbers: counted where something happens, without a lock, and added up in bulk later."""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client.utils import floatToGoString

FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
)  # fmt: skip
INTER_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
STEP_SECONDS = (0.0005, 0.001, 0.0025, *INTER_TOKEN_SECONDS)
REQUEST_SECONDS = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
REJECTIONS_PER_POSITION = (0, 1, 2, 3, 4, 6, 8, 12, 15, 23, 31)
ACCEPTED_RANK = (1, 2, 3, 4, 5, 7, 9, 13, 16, 24, 32)
REJECTIONS_PER_REQUEST = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Distribution:
    """How often values fell between `bounds` (ascending upper bounds, inclusive), and their sum. Not thread-safe."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of all values."""

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self._counts)

    def add(self, value: float, times: int = 1) -> None:
        """One value, seen so often."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    def merge(self, other: "Distribution") -> None:
        """All values of another distribution over the same bounds."""
        assert self._bounds == other._bounds
        self._counts = [own + more for own, more in zip(self._counts, other._counts, strict=True)]
        self.total += other.total

    def buckets(self) -> list[tuple[str, float]]:
        """(`le`, number of values up to it), as Prometheus writes them, `+Inf` last."""
        found, running = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            running += count
            found.append((floatToGoString(bound), float(running)))  # type: ignore[no-untyped-call]
        return found
