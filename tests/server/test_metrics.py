"""The numbers at /metrics add up, and their labels are bounded."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from proxy_model.bank import ProxyRef
from server.backends.protocol import AnswerRecord, EngineStats, ProxyTally
from server.metrics import Metrics
from tests.server.conftest import RunningServer

NAMES = {
    "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
    "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_ratio", "prompt_tokens", "generation_tokens",
    "request_success", "admission_rejections", "proxy_accepted_tokens", "proxy_rejected_tokens", "proxy_forced_accepts",
    "proxy_rejections_per_position", "proxy_rejections_per_request", "proxy_accepted_rank", "proxy_requests",
    "proxy_step_seconds", "proxy_reloads", "proxy_reload_seconds", "proxy_version_info",
}  # fmt: skip


def values(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.expose().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of_version(version: int, model: str = "tiny") -> frozenset[tuple[str, str]]:
    return frozenset({("model", model), ("proxy", "helpful"), ("version", str(version))})


def record(ref: ProxyRef | None, status: str = "stop") -> AnswerRecord:
    return AnswerRecord(
        proxy=ref,
        status=status,
        queue_seconds=0.1,
        prefill_seconds=None if status == "abort" else 0.2,
        decode_seconds=0.4,
        total_seconds=0.7,
        num_rejected=3,
    )


def test_every_promised_name_is_there() -> None:
    families = {family.name for family in text_string_to_metric_families(Metrics().expose().decode())}

    assert families >= NAMES


def test_tallies_and_answers_are_added_up() -> None:
    metrics, ref = Metrics(), ProxyRef(name="helpful", version=4)
    metrics.set_model("tiny")
    tally = ProxyTally(num_accepted=5, num_rejected=3, num_forced=1, positions=Counter({0: 3, 1: 1, 2: 1}))
    stats = EngineStats(tallies={ref: tally, None: ProxyTally(num_accepted=7)}, num_prompt_tokens=11)
    stats.ended = [record(ref), record(ref, "abort"), record(None, "length")]

    metrics.record(stats)
    metrics.record(EngineStats(tallies={ref: ProxyTally(num_accepted=2, positions=Counter({0: 2}))}))

    found = values(metrics)
    model = frozenset({("model", "tiny")})
    assert found["proxy_accepted_tokens_total", of_version(4)] == 7
    assert found["proxy_rejected_tokens_total", of_version(4)] == 3
    assert found["proxy_forced_accepts_total", of_version(4)] == 1
    assert found["generation_tokens_total", model] == 14
    assert found["prompt_tokens_total", model] == 11
    assert found["proxy_rejections_per_position_sum", of_version(4)] == 3
    assert found["proxy_rejections_per_position_count", of_version(4)] == 7
    assert found["proxy_accepted_rank_sum", of_version(4)] == 10
    assert found["request_prefill_time_seconds_count", model] == 2
    assert found["e2e_request_latency_seconds_count", model] == 2
    statuses = {labels: value for (name, labels), value in found.items() if name == "proxy_requests_total"}
    assert sum(statuses.values()) == 3
    assert statuses[of_version(4) | {("status", "abort")}] == 1


def test_old_versions_lose_their_series() -> None:
    metrics = Metrics()
    metrics.set_model("tiny")

    for version in range(1, 201):
        ref = ProxyRef(name="helpful", version=version)
        metrics.record(EngineStats(tallies={ref: ProxyTally(num_accepted=1)}, ended=[record(ref)]))

    found = values(metrics)
    kept = {dict(labels)["version"] for name, labels in found if name == "proxy_accepted_tokens_total"}
    assert kept == {str(version) for version in range(137, 201)}
    assert {dict(labels)["version"] for name, labels in found if name == "proxy_requests_total"} == kept


def test_a_real_answer_leaves_the_right_numbers(server: RunningServer) -> None:
    server.chat(n=2)

    assert server.metric("generation_tokens_total") == 16
    assert server.metric("prompt_tokens_total") == 20
    assert server.metric("time_to_first_token_seconds_count") == 2
    assert server.metric("inter_token_latency_seconds_count") == 14
    assert server.metric("request_queue_time_seconds_count") == 2
    assert server.metric('request_success_total{finished_reason="length",model="tiny"}') == 2
    assert server.metric("proxy_requests_total") == 2
    assert server.metric("num_requests_running") == 0
