"""The numbers at /metrics add up, and their labels are bounded."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy_model.decision.bank import ProxyRef
from server.backends.protocol import AnswerRecord, EngineStats, ProxyTally
from server.telemetry.metrics import Metrics
from server.telemetry.version_series import MAX_VERSIONS
from tests.server.conftest import RunningServer, eventually
from tests.server.fakes import picky_policy, publish

METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
NAMES = {
    "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
    "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_ratio", "prompt_tokens", "prompt_tokens_cached",
    "generation_tokens", "spec_decode_draft_tokens", "spec_decode_accepted_tokens",
    "request_success", "admission_rejections", "proxy_accepted_tokens", "proxy_rejected_tokens", "proxy_forced_accepts",
    "proxy_rejections_per_position", "proxy_rejections_per_request", "proxy_accepted_rank", "proxy_requests",
    "proxy_step_seconds", "proxy_failed_steps", "proxy_reloads", "proxy_reload_seconds", "proxy_version_info",
    "server_ready",
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
    stats = EngineStats(
        tallies={ref: tally, None: ProxyTally(num_accepted=7)}, num_prompt_tokens=11, num_cached_tokens=6
    )
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
    assert found["prompt_tokens_cached_total", model] == 6
    assert found["proxy_rejections_per_position_sum", of_version(4)] == 3
    assert found["proxy_rejections_per_position_count", of_version(4)] == 7
    assert found["proxy_accepted_rank_sum", of_version(4)] == 10
    assert found["request_prefill_time_seconds_count", model] == 2
    assert found["e2e_request_latency_seconds_count", model] == 2
    statuses = {labels: value for (name, labels), value in found.items() if name == "proxy_requests_total"}
    assert sum(statuses.values()) == 3
    assert statuses[of_version(4) | {("status", "abort")}] == 1


def test_a_real_answer_leaves_the_right_numbers(server: RunningServer) -> None:
    server.chat(n=2)

    assert server.metric("generation_tokens_total") == 16
    assert server.metric("prompt_tokens_total") == 20
    assert server.metric("prompt_tokens_cached_total") == 10
    assert server.metric("time_to_first_token_seconds_count") == 2
    assert server.metric("inter_token_latency_seconds_count") == 14
    assert server.metric("request_queue_time_seconds_count") == 2
    assert server.metric('request_success_total{finished_reason="length",model="tiny"}') == 2
    assert server.metric("proxy_requests_total") == 2
    assert server.metric("num_requests_running") == 0


def test_versions_past_the_limit_live_on_in_one_series_of_their_proxy() -> None:
    metrics = Metrics()
    metrics.set_model("tiny")
    metrics.set_loaded([ProxyRef(name="helpful", version=1)])

    for version in range(1, 201):
        ref = ProxyRef(name="helpful", version=version)
        tally = ProxyTally(num_accepted=3, num_rejected=2, positions=Counter({0: 2, 2: 1}))
        metrics.record(EngineStats(tallies={ref: tally}, ended=[record(ref, "abort")]))

    found = values(metrics)
    own = {dict(labels)["version"] for name, labels in found if name == "proxy_accepted_tokens_total"}
    assert own == {"1", "136 retired", *map(str, range(138, 201))}
    retired = frozenset({("model", "tiny"), ("proxy", "helpful"), ("version", "136 retired")})
    assert found["proxy_accepted_tokens_total", retired] == 3 * 136
    assert found["proxy_rejections_per_position_sum", retired] == 2 * 136
    assert found["proxy_accepted_rank_bucket", retired | {("le", "1.0")}] == 2 * 136
    assert sum(value for (name, _), value in found.items() if name == "proxy_requests_total") == 200


def test_a_version_that_comes_back_after_its_retirement_is_not_counted_twice() -> None:
    metrics = Metrics()
    metrics.set_model("tiny")

    for version in [*range(1, MAX_VERSIONS + 2), 1]:
        ref = ProxyRef(name="helpful", version=version)
        metrics.record(EngineStats(tallies={ref: ProxyTally(num_accepted=5)}))

    found = values(metrics)
    accepted = {labels: value for (name, labels), value in found.items() if name == "proxy_accepted_tokens_total"}
    assert accepted[of_version(1)] == 5
    assert sum(accepted.values()) == 5 * (MAX_VERSIONS + 2)


def test_what_may_be_counted_later_is_there_with_zero() -> None:
    metrics = Metrics()
    metrics.set_model("tiny")
    metrics.set_loaded([ProxyRef(name="helpful", version=4)])

    found = values(metrics)

    assert found["proxy_reloads_total", frozenset({("result", "torn")})] == 0
    assert found["proxy_reloads_total", frozenset({("result", "gates")})] == 0
    assert found["proxy_requests_total", of_version(4) | {("status", "error")}] == 0
    assert found["proxy_rejected_tokens_total", of_version(4)] == 0
    assert found["admission_rejections_total", frozenset({("model", "tiny"), ("reason", "queue_full")})] == 0
    assert found["time_to_first_token_seconds_count", frozenset({("model", "tiny")})] == 0


def test_values_on_a_bound_fall_into_its_bucket() -> None:
    metrics = Metrics()
    metrics.set_model("tiny")
    stats = EngineStats()
    for seconds in (0.001, 0.0011, 0.005, 161):
        stats.first_token_seconds.add(seconds)

    metrics.record(stats)

    found = values(metrics)
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "time_to_first_token_seconds_bucket"
    }
    assert [buckets[bound] for bound in ("0.001", "0.005", "160.0", "+Inf")] == [1, 3, 3, 4]
    assert found["time_to_first_token_seconds_sum", frozenset({("model", "tiny")})] == pytest.approx(161.0071)


def test_versions_keep_their_counts_through_a_reload(server: RunningServer) -> None:
    publish(server.proxies, server.llm, policy=picky_policy())
    eventually(lambda: server.chat(model="tiny:helpful").status_code == 200)
    before = server.metric('proxy_rejected_tokens_total{model="tiny",proxy="helpful",version="1"}')

    publish(server.proxies, server.llm)
    eventually(lambda: server.metric('proxy_version_info{alias="stable",model="tiny",proxy="helpful",version="2"}'))
    server.chat(model="tiny:helpful")

    assert before == 16
    assert server.metric('proxy_rejected_tokens_total{model="tiny",proxy="helpful",version="1"}') == before
    assert server.metric('proxy_requests_total{model="tiny",proxy="helpful",status="length",version="2"}') == 1
    assert server.metric('proxy_reloads_total{result="loaded"}') == 2


def test_readiness_is_a_series(server: RunningServer) -> None:
    ready = server.metric("server_ready")

    server.service.num_open += 1  # an answer that goes on, or the process would end
    server.service.is_draining = True

    assert (ready, server.metric("server_ready")) == (1, 0)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_criticise(server: RunningServer) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: server.metric("proxy_version_info") == 1)
    server.chat(n=2)
    server.chat(model="tiny:helpful")

    text = httpx.get(f"{server.url}/metrics").content
    verdict = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)

    assert (verdict.returncode, verdict.stderr.decode()) == (0, "")


def test_the_documentation_names_every_metric_with_its_labels_and_no_other(server: RunningServer) -> None:
    publish(server.proxies, server.llm)
    eventually(lambda: server.metric("proxy_version_info") == 1)
    exposed = {}
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        exposed[name] = labels - {"le"} - ({"model", "proxy", "version"} if "version" in labels else set())

    documented = {}
    for line in METRICS_PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"`[a-z0-9_]+`", cells[0]):
            words = cells[-2] if cells[1] in ("gauge", "counter", "histogram") else cells[1]
            documented[cells[0].strip("`")] = {label for label in words.replace(" ", "").split(",") if label}

    of_trainer = {name for name in documented if name.startswith("proxy_training_")}
    of_process = {name for name in exposed if name.startswith("process_")}
    assert {name: documented[name] for name in documented.keys() - of_trainer} == {
        name: exposed[name] for name in exposed.keys() - of_process
    }
