"""OpenTelemetry traces: one span for a request, one for each of its answers, and queue, prefill and decode below that.

Needs the extra `otel`; imported only when an OTLP endpoint is configured. Attributes have the names of the semantic
conventions for HTTP and for generative AI, and none of them holds a prompt or an answer.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from server.backends.protocol import AnswerRecord

_MAX_EXPECTED = 4096
"""Answers that may be on their way; what the engine refused is forgotten by and by."""


@dataclass(frozen=True, slots=True)
class _Expected:
    context: Context
    operation: str
    model: str


class Tracing:
    """Makes spans and hands them to `exporter` in the background."""

    def __init__(self, exporter: SpanExporter) -> None:
        resource = Resource({"service.name": "proxy-rlhf"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("server.telemetry.tracing")
        self._expected: OrderedDict[str, _Expected] = OrderedDict()

    def begin(self, scope: Scope) -> "RequestTrace":
        """A request has come; its `traceparent` is honoured."""
        carrier = dict(Headers(scope=scope))
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        span = self._tracer.start_span(
            f"{scope['method']} {scope['path']}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        return RequestTrace(span, scope["path"], self._expected)

    def answered(self, record: AnswerRecord) -> None:
        """An answer has ended: its spans, with the times that the engine has noted."""
        expected = self._expected.pop(record.request_id, None)
        if expected is None:
            return
        end = record.ended - time.monotonic() + time.time()
        start = end - record.total_seconds
        name = f"{expected.operation} {expected.model}"
        span = self._tracer.start_span(
            name, context=expected.context, start_time=_nanoseconds(start), attributes=_attributes(record, expected)
        )
        if record.status == "error":
            span.set_status(Status(StatusCode.ERROR))
        below = trace.set_span_in_context(span)
        phases = {"queue": record.queue_seconds, "prefill": record.prefill_seconds, "decode": record.decode_seconds}
        for phase, seconds in phases.items():
            if seconds is not None:
                child = self._tracer.start_span(phase, context=below, start_time=_nanoseconds(start))
                start += seconds
                child.end(_nanoseconds(start))
        span.end(_nanoseconds(end))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class RequestTrace:
    """The span of one HTTP request."""

    def __init__(self, span: Span, path: str, expected: OrderedDict[str, _Expected]) -> None:
        self._span = span
        self._operation = "text_completion" if path.endswith("/v1/completions") else "chat"
        self._expected = expected

    def expect(self, request_id: str, model: str) -> None:
        """The engine was asked for an answer, whose spans belong below this one."""
        context = trace.set_span_in_context(self._span)
        self._expected[request_id] = _Expected(context, self._operation, model)
        while len(self._expected) > _MAX_EXPECTED:
            self._expected.popitem(last=False)

    def end(self, route: str, status: int, request_id: str, key: str | None) -> None:
        """The request, of the API key named `key`, has been answered with `status`."""
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        self._span.set_attribute("proxy_rlhf.request_id", request_id)
        if key is not None:
            self._span.set_attribute("proxy_rlhf.key", key)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _attributes(record: AnswerRecord, expected: _Expected) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": expected.operation,
        "gen_ai.provider.name": "proxy-rlhf",
        "gen_ai.request.model": expected.model,
        "gen_ai.response.model": expected.model,
        "gen_ai.response.id": record.request_id,
        "gen_ai.response.finish_reasons": [record.status],
        "gen_ai.usage.input_tokens": record.num_prompt_tokens,
        "gen_ai.usage.output_tokens": record.num_tokens,
        "proxy_rlhf.proxy": "base" if record.proxy is None else record.proxy.name,
        "proxy_rlhf.rejections": record.num_rejected,
    }
    if record.proxy is not None:
        attributes["proxy_rlhf.version"] = record.proxy.version
    return attributes


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
