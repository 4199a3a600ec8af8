"""What Prometheus sees of the store's fine-tuning jobs: how many there are of each status."""

import logging
from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from proxy_model.errors import StoreTooNew, StoreUnavailable
from store.fine_tuning.jobs import Jobs, Status

logger = logging.getLogger(__name__)


class JobCensus(Collector):
    """Counted at each scrape. No series while the store cannot be used: an old count would pass for a new one."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The series' name, without a look into the store."""
        yield _family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every status, those that no job has with 0."""
        family = _family()
        try:
            counts = self._jobs.counts()
        except (StoreUnavailable, StoreTooNew) as error:
            logger.error("the store cannot be used", extra={"reason": str(error)})
        else:
            for status in get_args(Status):
                family.add_metric((status,), counts.get(status, 0))
        yield family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily("proxy_training_jobs", "Fine-tuning jobs in the store.", labels=("status",))
