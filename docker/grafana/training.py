"""Training: does the reward rise, does the proxy stay near the LLM, does PPO behave, is it still at work."""

from panels import Dashboard, Panel, Query, Row

from trainer.metrics import METRICS
from trainer.service.gauges import series_name

_P = 'proxy=~"$proxy"'

_CHARTS: dict[str, list[tuple[str, str, list[str]]]] = {
    "Reward": [
        ("Reward", "short", ["reward/raw_mean"]),
        ("Spread within a batch", "short", ["reward/raw_sd"]),
        ("What PPO sees", "short", ["reward/normalised", "reward/penalty", "reward/return"]),
    ],
    "The proxy": [
        ("Accept rate and forced share", "percentunit", ["proxy/accept_rate", "proxy/forced_share"]),
        ("Rejections and rank", "short", ["proxy/rejections_per_token", "proxy/mean_rank"]),
        ("Entropy", "short", ["proxy/entropy", "update/entropy"]),
    ],
    "The answers: garble and collapse show here": [
        ("NLL under the LLM", "short", ["answer/nll", "answer/gap"]),
        ("KL to the prior", "short", ["answer/kl_to_prior"]),
        ("Length", "short", ["answer/length"]),
        ("Ended by themselves", "percentunit", ["answer/eos_rate"]),
    ],
    "The update": [
        ("KL of an update", "short", ["update/approx_kl"]),
        ("Clipped", "percentunit", ["update/clip_fraction", "update/value_clip_fraction"]),
        ("Losses", "short", ["update/policy_loss", "update/value_loss", "update/ptx_loss"]),
        ("Explained variance", "short", ["update/explained_variance"]),
        ("Gradient norms", "short", ["update/actor_grad_norm", "update/critic_grad_norm"]),
        ("Epochs and learning rate", "short", ["update/policy_epochs", "update/learning_rate"]),
    ],
    "Speed": [
        ("Seconds of an iteration", "s", ["speed/rollout_seconds", "speed/score_seconds", "speed/update_seconds"]),
        ("Tokens a second", "short", ["speed/tokens_per_second", "speed/learnt_tokens_per_second"]),
        ("Peak memory, MiB", "mbytes", ["speed/peak_rss_mib"]),
        ("Progress", "short", ["progress/iteration", "progress/prompts"]),
    ],
}
"""Title, unit and metrics of each chart, by row."""


def _chart(title: str, unit: str, names: list[str]) -> Panel:
    return Panel(
        title=title, unit=unit, minimum=None, about="; ".join(f"{name}: {METRICS[name]}" for name in names),
        queries=[Query(f"{series_name(name)}{{{_P}}}", f"{{{{proxy}}}} {name.partition('/')[2]}") for name in names],
    )  # fmt: skip


def _uncharted() -> list[Panel]:
    """Metrics that no chart above shows get one each, so that a new one is never missing."""
    charted = {name for charts in _CHARTS.values() for _, _, names in charts for name in names}
    return [_chart(name, "short", [name]) for name in METRICS if name not in charted]


_NOW = Row(
    "Now",
    [
        Panel(
            title="The trainer", kind="state-timeline", width=12, height=5,
            about="What the service does: waiting for work, training, failing and trying again, stopping.",
            queries=[Query("sum by (state) (proxy_training_state)", "{{state}}")],
        ),
        Panel(
            title="Alarms", kind="stat", width=4, height=5, steps=((None, "green"), (1, "red")),
            about="What is wrong with the run by its history: collapse, drift, or no signal. The log says which.",
            queries=[Query(f"sum(proxy_training_alarms{{{_P}}})")],
        ),
        Panel(
            title="Since the last iteration", kind="stat", width=4, height=5, unit="s",
            about="Seconds since an iteration ended.",
            queries=[Query(f"time() - max(proxy_training_last_iteration_timestamp_seconds{{{_P}}})")],
        ),
        Panel(
            title="Versions published", kind="stat", width=4, height=5, about="By this process.",
            queries=[Query(f"sum(proxy_training_published_versions_total{{{_P}}})")],
        ),
        Panel(
            title="Iterations and versions", width=12, about="In the interval; refused: by their gates.",
            queries=[
                Query(f"increase(proxy_training_iterations_total{{{_P}}}[$__rate_interval])", "{{proxy}} iterations"),
                Query(
                    f"increase(proxy_training_published_versions_total{{{_P}}}[$__rate_interval])", "{{proxy}} versions"
                ),
                Query(f"increase(proxy_training_gate_refusals_total{{{_P}}}[$__rate_interval])", "{{proxy}} refused"),
            ],
        ),
        Panel(
            title="Failed attempts", width=12, about="Attempts at a run that failed, in the interval.",
            queries=[Query("sum(increase(proxy_training_failures_total[$__rate_interval]))", "failures")],
        ),
    ],
)  # fmt: skip

TRAINING = Dashboard(
    uid="proxy-rlhf-training",
    title="Training",
    about="Does the reward rise, does the proxy stay near the LLM, does PPO behave, is it still at work.",
    variables=[("proxy", "label_values(proxy_training_iterations_total, proxy)")],
    annotations=[
        Query("sum by (proxy) (increase(proxy_training_published_versions_total[1m])) > 0", "{{proxy}} published")
    ],
    rows=[
        _NOW,
        *(Row(title, [_chart(*chart) for chart in charts]) for title, charts in _CHARTS.items()),
        *([Row("More", _uncharted())] if _uncharted() else []),
    ],
)
