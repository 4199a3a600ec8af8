"""Answers that are given as trajectories, by one teacher-forced pass of the LLM: what `pairs` and `answers` share."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.replay import Text, replay
from proxy_model.errors import DataError
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.algorithm_config import require
from trainer.json_lines import Messages
from trainer.lock import sole_trainer
from trainer.offline.folder import DataDescription, DataWriter, Kind
from trainer.offline.summary import finish

Watcher = Callable[[], None]
"""Called before each shard; what it raises ends the replay, which goes on there when it is called again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """Everything that the folder depends on, the texts themselves besides."""

    output: Path
    skam: SkamConfig = field(default_factory=SkamConfig)
    max_tokens: int = 64
    """Length at which an answer is cut, in tokens."""

    max_prompt_tokens: int = 256
    """Rows with longer prompts are left out."""

    prompts_per_shard: int = 64

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_prompt_tokens", "prompts_per_shard"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")

    def limit(self, llm: FrozenLLM) -> int:
        """Tokens that a prompt may have."""
        return min(self.max_prompt_tokens, llm.max_context - self.max_tokens)


Group = tuple[Text, ...]
"""The given answers to one prompt."""


def unwatched() -> None:
    """Nobody looks."""


def write_replay(
    config: ReplayConfig,
    llm: FrozenLLM,
    kind: Kind,
    groups: Sequence[Group],
    scores: tuple[float, ...],
    before_shard: Watcher,
) -> Mapping[str, Any]:
    """Fill `config.output` with groups of answers that have `scores`; returns the folder's summary.

    Raises `InvalidParameter` for a folder of other settings, `OutputTaken`, and `DataError` for no group at all.
    """
    if not groups:
        raise DataError(config.output, 0, f"no row has a prompt of at most {config.limit(llm)} tokens")
    with sole_trainer(config.output):
        writer = DataWriter(config.output, _description(config, llm, kind, groups))
        starts = range(0, 0 if writer.is_complete else len(groups), config.prompts_per_shard)
        for start in starts[writer.num_shards :]:
            before_shard()
            some = groups[start : start + config.prompts_per_shard]
            texts = [text for group in some for text in group]
            writer.add(replay(llm, texts, config.skam), torch.tensor(scores).repeat(len(some)))
        return finish(writer)


def fitting_group(
    config: ReplayConfig, llm: FrozenLLM, prompt: Messages, answers: tuple[str, ...]
) -> tuple[Text, ...] | None:
    """The answers to a prompt, ended or cut; None where the prompt does not fit."""
    prompt_ids = tuple(llm.tokenizer.apply_chat_template(prompt))
    if len(prompt_ids) > config.limit(llm):
        return None
    return tuple(Text(prompt_ids, _answer_ids(config, llm, answer)) for answer in answers)


def _answer_ids(config: ReplayConfig, llm: FrozenLLM, answer: str) -> tuple[int, ...]:
    """Its tokens and the end of the turn, unless it is cut before."""
    tokens = (*llm.tokenizer.encode(answer), *llm.tokenizer.end_of_turn())
    return tokens[: config.max_tokens]


def _description(config: ReplayConfig, llm: FrozenLLM, kind: Kind, groups: Sequence[Group]) -> DataDescription:
    settings = {name: each for name, each in asdict(config).items() if name != "output"}
    return DataDescription(
        kind=kind,
        settings={**settings, "prompts": len(groups), "texts_digest": _digest(groups)},
        fingerprint=dict(llm.fingerprint),
        skam=config.skam,
        features="prefix",
        group_size=len(groups[0]),
    )


def _digest(groups: Sequence[Group]) -> str:
    """Tells a file whose rows have changed from the one that a killed replay began with."""
    ids = [(group[0].prompt_token_ids, *(text.token_ids for text in group)) for group in groups]
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
