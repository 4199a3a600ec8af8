"""Answers that a job's file gives, turned into the folder of decisions that its run learns from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxy_model.llm.frozen_llm import load_llm
from trainer.config import TrainConfig
from trainer.offline.answers import load_answers, replay_answers
from trainer.offline.folder import MAX_SHARDS
from trainer.offline.pairs import replay_pairs
from trainer.offline.replayed import ReplayConfig
from trainer.preferences import load_preferences

_PROMPTS_PER_SHARD = 16
"""So few that a job which is taken back is left within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What there is to learn from."""

    num_fitting: int
    """Rows whose prompt is short enough and whose answers differ."""

    num_learnable: int
    """Those of them whose every answer has a token that the proxy may choose."""

    max_prompt_tokens: int
    inadmissible_share: float
    """Tokens of the answers that the proxy may not choose, and that are not learnt."""


class _Left(Exception):
    """Somebody wants the trainer back."""


def replay_rows(rows: Path, config: TrainConfig, must_leave: Callable[[], bool]) -> Replayed | None:
    """Fill `config.data` from the file `rows`, or finish what was begun; what is in it, None if it was left.

    Raises what the replays raise.
    """

    def leave_if_due() -> None:
        if must_leave():
            raise _Left

    assert config.data is not None
    is_paired = config.algorithm == "dpo"
    pairs, answers = (load_preferences([rows]), []) if is_paired else ([], load_answers(rows))
    replayed = ReplayConfig(
        output=config.data,
        skam=config.skam,
        max_tokens=config.rollout.max_tokens,
        max_prompt_tokens=config.rollout.max_prompt_tokens,
        prompts_per_shard=max(_PROMPTS_PER_SHARD, -(-(len(pairs) + len(answers)) // MAX_SHARDS)),
    )
    try:
        leave_if_due()
        llm = load_llm(config.model)
        if is_paired:
            summary = replay_pairs(replayed, llm, pairs, leave_if_due)
        else:
            summary = replay_answers(replayed, llm, answers, leave_if_due)
    except _Left:
        return None
    num_fitting = int(summary["answers"]) // (2 if is_paired else 1)
    return Replayed(
        num_fitting=num_fitting,
        num_learnable=int(summary.get("learnable_prompts", num_fitting)),  # a folder of an older release has no count
        max_prompt_tokens=replayed.limit(llm),
        inadmissible_share=float(summary["inadmissible_share"]),
    )
