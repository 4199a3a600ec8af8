"""Where a checkpoint comes from: what its card says of the training, and what the run's log adds."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proxy_model.errors import InvalidParameter
from proxy_model.versions.checkpoint import Checkpoint
from trainer.config_file import read_settings
from trainer.run_log import METRICS_FILE, read_rows
from trainer.saved_settings import SETTINGS_FILE

TRAINING_FILE = "training.json"
"""An `Origin` beside the weights of an LLM that was fine-tuned for comparison."""

_SECONDS = ("speed/rollout_seconds", "speed/score_seconds", "speed/update_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What is known of a proxy's training; None is what nobody wrote down."""

    num_parameters: int
    """Of actor and critic."""

    num_actor_parameters: int
    algorithm: str | None = None
    run: str | None = None
    """The run's folder, as its settings spell it."""

    run_folder: str | None = None
    """Where its log was found."""

    seed: int | None = None
    iterations: int | None = None
    prompts_seen: int | None = None
    minutes: float | None = None
    """Of all iterations up to this version, publishing left out."""

    memory_mib: float | None = None
    """Largest resident memory of the training process, the LLM's and the reward model's included."""

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)


def origin_of(folder: Path, checkpoint: Checkpoint) -> Origin:
    """Read the card, and the metrics of the run that published `folder`, if they still lie where it put them."""
    card, policy = checkpoint.card, checkpoint.policy
    settings, metrics = _mapping(card, "settings"), _mapping(card, "metrics")
    iterations = _whole(card.get("iterations"))
    run = find_run(folder, settings.get("output"))
    rows = [] if run is None else read_rows(run / METRICS_FILE)
    is_known = iterations is not None and len(rows) >= iterations
    return Origin(
        num_parameters=sum(each.numel() for each in policy.parameters()),
        num_actor_parameters=sum(each.numel() for each in policy.actor.parameters()),
        algorithm=_text(settings.get("algorithm")),
        run=_text(settings.get("output")),
        run_folder=None if run is None else str(run),
        seed=_whole(settings.get("seed")),
        iterations=iterations,
        prompts_seen=_whole(card.get("prompts_seen")),
        minutes=training_minutes(rows[:iterations]) if is_known else None,
        memory_mib=_number(metrics.get("speed/peak_rss_mib")),
    )


def origin_of_llm(folder: Path) -> Origin | None:
    """What `TRAINING_FILE` in `folder` tells, if there is one. Raises `InvalidParameter` for anything else in it."""
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    try:
        return Origin(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise InvalidParameter("systems", str(path), f"what a fine-tuning wrote: {error}") from error


def find_run(folder: Path, output: Any) -> Path | None:
    """The run's folder: above the checkpoint (`<run>/proxies/<name>/<version>`), or where its settings say."""
    places = [*folder.absolute().parents[:3], *([Path(output)] if isinstance(output, str) else [])]
    return next((place for place in places if (place / METRICS_FILE).is_file()), None)


def is_offline(run: Path) -> bool:
    """Whether the run in this folder learnt from recorded answers."""
    settings = run / SETTINGS_FILE
    return settings.is_file() and read_settings(settings).get("data") is not None


def training_minutes(rows: list[dict[str, float]]) -> float:
    """Rollouts, scores and updates of the logged iterations together."""
    return sum(row.get(name, 0.0) for row in rows for name in _SECONDS) / 60


def _mapping(card: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = card.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None
