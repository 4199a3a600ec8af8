"""The proxy: what it rejects, by version and over time, what is loaded, and how the canary does against stable."""

from panels import Dashboard, Panel, Query, Row

_P = 'model=~"$model", proxy=~"$proxy"'
_VERSION = "{{proxy}}@{{version}}"
_ALIAS = "{{proxy}} {{alias}} (@{{version}})"
_BY = "model, proxy, version"


def _rate(name: str, labels: str = _P) -> str:
    return f"rate({name}{{{labels}}}[$__rate_interval])"


def _ratio(above: str, below: str, labels: str = _P) -> str:
    """Of two counters, by version; versions without traffic have no line."""
    return f"sum by ({_BY}) ({_rate(above, labels)}) / (sum by ({_BY}) ({_rate(below)}) > 0)"


def _of_aliases(ratio: str) -> str:
    """The same for what each alias means now."""
    info = f"max by (model, proxy, alias, version) (proxy_version_info{{{_P}}})"
    return f"{info} * on ({_BY}) group_left () ({ratio})"


def _quantile(q: float, name: str) -> str:
    return f"histogram_quantile({q}, sum by ({_BY}, le) ({_rate(f'{name}_bucket')}))"


_REJECTIONS = _ratio("proxy_rejected_tokens_total", "proxy_accepted_tokens_total")
_FORCED = _ratio("proxy_forced_accepts_total", "proxy_accepted_tokens_total")
_ERRORS = _ratio("proxy_requests_total", "proxy_requests_total", _P + ', status="error"')
_UNFINISHED = _ratio("proxy_requests_total", "proxy_requests_total", _P + ', status="length"')

_RELOADS = "increase(proxy_reload_seconds_%s[$__range])"

_DECISIONS = Row(
    "Decisions",
    [
        Panel(
            title="Rejections per token", width=12, height=9,
            about="proxy_rejected_tokens_total / proxy_accepted_tokens_total, by version.",
            queries=[Query(_REJECTIONS, _VERSION)],
        ),
        Panel(
            title="Forced share", width=12, height=9, unit="percentunit", upper=1,
            about="proxy_forced_accepts_total / proxy_accepted_tokens_total: tokens that the proxy could not reject.",
            queries=[Query(_FORCED, _VERSION)],
        ),
        Panel(
            title="Accepted rank, mean", about="Place of the accepted candidate in its slate, from 1.",
            queries=[Query(_ratio("proxy_accepted_rank_sum", "proxy_accepted_rank_count"), _VERSION)],
        ),
        Panel(
            title="Accepted rank, all of them", kind="heatmap",
            about="How many tokens were accepted at which place of their slate.",
            queries=[
                Query(f"sum by (le) (increase(proxy_accepted_rank_bucket{{{_P}}}[$__rate_interval]))", "{{le}}")
            ],
        ),
        Panel(
            title="Rejections before a token, p95", about="Of positions, by version.",
            queries=[Query(_quantile(0.95, "proxy_rejections_per_position"), _VERSION)],
        ),
        Panel(
            title="Rejections in an answer", about="Median and p95 of whole answers, by version.",
            queries=[
                Query(_quantile(0.5, "proxy_rejections_per_request"), f"{_VERSION} p50"),
                Query(_quantile(0.95, "proxy_rejections_per_request"), f"{_VERSION} p95"),
            ],
        ),
        Panel(
            title="Tokens a second", is_stacked=True, about="Tokens generated under each version.",
            queries=[Query(f"sum by ({_BY}) ({_rate('proxy_accepted_tokens_total')}) > 0", _VERSION)],
        ),
        Panel(
            title="Cut at the limit", unit="percentunit", upper=1,
            about="Answers that ended by `length` / answers ended, by version: a proxy that never ends shows here.",
            queries=[Query(_UNFINISHED, _VERSION)],
        ),
    ],
)  # fmt: skip

_VERSIONS = Row(
    "Versions",
    [
        Panel(
            title="What aliases mean", kind="table", about="proxy_version_info now.",
            queries=[Query(f"max by (model, proxy, alias, version) (proxy_version_info{{{_P}}})")],
        ),
        Panel(
            title="What aliases meant", kind="state-timeline", width=16, about="proxy_version_info over time.",
            queries=[Query(f"max by (model, proxy, alias, version) (proxy_version_info{{{_P}}})", _ALIAS)],
        ),
        Panel(
            title="Reloads", about="Versions loaded, or refused by reason, in the interval.", is_stacked=True,
            queries=[Query("sum by (result) (increase(proxy_reloads_total[$__rate_interval]))", "{{result}}")],
        ),
        Panel(
            title="Reload, seconds", unit="s", about="From reading a version to having it loaded between two steps.",
            queries=[
                Query(f"histogram_quantile(0.95, sum by (le) ({_RELOADS % 'bucket'}))", "p95"),
                Query(f"sum({_RELOADS % 'sum'}) / sum({_RELOADS % 'count'})", "mean"),
            ],
        ),
    ],
)  # fmt: skip

_CANARY = Row(
    "Canary against stable",
    [
        Panel(
            title="Rejections per token", about="Of what each alias means now.",
            queries=[Query(_of_aliases(_REJECTIONS), _ALIAS)],
        ),
        Panel(
            title="Forced share", unit="percentunit", upper=1, about="Of what each alias means now.",
            queries=[Query(_of_aliases(_FORCED), _ALIAS)],
        ),
        Panel(
            title="Answers that fail", unit="percentunit", about="Answers ended by an error / answers ended.",
            queries=[Query(_of_aliases(_ERRORS), _ALIAS)],
        ),
        Panel(
            title="Cut at the limit", unit="percentunit", upper=1, about="Answers ended by `length` / answers ended.",
            queries=[Query(_of_aliases(_UNFINISHED), _ALIAS)],
        ),
        Panel(
            title="Accepted rank, mean", about="Place of the accepted candidate, from 1.",
            queries=[
                Query(_of_aliases(_ratio("proxy_accepted_rank_sum", "proxy_accepted_rank_count")), _ALIAS)
            ],
        ),
        Panel(
            title="Taken back by the guard", is_stacked=True,
            about="Canaries whose error, garble or rejection rate left its band, in the interval.",
            queries=[
                Query("sum by (measure) (increase(proxy_canary_rollbacks_total[$__rate_interval]))", "{{measure}}")
            ],
        ),
        Panel(
            title="Answers", unit="reqps", is_stacked=True, about="Traffic of each alias.",
            queries=[Query(_of_aliases(f"sum by ({_BY}) ({_rate('proxy_requests_total')})"), _ALIAS)],
        ),
    ],
)  # fmt: skip

PROXY = Dashboard(
    uid="proxy-rlhf-proxy",
    title="The proxy",
    about="What it rejects, by version and over time, what is loaded, and how the canary does against stable.",
    variables=[
        ("model", "label_values(num_requests_running, model)"),
        ("proxy", 'label_values(proxy_accepted_tokens_total{model=~"$model"}, proxy)'),
    ],
    annotations=[
        Query('sum(increase(proxy_reloads_total{result="loaded"}[1m])) > 0', "a version was loaded"),
        Query('sum(increase(proxy_reloads_total{result!="loaded"}[1m])) > 0', "a version was refused"),
    ],
    rows=[_DECISIONS, _VERSIONS, _CANARY],
)
