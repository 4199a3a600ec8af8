"""A proxy's card, made from what was measured: what it is, what it was trained on, what it won and what it lost.

`card.md` is for people, `card.json` for a checkpoint's card; with several proxies in the table they are named by row.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from trainer.evaluation.groups import Groups
from trainer.evaluation.origin import Origin
from trainer.evaluation.report import EvaluationReport
from trainer.evaluation.rows import SystemRow


def write_cards(folder: Path, report: EvaluationReport) -> list[Path]:
    """A card for every proxy of the table, of sweeps and versions one, into `folder`; returns the Markdown files."""
    proxies = [row for row in Groups.of(report.rows).headline if row.kind == "proxy"]
    found = []
    for row in proxies:
        name = "card" if len(proxies) == 1 else f"card-{_file_name(row.system)}"
        path = folder / f"{name}.md"
        path.write_text(markdown(report, row), encoding="utf-8")
        (folder / f"{name}.json").write_text(json.dumps(_numbers(report, row), indent=2) + "\n", encoding="utf-8")
        found.append(path)
    return found


def markdown(report: EvaluationReport, row: SystemRow) -> str:
    """The card of one row."""
    beside = [each for each in report.rows if each.kind in ("base", "random", "accept-all") or each is row]
    parts = [
        f"# {row.system}: a proxy for {report.model}",
        "It accepts or rejects the tokens that the frozen LLM proposes (arXiv:2403.04283); the LLM stays as it is.",
        "## Training",
        "\n".join(f"- {line}" for line in _training(row)),
        "## Results",
        _verdict(report, row),
        replace(report, rows=tuple(beside)).markdown().strip(),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(report, row)),
    ]
    return "\n\n".join(parts) + "\n"


def _training(row: SystemRow) -> list[str]:
    lines = [f"p_t {row.p_t:g}, temperature {row.temperature:g}"] if row.p_t is not None else []
    if not row.origins:
        return [*lines, "nothing is known of its training"]
    first = row.origins[0]
    lines.append(f"{first.num_parameters:,} trained parameters, {first.num_actor_parameters:,} of them serve")
    if first.algorithm is not None:
        lines.append(f"algorithm {first.algorithm}, {_each(row.origins, 'seed', 'seed')}")
    for name, words in (("prompts_seen", "prompts seen"), ("minutes", "minutes"), ("memory_mib", "MiB of memory")):
        if any(getattr(origin, name) is not None for origin in row.origins):
            lines.append(_each(row.origins, name, words))
    return lines


def _each(origins: Sequence[Origin], name: str, words: str) -> str:
    values = [getattr(origin, name) for origin in origins]
    return f"{words}: " + ", ".join("unknown" if value is None else f"{value:,.0f}" for value in values)


def _verdict(report: EvaluationReport, row: SystemRow) -> str:
    lines = []
    for label, score in row.scores.items():
        rate = score.win_rate
        verdict = "ahead of" if rate.low > 0.5 else "behind" if rate.high < 0.5 else "not distinguishable from"
        low, high = 100 * rate.low, 100 * rate.high
        lines.append(
            f"- {label}: {verdict} the LLM alone, {rate.estimate:.1%} of the prompts won [{low:.1f}, {high:.1f}]"
        )
    return "\n".join(lines) or f"No reward model judged its answers to the {report.num_prompts} prompts."


def _limits(report: EvaluationReport, row: SystemRow) -> list[str]:
    base = report.rows[0]
    lines = ["Reward models judged the answers, not people; the one called reward trained the proxy."]
    longer = row.length / base.length - 1
    lines.append(f"Its answers are {abs(longer):.0%} {'longer' if longer > 0 else 'shorter'} than the LLM's alone.")
    lines.append(f"Their NLL under the LLM is {row.nll:.2f} nats a token, {base.nll:.2f} alone.")
    lines += [
        f"It loses by {label}: {score.win_rate.estimate:.1%} of the prompts won."
        for label, score in row.scores.items()
        if score.win_rate.high < 0.5
    ]
    if row.num_seeds > 1:
        lines.append(f"The numbers are means over {row.num_seeds} training seeds; a single one of them may differ.")
    return lines


def _numbers(report: EvaluationReport, row: SystemRow) -> dict[str, object]:
    return {"evaluation": asdict(replace(report, rows=(report.rows[0], row)))}


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", label).strip("_.") or "proxy"
