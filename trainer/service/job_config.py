"""From a job's specification to the settings of its run: every choice that was left to the trainer is made here."""

from pathlib import Path
from typing import Any

from proxy_model.paths import jobs_root, proxies_root
from proxy_model.versions.registry import ProxyRegistry
from store.fine_tuning.gates import Gates
from store.fine_tuning.graders import grader_to_json
from store.fine_tuning.hyperparameters import (
    DpoHyperparameters,
    Hyperparameters,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
)
from store.fine_tuning.specification import Specification
from trainer.algorithm_config import DpoConfig, DtConfig, LikelihoodConfig, PpoConfig, RlooConfig
from trainer.config import TrainConfig
from trainer.config_file import config_from_mapping

ROWS_FILE, HELD_OUT_FILE = "rows.jsonl", "held_out.jsonl"
_RUN_FOLDER, _DATA_FOLDER = "run", "answers"

_BATCH_PROMPTS = 48
"""Answers of an iteration, unless the file is smaller or the caller says otherwise."""

_GROUP = 4
"""Answers to each prompt where they are one another's baseline."""

_OFFLINE_EPOCHS = 2
"""Passes over answers that are given, each of which an iteration goes through as often as its algorithm's `epochs`."""

_REJECTIONS_PER_TOKEN = 0.2
"""Of what learns from answers that are given: as it was learnt it would hardly change a greedy decision."""

_ALL = -1.0
"""`mle`'s threshold, in deviations, that answers of one and the same score pass."""

_TABLES: dict[str, tuple[str, type[Any]]] = {
    "dpo": ("dpo", DpoConfig),
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
    """The run of a job whose file has `num_rows` rows. Raises `InvalidParameter`, `UnknownProxy`."""
    chosen = specification.method.hyperparameters
    values = {
        "output": str(run_folder(home, job_id)),
        "proxy": specification.proxy,
        "model": specification.llm_source,
        "registry": str(proxies_root(home)),
        "alias": specification.alias,
        "publish_every": chosen.checkpoint_interval or 0,
        "seed": specification.seed,
        "tensorboard": False,
        "skam": _given(p_t=chosen.p_t, top_p=chosen.top_p),
    }
    if isinstance(chosen, ReinforcementHyperparameters):
        assert specification.method.grader is not None
        values["rewards"] = [grader_to_json(specification.method.grader)]
        values["prompts"] = str(job_folder(home, job_id) / ROWS_FILE)
        values |= _online(chosen, num_rows)
        if judge_url is not None:
            values["judge"] = {"url": judge_url}
    else:
        assert isinstance(chosen, SupervisedHyperparameters)
        values["data"] = str(job_folder(home, job_id) / _DATA_FOLDER)
        values |= _offline(chosen, num_rows)
    if specification.start is not None:
        values["start"] = str(_published(specification.start, home))
    if specification.gates is not None:
        values |= _gated(specification.gates, job_id, home)
    return config_from_mapping(values)


def _gated(gates: Gates, job_id: str, home: Path) -> dict[str, Any]:
    judge, prompts = gates.judge_folder(home), job_folder(home, job_id) / HELD_OUT_FILE
    held_out = {"prompts": str(prompts), "num_prompts": gates.num_prompts, "max_tokens": gates.max_tokens}
    limits = {name: float(limit) for name, limit in gates.limits.items()}
    return {
        "held_out": held_out | _given(judge=None if judge is None else str(judge)),
        "gates": limits or None,
    }


def _online(chosen: ReinforcementHyperparameters, num_rows: int) -> dict[str, Any]:
    """Answers of the proxy's own."""
    group = chosen.responses_per_prompt or (_GROUP if chosen.algorithm == "rloo" else 1)
    num_prompts = chosen.num_prompts or (chosen.n_epochs or 1) * num_rows
    batch = chosen.batch_size or min(_BATCH_PROMPTS // group, num_rows)
    return {
        "algorithm": chosen.algorithm,
        "num_prompts": num_prompts,
        "rollout": _rollout(min(batch, num_prompts), chosen) | {"responses_per_prompt": group},
        "shaping": _given(penalty_weight=chosen.penalty_weight),
        **_algorithm_table(chosen.algorithm, chosen, _given(beta=chosen.beta)),
    }


def _offline(chosen: SupervisedHyperparameters, num_rows: int) -> dict[str, Any]:
    """Answers that are given, all of which count as their file says and not by how far they are from the LLM's."""
    settings = _given(beta=chosen.beta) if isinstance(chosen, DpoHyperparameters) else {"threshold": _ALL}
    epochs, rate = chosen.n_epochs or _OFFLINE_EPOCHS, chosen.rejections_per_token
    batch = min(chosen.batch_size or min(_BATCH_PROMPTS, num_rows), epochs * num_rows)
    return {
        "algorithm": chosen.algorithm,
        "rollout": _rollout(batch, chosen),
        "shaping": {"penalty": "none"},
        "offline": {
            "epochs": epochs,
            "rejections_per_token": _REJECTIONS_PER_TOKEN if rate is None else rate,
        },
        **_algorithm_table(chosen.algorithm, chosen, settings),
    }


def _rollout(batch: int, chosen: Hyperparameters) -> dict[str, Any]:
    return {"prompts_per_iteration": max(2, batch)} | _given(
        max_tokens=chosen.max_tokens, max_prompt_tokens=chosen.max_prompt_tokens
    )


def _algorithm_table(algorithm: str, chosen: Hyperparameters, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    name, kind = _TABLES[algorithm]
    if chosen.learning_rate_multiplier is not None:
        settings["learning_rate"] = kind().learning_rate * chosen.learning_rate_multiplier
    return {name: settings}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _published(start: str, home: Path) -> Path:
    registry = ProxyRegistry(proxies_root(home))
    name, _, version = start.partition("@")
    return registry.path(registry.resolve(name, version))
