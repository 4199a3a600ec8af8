"""What Prometheus reads at /metrics: the names that people already chart, and the proxy's own.

Labels are bounded: the model, versions that answered lately, and fixed words. Never a token, a prompt or a user.
"""

from collections import OrderedDict
from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from proxy_model.bank import ProxyRef
from server.backends.protocol import AnswerRecord, EngineStats, ProxyTally

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_ITL = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
_REQUEST = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_PER_POSITION = (0, 1, 2, 3, 4, 6, 8, 12, 15, 23, 31)
_PER_REQUEST = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

_PROXY_LABELS = ("model", "proxy", "version")
_MAX_VERSIONS = 64
"""Series of so many versions are kept, the latest used ones; a vanished series is a counter reset to Prometheus."""

BASE_LABELS = ("base", "")


class Metrics:
    """All series of one server, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._model = "loading"
        self._recent: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._make_requests()
        self._make_latencies()
        self._make_proxy()
        ProcessCollector(registry=self.registry)

    def set_model(self, name: str) -> None:
        """The LLM's name, the value of every `model` label from now on."""
        self._model = name
        for gauge in (self._running, self._waiting, self._cache):
            gauge.labels(name)

    def reject_admission(self, reason: str) -> None:
        """A request was turned away before it cost anything: `queue_full`, `context_length`, `not_serving`."""
        self._admission_rejections.labels(self._model, reason).inc()

    def http_request(self, route: str, status: int) -> None:
        """An HTTP request was answered; `route` is the URL's pattern."""
        self._http_requests.labels(route, str(status)).inc()

    def reload(self, result: str, seconds: float | None = None) -> None:
        """A version was `loaded`, or refused for the reason `result`."""
        self._reloads.labels(result).inc()
        if seconds is not None:
            self._reload_seconds.observe(seconds)

    def set_aliases(self, aliases: Mapping[str, Mapping[str, int]]) -> None:
        """Which version each alias means."""
        self._version_info.clear()
        for name, versions in aliases.items():
            for alias, version in versions.items():
                self._version_info.labels(self._model, name, alias, str(version)).set(1)

    def record(self, stats: EngineStats) -> None:
        """Add what an engine did since the last time."""
        model = self._model
        self._running.labels(model).set(stats.num_running)
        self._waiting.labels(model).set(stats.num_waiting)
        self._cache.labels(model).set(stats.kv_cache_usage)
        self._prompt_tokens.labels(model).inc(stats.num_prompt_tokens)
        self._failed_steps.inc(stats.num_failed_steps)
        _observe(self._step_seconds, stats.step_seconds)
        _observe(self._ttft.labels(model), stats.first_token_seconds)
        _observe(self._itl.labels(model), stats.inter_token_seconds)
        for ref, tally in stats.tallies.items():
            self._record_tally(ref, tally)
        for record in stats.ended:
            self._record_answer(record)

    def expose(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)

    def _record_tally(self, ref: ProxyRef | None, tally: ProxyTally) -> None:
        self._generation_tokens.labels(self._model).inc(tally.num_accepted)
        if ref is None:
            return
        labels = self._proxy_labels(ref)
        self._accepted.labels(*labels).inc(tally.num_accepted)
        self._rejected.labels(*labels).inc(tally.num_rejected)
        self._forced.labels(*labels).inc(tally.num_forced)
        per_position, rank = self._per_position.labels(*labels), self._rank.labels(*labels)
        for num_rejected, count in tally.positions.items():
            for _ in range(count):
                per_position.observe(num_rejected)
                rank.observe(num_rejected + 1)

    def _record_answer(self, record: AnswerRecord) -> None:
        labels = self._proxy_labels(record.proxy)
        self._requests.labels(*labels, record.status).inc()
        if record.proxy is not None:
            self._per_request.labels(*labels).observe(record.num_rejected)
        if record.status in ("stop", "length"):
            self._successes.labels(self._model, record.status).inc()
            self._e2e.labels(self._model).observe(record.total_seconds)
        for histogram, seconds in (
            (self._queue, record.queue_seconds),
            (self._prefill, record.prefill_seconds),
            (self._decode, record.decode_seconds),
        ):
            if seconds is not None:
                histogram.labels(self._model).observe(seconds)

    def _proxy_labels(self, ref: ProxyRef | None) -> tuple[str, str, str]:
        """Label values of a version; the version unused for longest loses its series when there are too many."""
        labels = (self._model, *(BASE_LABELS if ref is None else (ref.name, str(ref.version))))
        self._recent[labels] = None
        self._recent.move_to_end(labels)
        if len(self._recent) > _MAX_VERSIONS:
            self._forget(self._recent.popitem(last=False)[0])
        return labels

    def _forget(self, labels: tuple[str, ...]) -> None:
        matching = dict(zip(_PROXY_LABELS, labels, strict=True))
        for metric in (self._accepted, self._rejected, self._forced, self._requests):
            metric.remove_by_labels(matching)
        for histogram in (self._per_position, self._per_request, self._rank):
            histogram.remove_by_labels(matching)

    def _make_requests(self) -> None:
        registry = self.registry
        model = ("model",)
        self._running = Gauge("num_requests_running", "Answers that hold a slot.", model, registry=registry)
        self._waiting = Gauge("num_requests_waiting", "Answers in the queue.", model, registry=registry)
        self._cache = Gauge(
            "kv_cache_usage_ratio", "Share of the slots' tokens taken, 0 to 1.", model, registry=registry
        )
        self._prompt_tokens = Counter("prompt_tokens", "Prompt tokens read.", model, registry=registry)
        self._generation_tokens = Counter("generation_tokens", "Tokens generated.", model, registry=registry)
        self._successes = Counter(
            "request_success", "Answers that ended by themselves.", ("model", "finished_reason"), registry=registry
        )
        self._admission_rejections = Counter(
            "admission_rejections",
            "Requests turned away before they cost anything.",
            ("model", "reason"),
            registry=registry,
        )
        self._http_requests = Counter(
            "http_requests", "HTTP requests answered.", ("route", "status"), registry=registry
        )

    def _make_latencies(self) -> None:
        def seconds(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ("model",), buckets=buckets, registry=self.registry)

        self._ttft = seconds("time_to_first_token_seconds", "From arrival to the first token.", _TTFT)
        self._itl = seconds("inter_token_latency_seconds", "Between two tokens of one answer.", _ITL)
        self._e2e = seconds("e2e_request_latency_seconds", "From arrival to the last token.", _REQUEST)
        self._queue = seconds("request_queue_time_seconds", "From arrival to a slot.", _REQUEST)
        self._prefill = seconds("request_prefill_time_seconds", "From a slot to the first token.", _REQUEST)
        self._decode = seconds("request_decode_time_seconds", "From the first to the last token.", _REQUEST)

    def _make_proxy(self) -> None:
        registry = self.registry

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, (*_PROXY_LABELS, *more), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, _PROXY_LABELS, buckets=buckets, registry=registry)

        self._accepted = counter("proxy_accepted_tokens", "Candidates accepted, forced ones included.")
        self._rejected = counter("proxy_rejected_tokens", "Candidates rejected by the proxy.")
        self._forced = counter("proxy_forced_accepts", "Accepted because SKAM masked the reject.")
        self._requests = counter("proxy_requests", "Answers ended, by how: stop, length, abort, error.", "status")
        self._per_position = histogram("proxy_rejections_per_position", "Rejections before a token.", _PER_POSITION)
        self._rank = histogram(
            "proxy_accepted_rank", "Place of the accepted candidate, from 1.", (1, *_PER_POSITION[2:])
        )
        self._per_request = histogram("proxy_rejections_per_request", "Rejections in an answer.", _PER_REQUEST)
        self._step_seconds = Histogram("proxy_step_seconds", "One decode step.", buckets=_ITL, registry=registry)
        self._failed_steps = Counter("proxy_failed_steps", "Decode steps that threw.", registry=registry)
        self._reloads = Counter(
            "proxy_reloads", "Versions loaded, or refused by reason of refusal.", ("result",), registry=registry
        )
        self._reload_seconds = Histogram(
            "proxy_reload_seconds", "From reading a version to having it loaded.", registry=registry
        )
        self._version_info = Gauge(
            "proxy_version_info",
            "1 for what an alias means.",
            ("model", "proxy", "alias", "version"),
            registry=registry,
        )


def _observe(histogram: Histogram, values: list[float]) -> None:
    for value in values:
        histogram.observe(value)
