"""From a job's specification to the settings of its run: every choice that was left to the trainer is made here."""

from pathlib import Path
from typing import Any

from proxy_model.paths import jobs_root, proxies_root
from proxy_model.registry import ProxyRegistry
from store.fine_tuning.graders import grader_to_json
from store.fine_tuning.hyperparameters import Hyperparameters
from store.fine_tuning.specification import Specification
from trainer.algorithm_config import DtConfig, LikelihoodConfig, PpoConfig, RlooConfig
from trainer.config import TrainConfig, config_from_mapping

PROMPTS_FILE = "prompts.jsonl"
_RUN_FOLDER = "run"

_BATCH_PROMPTS = 48
"""Answers of an iteration, unless the file is smaller or the caller says otherwise."""

_GROUP = 4
"""Answers to each prompt where they are one another's baseline."""

_TABLES: dict[str, tuple[str, type[Any]]] = {
    "ppo": ("ppo", PpoConfig),
    "rloo": ("rloo", RlooConfig),
    "dt": ("dt", DtConfig),
    "mle": ("likelihood", LikelihoodConfig),
    "rwr": ("likelihood", LikelihoodConfig),
    "awr": ("likelihood", LikelihoodConfig),
}
"""Of each algorithm: the table of its settings."""


def job_folder(home: Path, job_id: str) -> Path:
    """Where a job's data and run lie while it is under way."""
    return jobs_root(home) / job_id


def run_folder(home: Path, job_id: str) -> Path:
    """Where its run lies."""
    return job_folder(home, job_id) / _RUN_FOLDER


def job_config(
    specification: Specification, job_id: str, num_rows: int, home: Path, judge_url: str | None
) -> TrainConfig:
    """The run of a job whose file has `num_rows` prompts. Raises `InvalidParameter`, `UnknownProxy`."""
    chosen = specification.method.hyperparameters
    values = {
        "output": str(run_folder(home, job_id)),
        "prompts": str(job_folder(home, job_id) / PROMPTS_FILE),
        "rewards": [grader_to_json(specification.method.grader)],
        "proxy": specification.proxy,
        "model": specification.llm_source,
        "algorithm": chosen.algorithm,
        "registry": str(proxies_root(home)),
        "alias": specification.alias,
        "num_prompts": chosen.num_prompts or (chosen.n_epochs or 1) * num_rows,
        "publish_every": chosen.checkpoint_interval or 0,
        "seed": specification.seed,
        "tensorboard": False,
        "skam": _given(p_t=chosen.p_t, top_p=chosen.top_p),
        "rollout": _rollout(chosen, num_rows),
        "shaping": _given(penalty_weight=chosen.penalty_weight),
        **_algorithm_table(chosen),
    }
    if judge_url is not None:
        values["judge"] = {"url": judge_url}
    if specification.start is not None:
        values["start"] = str(_published(specification.start, home))
    return config_from_mapping(values)


def _rollout(chosen: Hyperparameters, num_rows: int) -> dict[str, Any]:
    group = chosen.responses_per_prompt or (_GROUP if chosen.algorithm == "rloo" else 1)
    batch = chosen.batch_size or max(2, min(_BATCH_PROMPTS // group, num_rows))
    return {"prompts_per_iteration": batch, "responses_per_prompt": group} | _given(max_tokens=chosen.max_tokens)


def _algorithm_table(chosen: Hyperparameters) -> dict[str, dict[str, Any]]:
    name, kind = _TABLES[chosen.algorithm]
    settings = _given(beta=chosen.beta)
    if chosen.learning_rate_multiplier is not None:
        settings["learning_rate"] = kind().learning_rate * chosen.learning_rate_multiplier
    return {name: settings}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _published(start: str, home: Path) -> Path:
    registry = ProxyRegistry(proxies_root(home))
    name, _, version = start.partition("@")
    return registry.path(registry.resolve(name, version))
