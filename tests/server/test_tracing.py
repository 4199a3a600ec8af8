"""Traces arrive at a real OTLP receiver, with the conventions' names and the engine's times."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from server.settings import wants_traces
from server.telemetry.tracing import Tracing
from tests.endpoint import Answer, Asked
from tests.server.conftest import RunningServer, chat_body, eventually
from tests.server.fakes import publish
from tests.server.test_reload import serves

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "my-secret-prompt"


class Receiver:
    """A collector that keeps every span."""

    def __init__(self, listen: Callable[[Answer], str]) -> None:
        self.spans: list[Any] = []
        self.bodies: list[bytes] = []
        self.endpoint = f"{listen(self._answer)}/v1/traces"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def _answer(self, asked: Asked) -> tuple[int, bytes]:
        self.bodies.append(asked.body)
        for resource in ExportTraceServiceRequest.FromString(asked.body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return 200, b""


@pytest.fixture
def receiver(listen: Callable[[Answer], str]) -> Receiver:
    return Receiver(listen)


def attributes(span: Any) -> dict[str, Any]:
    def value(found: Any) -> Any:
        kind = found.WhichOneof("value")
        return [value(each) for each in found.array_value.values] if kind == "array_value" else getattr(found, kind)

    return {each.key: value(each.value) for each in span.attributes}


def seconds(span: Any) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_a_request_is_a_trace_from_queue_to_last_token(start: Callable[..., RunningServer], receiver: Receiver) -> None:
    server = start(max_running=1, api_keys=("alice:sk-alice-0001",))
    publish(server.proxies, server.llm)
    eventually(lambda: serves(server, 1))
    tracing = server.service.tracing = Tracing(OTLPSpanExporter(endpoint=receiver.endpoint))
    server.engine.step_seconds = 0.02
    headers = {"authorization": "Bearer sk-alice-0001", "traceparent": PARENT, "x-request-id": "mine-7"}

    answered = httpx.post(
        f"{server.url}/v1/chat/completions",
        json=chat_body(SECRET, max_tokens=11, ignore_eos=True, n=2),
        headers=headers,
        timeout=60,
    )
    refused = httpx.post(f"{server.url}/v1/chat/completions", json={"model": "x"}, headers=headers)
    eventually(lambda: server.service.num_open == 0)
    server.service.record_stats()
    eventually(lambda: not tracing._expected, "the answers' records")
    tracing.close()

    assert (answered.status_code, refused.status_code) == (200, 400)
    good, bad = receiver.named("POST /v1/chat/completions")
    assert good.trace_id.hex() == PARENT.split("-")[1]
    assert good.parent_span_id.hex() == PARENT.split("-")[2]
    assert attributes(good) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "proxy_rlhf.request_id": "mine-7",
        "proxy_rlhf.key": "alice",
    }
    assert attributes(bad)["http.response.status_code"] == 400
    answers = receiver.named("chat tiny")
    assert {answer.parent_span_id for answer in answers} == {good.span_id}
    described = attributes(answers[0])
    usage = answered.json()["usage"]
    assert described["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert described["gen_ai.usage.output_tokens"] == 11
    assert described["gen_ai.response.finish_reasons"] == ["length"]
    assert described["gen_ai.request.model"] == "tiny"
    assert (described["proxy_rlhf.proxy"], described["proxy_rlhf.version"]) == ("helpful", 1)
    by_answer = {
        answer.span_id: {span.name: span for span in receiver.spans if span.parent_span_id == answer.span_id}
        for answer in answers
    }
    assert [sorted(phases) for phases in by_answer.values()] == [["decode", "prefill", "queue"]] * 2
    for phases in by_answer.values():
        assert seconds(phases["decode"]) >= 10 * 0.02
        assert phases["queue"].end_time_unix_nano <= phases["decode"].start_time_unix_nano
    first, second = sorted(seconds(phases["queue"]) for phases in by_answer.values())
    assert second - first >= 11 * 0.02  # one slot: the second answer waits for the first one
    assert not any(SECRET.encode() in body or b"sk-alice" in body for body in receiver.bodies)


def test_a_broken_answer_is_an_error_and_a_dead_receiver_harms_nobody(
    start: Callable[..., RunningServer], receiver: Receiver
) -> None:
    server = start()
    tracing = server.service.tracing = Tracing(OTLPSpanExporter(endpoint=receiver.endpoint))
    server.engine.failures = 1

    assert server.chat().status_code == 500
    eventually(lambda: server.service.num_open == 0)
    server.service.record_stats()
    tracing.close()
    server.service.tracing = Tracing(OTLPSpanExporter(endpoint="http://127.0.0.1:9/v1/traces", timeout=0.2))
    after = server.chat()
    server.service.tracing.close()

    assert [span.status.code for span in receiver.spans] == [2, 2]  # ERROR: the request and its answer
    assert after.status_code == 200


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_traces_are_kept_when_somebody_takes_them(environment: dict[str, str], wanted: bool) -> None:
    assert wants_traces(environment) is wanted
