"""`proxy-rlhf replay`: preference pairs as trajectories, by one teacher-forced pass of the LLM."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from proxy_model.config import SkamConfig
from proxy_model.errors import DataError
from proxy_model.frozen_llm import FrozenLLM
from proxy_model.replay import Text, replay
from trainer.algorithm_config import require
from trainer.lock import sole_trainer
from trainer.offline.folder import DataDescription, DataWriter
from trainer.offline.summary import finish
from trainer.preferences import PreferencePair

CHOSEN, REJECTED = 1.0, 0.0
"""Scores of the two answers of a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """Everything that the folder depends on, the pairs themselves besides."""

    output: Path
    skam: SkamConfig = field(default_factory=SkamConfig)
    max_tokens: int = 64
    """Length at which an answer is cut, in tokens."""

    max_prompt_tokens: int = 256
    """Pairs with longer prompts are left out."""

    pairs_per_shard: int = 64

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_prompt_tokens", "pairs_per_shard"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


def replay_pairs(config: ReplayConfig, llm: FrozenLLM, pairs: Sequence[PreferencePair]) -> Mapping[str, Any]:
    """Fill `config.output`, or finish what a killed replay left there; returns the folder's summary.

    Raises `InvalidParameter` for a folder of other settings, `OutputTaken`, and `DataError` where no pair fits.
    """
    texts = list(_texts(config, llm, pairs))
    if not texts:
        raise DataError(config.output, 0, f"no pair has a prompt of at most {config.max_prompt_tokens} tokens")
    with sole_trainer(config.output):
        writer = DataWriter(config.output, _description(config, llm, texts))
        starts = range(0, 0 if writer.is_complete else len(texts), config.pairs_per_shard)
        for start in starts[writer.num_shards :]:
            some = [text for pair in texts[start : start + config.pairs_per_shard] for text in pair]
            writer.add(replay(llm, some, config.skam), torch.tensor([CHOSEN, REJECTED]).repeat(len(some) // 2))
        return finish(writer)


def _texts(config: ReplayConfig, llm: FrozenLLM, pairs: Sequence[PreferencePair]) -> Iterator[tuple[Text, Text]]:
    """The pairs whose prompt fits and whose answers differ within their first tokens, chosen first."""
    limit = min(config.max_prompt_tokens, llm.max_context - config.max_tokens)
    for pair in pairs:
        prompt = tuple(llm.tokenizer.apply_chat_template(pair.prompt))
        chosen, rejected = (_answer(config, llm, answer) for answer in (pair.chosen, pair.rejected))
        if len(prompt) <= limit and chosen != rejected:
            yield Text(prompt, chosen), Text(prompt, rejected)


def _answer(config: ReplayConfig, llm: FrozenLLM, answer: str) -> tuple[int, ...]:
    """Its tokens and the end of the turn, unless it is cut before."""
    tokens = (*llm.tokenizer.encode(answer), *llm.tokenizer.end_of_turn())
    return tokens[: config.max_tokens]


def _description(config: ReplayConfig, llm: FrozenLLM, texts: Sequence[tuple[Text, Text]]) -> DataDescription:
    settings = {name: each for name, each in asdict(config).items() if name != "output"}
    return DataDescription(
        kind="pairs",
        settings={**settings, "pairs": len(texts), "texts_digest": _digest(texts)},
        fingerprint=dict(llm.fingerprint),
        skam=config.skam,
        features="prefix",
        group_size=2,
    )


def _digest(texts: Sequence[tuple[Text, Text]]) -> str:
    """Tells a file whose pairs have changed from the one that a killed replay began with."""
    ids = [(chosen.prompt_token_ids, chosen.token_ids, rejected.token_ids) for chosen, rejected in texts]
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
