"""What Prometheus reads at /metrics: the names that people already chart, and the proxy's own (docs/metrics.md).

Labels are bounded: the model, the versions of `version_series`, URL patterns and fixed words. Never a token, a prompt
or a user. Whatever may be counted later is there from the start with 0, since Prometheus sees no increase in a series
that begins at 1.
"""

from collections.abc import Collection, Mapping
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from proxy_model.decision.bank import ProxyRef
from server.backends.protocol import AnswerRecord, EngineStats
from server.telemetry.distribution import (
    FIRST_TOKEN_SECONDS,
    INTER_TOKEN_SECONDS,
    REQUEST_SECONDS,
    STEP_SECONDS,
    Distribution,
)
from server.telemetry.histogram import MergedHistogram
from server.telemetry.version_series import VersionSeries

AdmissionReason = Literal[
    "queue_full", "queue_timeout", "rate_limit_requests", "rate_limit_tokens", "context_length", "not_serving"
]
FINISHED_REASONS = ("stop", "length")
RELOAD_RESULTS = (
    "loaded", "torn", "tampered", "missing", "symlink", "format", "not_finite", "fingerprint", "unsupported",
    "unreadable", "gates",
)  # fmt: skip


class Metrics:
    """All series of one server, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._versions = VersionSeries()
        self.registry.register(self._versions)
        self._make_requests()
        self._make_latencies()
        self._make_server()
        ProcessCollector(registry=self.registry)

    def set_model(self, name: str) -> None:
        """The LLM's name, the value of every `model` label from now on."""
        self._versions.model = name
        for metric in (self._running, self._waiting, self._cache):
            metric.labels(name)
        for counter in (
            self._prompt_tokens,
            self._cached_tokens,
            self._generation_tokens,
            self._drafted_tokens,
            self._accepted_drafts,
        ):
            counter.labels(name)
        for reason in get_args(AdmissionReason):
            self._admission_rejections.labels(name, reason)
        for reason in FINISHED_REASONS:
            self._successes.labels(name, reason)
        for histogram in (self._e2e, self._queue, self._prefill, self._decode):
            histogram.labels(name)
        self.record(EngineStats())

    def set_ready(self, is_ready: bool) -> None:
        """Whether /ready answers 200."""
        self._ready.set(is_ready)

    def set_loaded(self, refs: Collection[ProxyRef]) -> None:
        """The versions that are loaded now."""
        self._versions.set_loaded(refs)

    def reject_admission(self, reason: AdmissionReason) -> None:
        """A request was turned away before it cost anything."""
        self._admission_rejections.labels(self._versions.model, reason).inc()

    def http_request(self, route: str, status: int) -> None:
        """An HTTP request was answered; `route` is the URL's pattern."""
        self._http_requests.labels(route, str(status)).inc()

    def canary_rollback(self, measure: str) -> None:
        """The guard took a canary back because its `error`, `garble` or `rejection` rate had left its band."""
        self._canary_rollbacks.labels(measure).inc()

    def reload(self, result: str, seconds: float | None = None) -> None:
        """A version was `loaded`, or refused for the reason `result`: one of `RELOAD_RESULTS`."""
        self._reloads.labels(result).inc()
        if seconds is not None:
            self._reload_seconds.observe(seconds)

    def set_aliases(self, aliases: Mapping[str, Mapping[str, int]]) -> None:
        """Which version each alias means."""
        self._version_info.clear()
        for name, versions in aliases.items():
            for alias, version in versions.items():
                self._version_info.labels(self._versions.model, name, alias, str(version)).set(1)

    def record(self, stats: EngineStats) -> None:
        """Add what an engine did since the last time."""
        model = self._versions.model
        self._running.labels(model).set(stats.num_running)
        self._waiting.labels(model).set(stats.num_waiting)
        self._cache.labels(model).set(stats.kv_cache_usage)
        self._prompt_tokens.labels(model).inc(stats.num_prompt_tokens)
        self._cached_tokens.labels(model).inc(stats.num_cached_tokens)
        self._generation_tokens.labels(model).inc(sum(tally.num_accepted for tally in stats.tallies.values()))
        self._drafted_tokens.labels(model).inc(stats.num_drafted_tokens)
        self._accepted_drafts.labels(model).inc(stats.num_accepted_drafts)
        self._failed_steps.inc(stats.num_failed_steps)
        self._step_seconds.merge((), stats.step_seconds)
        self._ttft.merge((model,), stats.first_token_seconds)
        self._itl.merge((model,), stats.inter_token_seconds)
        self._versions.add(stats.tallies.items(), stats.ended)
        for record in stats.ended:
            self._record_answer(record)

    def expose(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)

    def _record_answer(self, record: AnswerRecord) -> None:
        model = self._versions.model
        if record.status in FINISHED_REASONS:
            self._successes.labels(model, record.status).inc()
            self._e2e.labels(model).observe(record.total_seconds)
        for histogram, seconds in (
            (self._queue, record.queue_seconds),
            (self._prefill, record.prefill_seconds),
            (self._decode, record.decode_seconds),
        ):
            if seconds is not None:
                histogram.labels(model).observe(seconds)

    def _make_requests(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ("model",), registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self._running = gauge("num_requests_running", "Answers that hold a slot.")
        self._waiting = gauge("num_requests_waiting", "Answers in the queue.")
        self._cache = gauge("kv_cache_usage_ratio", "Share of the slots' tokens that are taken, 0 to 1.")
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts.", "model")
        self._cached_tokens = counter(
            "prompt_tokens_cached", "Tokens of prompts that were copied from another prompt, not read.", "model"
        )
        self._generation_tokens = counter("generation_tokens", "Tokens generated.", "model")
        self._drafted_tokens = counter("spec_decode_draft_tokens", "Tokens read ahead of their answers.", "model")
        self._accepted_drafts = counter(
            "spec_decode_accepted_tokens", "Those of them with which the answers went on.", "model"
        )
        self._successes = counter("request_success", "Answers that ended by themselves.", "model", "finished_reason")
        self._admission_rejections = counter(
            "admission_rejections", "Requests turned away before they cost anything.", "model", "reason"
        )
        self._http_requests = counter("http_requests", "HTTP requests answered.", "route", "status")

    def _make_latencies(self) -> None:
        def merged(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> MergedHistogram:
            return MergedHistogram(name, text, labels, bounds=bounds, registry=self.registry)

        def of_answers(name: str, text: str) -> Histogram:
            return Histogram(name, text, ("model",), buckets=REQUEST_SECONDS, registry=self.registry)

        self._ttft = merged(
            "time_to_first_token_seconds", "From arrival to the first token.", FIRST_TOKEN_SECONDS, "model"
        )
        self._itl = merged(
            "inter_token_latency_seconds", "Between two tokens of one answer.", INTER_TOKEN_SECONDS, "model"
        )
        self._step_seconds = merged("proxy_step_seconds", "One decode step.", STEP_SECONDS)
        self._step_seconds.merge((), Distribution(STEP_SECONDS))
        self._e2e = of_answers("e2e_request_latency_seconds", "From arrival to the last token.")
        self._queue = of_answers("request_queue_time_seconds", "From arrival to a slot.")
        self._prefill = of_answers("request_prefill_time_seconds", "From a slot to the first token.")
        self._decode = of_answers("request_decode_time_seconds", "From the first to the last token.")

    def _make_server(self) -> None:
        registry = self.registry
        self._ready = Gauge("server_ready", "1 while /ready answers 200, else 0.", registry=registry)
        self._failed_steps = Counter("proxy_failed_steps", "Decode steps that threw.", registry=registry)
        self._reloads = Counter(
            "proxy_reloads", "Versions loaded, or refused by reason of refusal.", ("result",), registry=registry
        )
        for result in RELOAD_RESULTS:
            self._reloads.labels(result)
        self._canary_rollbacks = Counter(
            "proxy_canary_rollbacks", "Canaries that their guard took back.", ("measure",), registry=registry
        )
        for measure in ("error", "garble", "rejection"):
            self._canary_rollbacks.labels(measure)
        self._reload_seconds = Histogram(
            "proxy_reload_seconds", "From reading a version to having it loaded.", registry=registry
        )
        self._version_info = Gauge(
            "proxy_version_info",
            "1 for the version that an alias means.",
            ("model", "proxy", "alias", "version"),
            registry=registry,
        )
