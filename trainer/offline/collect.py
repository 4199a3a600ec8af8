"""`proxy-rlhf rollouts`: prompts answered and scored once, for any number of offline runs to learn from.

The settings are those of a training run; what says how to learn does not count. The start policy answers, or version 0,
its decisions sampled; or the LLM alone answers and its answers are replayed. A killed collection goes on after its last
whole shard and ends as if it had not been killed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from proxy_model.decision.trajectory import Trajectory
from proxy_model.decoding.engine import Engine
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from trainer.config import TrainConfig
from trainer.config_file import config_to_mapping
from trainer.interruption import Interruption
from trainer.lock import sole_trainer
from trainer.offline.folder import MAX_SHARDS, DataDescription, DataWriter
from trainer.offline.plain import roll_out_plain
from trainer.offline.summary import finish
from trainer.parts import Parts, answerer_of, engine_config, fitting_prompts, new_policy
from trainer.rewards.weighted import WeightedReward
from trainer.rollout import EncodedPrompt, Rollout, derived_seed, prompt_indices

NOT_OF_ANSWERS = frozenset(
    {
        "output",
        "proxy",
        "registry",
        "alias",
        "publish_every",
        "keep_versions",
        "save_every",
        "tensorboard",
        "data",
        "servers",
    }
    | {"shaping", "ppo", "rloo", "likelihood", "dt", "dpo", "value", "offline"}
)
"""Settings of a run that its answers do not depend on."""

Watcher = Callable[[int, int], None]
"""Told how many shards are done, and of how many."""

_Answers = Callable[[Sequence[EncodedPrompt], int], Rollout]
"""To the prompts of a shard, with its number."""


def collect(config: TrainConfig, parts: Parts, *, is_plain: bool, on_shard: Watcher) -> Mapping[str, Any]:
    """Fill `config.output`, or finish what a killed collection left there; returns the folder's summary.

    `is_plain`: the LLM alone answers. Raises `InvalidParameter` for a folder of other settings or too many shards,
    `OutputTaken`, and `DataError` where no prompt fits.
    """
    if config.data is not None:
        raise InvalidParameter("data", str(config.data), "left out where answers are made")
    if is_plain and config.shape.features != "prefix":
        raise InvalidParameter("shape.features", config.shape.features, "'prefix' where the LLM alone answers")
    if is_plain and config.servers is not None:
        raise InvalidParameter("servers", list(config.servers.urls), "left out where the LLM alone answers")
    prompts = fitting_prompts(config, parts)
    num_shards = _num_shards(config, prompts)
    with sole_trainer(config.output):
        writer = DataWriter(config.output, _description(config, parts.llm, is_plain=is_plain))
        collector = _collector(config, parts, prompts, is_plain=is_plain)
        for number in range(num_shards if writer.is_complete else writer.num_shards, num_shards):
            writer.add(*collector.shard(number))
            on_shard(number + 1, num_shards)
        return finish(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collector:
    """Answers shard by shard; which ones depends on the settings and the shard's number only."""

    config: TrainConfig
    reward_model: WeightedReward
    prompts: Sequence[EncodedPrompt]
    answers: _Answers

    def shard(self, number: int) -> tuple[Sequence[Trajectory], Tensor, Tensor]:
        """The answers of shard `number`, their scores (B,) and kinds (B,)."""
        config, rollout = self.config, self.config.rollout
        kinds = [prompt.kind for prompt in self.prompts]
        chosen = prompt_indices(kinds, rollout.prompts_per_iteration, number, config.seed)
        num_left = _num_prompts(config, self.prompts) - number * rollout.prompts_per_iteration
        prompts = [self.prompts[index] for index in chosen[:num_left] for _ in range(rollout.responses_per_prompt)]
        answers = self.answers(prompts, number)
        return answers.trajectories, self.reward_model.score(answers.conversations), answers.kinds


def _collector(config: TrainConfig, parts: Parts, prompts: Sequence[EncodedPrompt], *, is_plain: bool) -> _Collector:
    if parts.reward_model is None:
        raise InvalidParameter("rewards", None, "given")
    make = _plain_answers if is_plain else _decided_answers
    answers = make(config, parts.llm, prompts)
    return _Collector(config=config, reward_model=parts.reward_model, prompts=prompts, answers=answers)


def _plain_answers(config: TrainConfig, llm: FrozenLLM, prompts: Sequence[EncodedPrompt]) -> _Answers:
    """The LLM's own."""
    engine = Engine(llm, engine_config(config, prompts))

    def answers(some: Sequence[EncodedPrompt], number: int) -> Rollout:
        return roll_out_plain(engine, config.skam, some, config.rollout.max_tokens, derived_seed(config.seed, number))

    return answers


def _decided_answers(config: TrainConfig, llm: FrozenLLM, prompts: Sequence[EncodedPrompt]) -> _Answers:
    """Under the start policy, or version 0."""
    policy, answerer = new_policy(config, llm), answerer_of(config, llm, prompts, Interruption())
    return lambda some, number: answerer.roll_out(policy, some, iteration=number)


def _num_prompts(config: TrainConfig, prompts: Sequence[EncodedPrompt]) -> int:
    return config.num_prompts or len(prompts)


def _num_shards(config: TrainConfig, prompts: Sequence[EncodedPrompt]) -> int:
    wanted, per_shard = _num_prompts(config, prompts), config.rollout.prompts_per_iteration
    if wanted > MAX_SHARDS * per_shard:
        least = f"at least {-(-wanted // MAX_SHARDS)} for {wanted} prompts"
        raise InvalidParameter("rollout.prompts_per_iteration", per_shard, least)
    return -(-wanted // per_shard)


def _description(config: TrainConfig, llm: FrozenLLM, *, is_plain: bool) -> DataDescription:
    settings = {name: each for name, each in config_to_mapping(config).items() if name not in NOT_OF_ANSWERS}
    return DataDescription(
        kind="rollouts",
        settings={**settings, "is_plain": is_plain},
        fingerprint=dict(llm.fingerprint),
        skam=config.skam,
        features=config.shape.features,
        group_size=config.rollout.responses_per_prompt,
    )
