"""`proxy-rlhf replay`: preference pairs as trajectories, for `dpo`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.offline.replayed import Group, ReplayConfig, Watcher, fitting_group, unwatched, write_replay
from trainer.preferences import PreferencePair

CHOSEN, REJECTED = 1.0, 0.0
"""Scores of the two answers of a pair."""


def replay_pairs(
    config: ReplayConfig, llm: FrozenLLM, pairs: Sequence[PreferencePair], before_shard: Watcher = unwatched
) -> Mapping[str, Any]:
    """Fill `config.output`, or finish what a killed replay left there; returns the folder's summary.

    Raises `InvalidParameter` for a folder of other settings, `OutputTaken`, and `DataError` where no pair fits.
    """
    return write_replay(config, llm, "pairs", list(_groups(config, llm, pairs)), (CHOSEN, REJECTED), before_shard)


def _groups(config: ReplayConfig, llm: FrozenLLM, pairs: Sequence[PreferencePair]) -> Iterator[Group]:
    """The pairs whose prompt fits and whose answers differ within their first tokens, chosen first."""
    for pair in pairs:
        group = fitting_group(config, llm, pair.prompt, (pair.chosen, pair.rejected))
        if group is not None and group[0] != group[1]:
            yield group
