"""Traffic and latency: is it up, how much does it do, how long do people wait, what does it refuse."""

from panels import Dashboard, Panel, Query, Row

_M = 'model=~"$model"'
_PROBES = 'route!~"/health|/ready|/metrics"'


def _rate(name: str, labels: str = _M) -> str:
    return f"rate({name}{{{labels}}}[$__rate_interval])"


def _quantiles(name: str) -> list[Query]:
    buckets = f"sum by (le) ({_rate(f'{name}_bucket')})"
    return [Query(f"histogram_quantile({q}, {buckets})", f"p{round(100 * q)}") for q in (0.5, 0.95, 0.99)]


def _mean(name: str, legend: str) -> Query:
    return Query(f"sum({_rate(f'{name}_sum')}) / sum({_rate(f'{name}_count')})", legend)


_FAILED_REQUESTS = _rate("http_requests_total", f'{_PROBES}, status=~"5.."')
_HTTP_ERRORS = f"(sum({_FAILED_REQUESTS}) or vector(0)) / sum({_rate('http_requests_total', _PROBES)})"
_FAILED_ANSWERS = _rate("proxy_requests_total", f'{_M}, status="error"')
_ANSWER_ERRORS = f"sum({_FAILED_ANSWERS}) / sum({_rate('proxy_requests_total')})"

_NOW = Row(
    "Now",
    [
        Panel(
            title="Servers ready", kind="stat", width=4, height=4, steps=((None, "red"), (1, "green")),
            about="Servers whose /ready answers 200.", queries=[Query("sum(server_ready)")],
        ),
        Panel(
            title="Running", kind="stat", width=4, height=4, about="Answers that hold a slot.",
            queries=[Query(f"sum(num_requests_running{{{_M}}})")],
        ),
        Panel(
            title="Waiting", kind="stat", width=4, height=4, about="Answers in the queue.",
            steps=((None, "green"), (32, "orange"), (200, "red")),
            queries=[Query(f"sum(num_requests_waiting{{{_M}}})")],
        ),
        Panel(
            title="Tokens a second", kind="stat", width=4, height=4, about="Tokens generated.",
            queries=[Query(f"sum({_rate('generation_tokens_total')})")],
        ),
        Panel(
            title="First token, p95", kind="stat", width=4, height=4, unit="s", about="From arrival to first token.",
            steps=((None, "green"), (2, "orange"), (5, "red")), queries=[_quantiles("time_to_first_token_seconds")[1]],
        ),
        Panel(
            title="Answers that fail", kind="stat", width=4, height=4, unit="percentunit",
            about="Answers ended by an error / answers ended.",
            steps=((None, "green"), (0.001, "orange"), (0.01, "red")), queries=[Query(_ANSWER_ERRORS)],
        ),
    ],
)  # fmt: skip

_TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            title="Answers ended", unit="reqps", is_stacked=True, about="By how: stop, length, abort, error.",
            queries=[Query(f"sum by (status) ({_rate('proxy_requests_total')})", "{{status}}")],
        ),
        Panel(
            title="HTTP requests", unit="reqps", is_stacked=True, about="By status; probes left out.",
            queries=[Query(f"sum by (status) ({_rate('http_requests_total', _PROBES)})", "{{status}}")],
        ),
        Panel(
            title="Requests that fail", unit="percentunit",
            about="5xx / all HTTP requests, and answers ended by an error / answers ended. A stream that fails midway "
            "has status 200 and is seen in the latter only.",
            queries=[Query(_HTTP_ERRORS, "HTTP 5xx"), Query(_ANSWER_ERRORS, "answers")],
        ),
        Panel(
            title="Tokens a second",
            about="Of prompts, those of them that were not read anew, and generated; those of these that took no pass.",
            queries=[
                Query(f"sum({_rate('prompt_tokens_total')})", "prompt"),
                Query(f"sum({_rate('prompt_tokens_cached_total')})", "prompt, cached"),
                Query(f"sum({_rate('generation_tokens_total')})", "generated"),
                Query(f"sum({_rate('spec_decode_accepted_tokens_total')})", "generated, drafted"),
            ],
        ),
        Panel(
            title="Answers at once", about="Holding a slot, and in the queue.",
            queries=[
                Query(f"sum(num_requests_running{{{_M}}})", "running"),
                Query(f"sum(num_requests_waiting{{{_M}}})", "waiting"),
            ],
        ),
        Panel(
            title="Turned away", unit="reqps", about="Requests refused before they cost anything, by reason.",
            queries=[Query(f"sum by (reason) ({_rate('admission_rejections_total')})", "{{reason}}")],
        ),
    ],
)  # fmt: skip

_LATENCY = Row(
    "Latency",
    [
        Panel(
            title="Time to first token", unit="s", about="From arrival to first token = queue + prefill.",
            queries=_quantiles("time_to_first_token_seconds"),
        ),
        Panel(
            title="Time between tokens", unit="s", about="Between two tokens of one answer.",
            queries=_quantiles("inter_token_latency_seconds"),
        ),
        Panel(
            title="Whole answers", unit="s", about="From arrival to last token, of answers that ended by themselves.",
            queries=_quantiles("e2e_request_latency_seconds"),
        ),
        Panel(
            title="Where the time goes", unit="s", is_stacked=True,
            about="Mean seconds of an answer in the queue, reading its prompt, and decoding.",
            queries=[
                _mean("request_queue_time_seconds", "queue"),
                _mean("request_prefill_time_seconds", "prefill"),
                _mean("request_decode_time_seconds", "decode"),
            ],
        ),
        Panel(
            title="First token, all of them", kind="heatmap", width=16, unit="s",
            about="How many answers had their first token after how long.",
            queries=[
                Query(
                    f"sum by (le) (increase(time_to_first_token_seconds_bucket{{{_M}}}[$__rate_interval]))", "{{le}}"
                )
            ],
        ),
    ],
)  # fmt: skip

_MACHINE = Row(
    "Engine and machine",
    [
        Panel(
            title="Decode step", unit="s", about="An LLM pass, the proxies' decisions and the deltas.",
            queries=[
                Query(f"histogram_quantile({q}, sum by (le) ({_rate('proxy_step_seconds_bucket', '')}))", name)
                for q, name in ((0.5, "p50"), (0.95, "p95"))
            ],
        ),
        Panel(
            title="Decode steps", unit="ops", about="Steps a second, and steps that threw.",
            queries=[
                Query(f"sum by (instance) ({_rate('proxy_step_seconds_count', '')})", "{{instance}}"),
                Query(f"sum by (instance) ({_rate('proxy_failed_steps_total', '')})", "{{instance}} failed"),
            ],
        ),
        Panel(
            title="Cache in use", unit="percentunit", upper=1, about="Tokens in slots / (slots x context).",
            queries=[Query(f"kv_cache_usage_ratio{{{_M}}}", "{{instance}}")],
        ),
        Panel(
            title="Memory", unit="bytes", about="Resident memory of each server.",
            queries=[Query('process_resident_memory_bytes{job="server"}', "{{instance}}")],
        ),
        Panel(
            title="Processor", unit="short", about="Cores in use by each server.",
            queries=[Query(_rate("process_cpu_seconds_total", 'job="server"'), "{{instance}}")],
        ),
        Panel(
            title="Open files", about="Sockets and files of each server: grows with clients, and must fall with them.",
            queries=[Query('process_open_fds{job="server"}', "{{instance}}")],
        ),
    ],
)  # fmt: skip

TRAFFIC = Dashboard(
    uid="proxy-rlhf-traffic",
    title="Traffic and latency",
    about="Is it up, how much does it do, how long do people wait, what does it refuse.",
    variables=[("model", "label_values(num_requests_running, model)")],
    annotations=[
        Query('sum(increase(proxy_reloads_total{result="loaded"}[1m])) > 0', "a proxy was loaded"),
    ],
    rows=[_NOW, _TRAFFIC, _LATENCY, _MACHINE],
)
