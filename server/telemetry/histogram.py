"""A Prometheus histogram that takes whole distributions; the client library's own takes one value a time."""

import threading
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server.telemetry.distribution import Distribution


class MergedHistogram(Collector):
    """One family; may be collected from any thread."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._labels = tuple(labels)
        self._bounds = bounds
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], Distribution] = {}
        registry.register(self)

    def merge(self, labels: tuple[str, ...], more: Distribution) -> None:
        """Add what was counted meanwhile; an empty distribution makes the series appear at 0."""
        with self._lock:
            self._series.setdefault(labels, Distribution(self._bounds)).merge(more)

    def describe(self) -> list[Metric]:
        """The family without its series, for the registry."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterator[Metric]:
        """The family with its series."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        with self._lock:
            for labels, distribution in self._series.items():
                family.add_metric(labels, distribution.buckets(), distribution.total)
        yield family
