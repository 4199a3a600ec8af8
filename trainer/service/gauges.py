"""What Prometheus sees of training: every number of `trainer.metrics.METRICS`, and what the service itself counts."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from trainer.feedback.pairs import Supply
from trainer.metrics import HELD_OUT_METRICS, METRICS, SERVED_METRICS, TERM

_METRICS = {**METRICS, **HELD_OUT_METRICS, **SERVED_METRICS}
_STATES = ("waiting", "training", "failing", "stopping")


def series_name(metric: str) -> str:
    """`reward/raw_mean` is the series `proxy_training_reward_raw_mean`."""
    return f"proxy_training_{metric.replace('/', '_')}"


class TrainingGauges:
    """One per process. The numbers of an iteration carry the proxy's name; only the proxy at work has series."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._proxy = ""
        self._metrics = {name: self._gauge(series_name(name), text) for name, text in _METRICS.items()}
        text = "Mean score of a term of the reward, before its weight."
        self._terms = Gauge("proxy_training_reward_term", text, ("proxy", "term"), registry=self.registry)
        self._alarms = self._gauge("proxy_training_alarms", "alarms on the run after its last iteration")
        self._when = self._gauge("proxy_training_last_iteration_timestamp_seconds", "end of the last iteration")
        self._iterations = self._counter("iterations", "iterations done by this process")
        self._versions = self._counter("published_versions", "versions published by this process")
        self._refusals = self._counter("gate_refusals", "versions that did not pass their gates")
        self._feedback = self._gauge("proxy_training_feedback", "pieces of feedback that may be trained on")
        text = "preference pairs from feedback that no round has learned from"
        self._new_pairs = self._gauge("proxy_training_feedback_new_pairs", text)
        self._failures = Counter("proxy_training_failures", "Attempts at a run that failed.", registry=self.registry)
        self._state = Gauge(
            "proxy_training_state", "1 for what the service does now.", ("state",), registry=self.registry
        )
        self.set_state("waiting")

    def begin(self, proxy: str) -> None:
        """A run of `proxy` begins; another proxy's series end."""
        if proxy != self._proxy:
            counts = (self._alarms, self._when, self._iterations, self._versions, self._refusals)
            for metric in (*self._metrics.values(), self._terms, *counts):
                metric.clear()
        self._proxy = proxy
        self._iterations.labels(proxy)
        self._versions.labels(proxy)
        self._refusals.labels(proxy)

    def record(self, row: Mapping[str, float], num_alarms: int) -> None:
        """One iteration is done."""
        for name, value in row.items():
            if name.startswith(TERM):
                self._terms.labels(self._proxy, name.removeprefix(TERM)).set(value)
            else:
                self._metrics[name].labels(self._proxy).set(value)
        self._alarms.labels(self._proxy).set(num_alarms)
        self._when.labels(self._proxy).set_to_current_time()
        self._iterations.labels(self._proxy).inc()

    def set_supply(self, proxy: str, supply: Supply) -> None:
        """What has been said for the next round of `proxy`."""
        self._feedback.labels(proxy).set(supply.feedback)
        self._new_pairs.labels(proxy).set(supply.new_pairs)

    def count_version(self) -> None:
        """A version was published."""
        self._versions.labels(self._proxy).inc()

    def count_refusal(self) -> None:
        """A version did not pass its gates."""
        self._refusals.labels(self._proxy).inc()

    def count_failure(self) -> None:
        """An attempt failed."""
        self._failures.inc()

    def set_state(self, state: str) -> None:
        """What the service does: waiting, training, failing or stopping."""
        for each in _STATES:
            self._state.labels(each).set(each == state)

    def expose(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, f"{text[0].upper()}{text[1:]}.", ("proxy",), registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"proxy_training_{name}", f"{text[0].upper()}{text[1:]}.", ("proxy",), registry=self.registry)
